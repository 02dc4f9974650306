"""Waymax's other dynamics and the rules of a step (waymax/dynamics/)."""

from __future__ import annotations

import numpy as np

from alpagym.interop.waymax.bicycle import DT, checked_pairs
from alpagym.interop.waymax.checks import checked_mask, checked_positive
from alpagym.metrics.geometry import checked, rotate
from alpagym.scenarios.polyline import wrap_angle

MAX_DELTA = 6.0
"""Bound of dx and dy of an inverse action [m]."""


def delta_forward(
    states: np.ndarray, actions: np.ndarray, *, local: bool = False, dt: float = DT
) -> np.ndarray:
    """Displaced states, [..., 5] (delta.py: DeltaGlobal, DeltaLocal).

    x, y and yaw grow by the action and the velocity is (dx, dy) / dt; nothing is bounded and the
    yaw is not wrapped.

    Args:
        states: [..., 5].
        actions: dx, dy [m], dyaw [rad], [..., 3].
        local: dx and dy point along and to the left of the yaw, not along the world's axes.
        dt: [s]

    Raises:
        ValueError: wrong shapes, NaN or infinity, or a dt that is not above 0.
    """
    states, actions = checked("states", states, 5), checked("actions", actions, 3)
    checked_positive(dt=dt)
    moved = rotate(actions[..., :2], states[..., 2]) if local else actions[..., :2]
    yaw = states[..., 2:3] + actions[..., 2:]
    return np.concatenate([states[..., :2] + moved, yaw, moved / dt], -1)


def delta_inverse(pairs: np.ndarray, valid: np.ndarray, *, local: bool = False) -> np.ndarray:
    """The action between two states: dx, dy within +-6 m, dyaw wrapped, [..., 3] (delta.py).

    The local action is the bounded global one, turned by -yaw of the first state and bounded again.
    `pairs` [..., 2, 5], `valid` [..., 2]; actions of pairs that are not valid are 0.

    Raises:
        ValueError: wrong shapes, or NaN or infinity in a valid pair.
    """
    pairs, _ = checked_pairs(pairs, valid)
    change = pairs[..., 1, :3] - pairs[..., 0, :3]
    moved = np.clip(change[..., :2], -MAX_DELTA, MAX_DELTA)
    if local:
        turned = rotate(moved, -np.asarray(pairs[..., 0, 2]))
        moved = np.clip(turned, -MAX_DELTA, MAX_DELTA)
    return np.concatenate([moved, wrap_angle(change[..., 2:])], -1)


def state_forward(actions: np.ndarray, action_valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The action is the next state [..., 5], there where the action is valid (state_dynamics.py).

    Raises:
        ValueError: wrong shapes, NaN or infinity.
    """
    actions = checked("actions", actions, 5)
    return actions.copy(), checked_mask("action_valid", action_valid, actions.shape[:-1]).copy()


def state_inverse(pairs: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The second states [..., 5] and whether they are valid [...], whatever the first ones are.

    Raises:
        ValueError: wrong shapes, NaN or infinity in a second state.
    """
    pairs = np.asarray(pairs, np.float64)
    if pairs.ndim < 2 or pairs.shape[-2:] != (2, 5):
        raise ValueError(f"pairs: expected [..., 2, 5], got {list(pairs.shape)}")
    valid = checked_mask("valid", valid, pairs.shape[:-1])
    return checked("pairs", pairs[..., 1, :], 5).copy(), valid[..., 1].copy()


def step(
    updates: np.ndarray,
    state_valid: np.ndarray,
    reference: np.ndarray,
    reference_valid: np.ndarray,
    controlled: np.ndarray,
    *,
    inject: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """What a simulator makes of a model's updates (abstract_dynamics.py: forward).

    Controlled objects take the update, the others the reference's next state. A controlled object
    that exists goes on existing, whether or not its action was valid; of the others those exist
    that did and that the reference has, or with `inject` all those that the reference has.

    Args:
        updates: next states by the dynamics model, [..., 5].
        state_valid: whether the objects exist now, [...].
        reference: next states of the log, [..., 5].
        reference_valid: whether the log has them, [...].
        controlled: [...]
        inject: objects may appear.

    Returns:
        The next states [..., 5] and whether the objects exist then [...].

    Raises:
        ValueError: wrong shapes, NaN or infinity.
    """
    updates, reference = checked("updates", updates, 5), checked("reference", reference, 5)
    if updates.shape != reference.shape:
        raise ValueError(f"reference: expected {list(updates.shape)}, got {list(reference.shape)}")
    shape = updates.shape[:-1]
    exists = checked_mask("state_valid", state_valid, shape)
    known = checked_mask("reference_valid", reference_valid, shape)
    controlled = checked_mask("controlled", controlled, shape)
    states = np.where(controlled[..., None], updates, reference)
    return states, np.where(controlled & exists, True, known if inject else exists & known)
