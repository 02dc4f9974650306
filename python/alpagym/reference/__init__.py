"""The simulator in plain NumPy float64: slow, obvious, the oracle of every stage.

Take the tensors as arrays, run the same calls as `alpagym.sim`, compare:

    scenarios, state = reference.places(batch), reference.arrays(tensors)
    outcome = reference.step(scenarios, state, action, weights, config)

Arrays are float64 and written in place, as tensors are. Besides the outcome, `margin_...` arrays
tell how near each thresholded decision was to falling the other way.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from alpagym.config import SimConfig
from alpagym.reference.decide import decide
from alpagym.reference.motion import BEFORE, advance, control, progress, reset, take
from alpagym.reference.noise import noise
from alpagym.reference.observe import observe
from alpagym.reference.outcome import DECISIONS, reward
from alpagym.reference.world import Place, arrays, places, worlds
from alpagym.sim import RewardTerm

__all__ = ["arrays", "fork", "noise", "observe", "places", "reset", "step"]


def step(
    scenarios: list[Place],
    state: SimpleNamespace,
    action: np.ndarray,
    weights: np.ndarray,
    config: SimConfig,
) -> SimpleNamespace:
    """Advance every world that is not done; return every field of `Outcome` as an array.

    `action` is [W, E, D], `weights` [1 or W, R]. `margin_contact`, `_offroad`, `_flags`, `_lane`,
    `_comfort` and `_limit` are [W, E], `margin_control` [W, A].
    """
    shape = state.ego.shape
    out = SimpleNamespace(
        terms=np.zeros((*shape, len(RewardTerm))), margin_control=np.full(state.x.shape, np.inf)
    )
    for name in ("reward", "collision", "progress_fraction", "ttc"):
        setattr(out, name, np.zeros(shape))
    for name in ("lane", "lane_offset", "lane_heading", "bad_action"):
        setattr(out, name, np.zeros(shape))
    for name in DECISIONS:
        setattr(out, f"margin_{name}", np.full(shape, np.inf))
    for world in worlds(scenarios, state):
        w = world.w
        state.still[w] = world.done()
        if not world.done():
            state.slot[w] = [world.ego_slot(a) for a in range(state.x.shape[1])]
            for name in BEFORE:
                getattr(state, f"prev_{name}")[w] = getattr(state, name)[w]
            decide(world, config, out.margin_control[w])
            rows = take(world, action[w], config)
            asked = control(world, rows, config, out.margin_control[w])
            advance(world, rows, asked, config)
            state.step[w] += 1
            progress(world, config, out.margin_control[w])
        for e in range(shape[1]):
            reward(world, e, action[w, e], config, weights[0 if len(weights) == 1 else w], out)
    return out


def fork(source: SimpleNamespace, target: SimpleNamespace, index: np.ndarray) -> None:
    """World w of `target` becomes a copy of world `index[w]` of `source`; -1 leaves it alone."""
    for w, v in enumerate(index):
        if 0 <= v < len(source.scenario):
            for name, array in vars(target).items():
                array[w] = getattr(source, name)[v]
