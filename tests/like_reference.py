"""One step of the simulator against one of the float64 reference, from the same state.

Thresholded results (collisions, off-road, red lights, masks, IDM's choices, ...) must be equal
wherever the reference decided by more than BAND; nearer than that float32 may decide otherwise,
but seldom: FLIPS bounds the share of all decisions that do.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from torch import Tensor

from alpagym import sim
from alpagym.types import State
from simulating import Rig, error, host, poison

BAND = 2e-3
FLIPS = 0.01

# What float32 leaves after one step from equal states, at coordinates up to 150 m (where float32
# resolves 1.5e-5 m): positions are sums of a few such terms; a speed from a displacement divides
# them by dt; an acceleration divides twice.
RESIDUAL = {"speed": 4e-4, "accel": 8e-3, "curvature": 2e-3}
POSE_RESIDUAL = 6e-5

TERM_RESIDUAL = {
    sim.RewardTerm.SPEED_LIMIT: 4e-4,
    sim.RewardTerm.TTC: 2e-3,
}
DECIDED_BY = {  # which margin of the reference a term hangs on
    sim.RewardTerm.COLLISION_AT_FAULT: "contact",
    sim.RewardTerm.COLLISION_ANY: "contact",
    sim.RewardTerm.TTC: "contact",
    sim.RewardTerm.OFFROAD: "offroad",
    sim.RewardTerm.RED_LIGHT: "flags",
    sim.RewardTerm.STOP_SIGN: "flags",
    sim.RewardTerm.GOAL: "flags",
    sim.RewardTerm.LANE: "lane",
    sim.RewardTerm.WRONG_WAY: "flags",
    sim.RewardTerm.COMFORT: "comfort",
    sim.RewardTerm.SPEED_LIMIT: "limit",
}


class Tally:
    """Counts close calls that went the other way; fails on any that were not close."""

    def __init__(self) -> None:
        self.flips = self.decisions = 0

    def check(self, name: str, wrong: np.ndarray, margin: np.ndarray) -> None:
        margin = np.broadcast_to(margin, wrong.shape)
        clear = np.argwhere(wrong & (margin > BAND))
        assert len(clear) == 0, f"{name}: wrong at {clear[:5].tolist()} of {wrong.shape}"
        self.flips += int(wrong.sum())
        self.decisions += wrong.size

    def close(self) -> None:
        assert self.flips <= FLIPS * self.decisions, f"{self.flips} of {self.decisions} flipped"


def check_state(got: State, want, tally: Tally, margin: np.ndarray, tol) -> None:
    """Every field of State; `margin` [W, A] is how near each agent's driving decisions were."""
    got = host(got)
    for f in fields(State):
        actual, expected = getattr(got, f.name), getattr(want, f.name)
        if f.name in ("terminated", "truncated", "offroad"):
            continue  # follow from thresholds, which the terms judge
        if actual.dtype == np.float64:
            kind = f.name.removeprefix("prev_")
            wrong = error(actual, expected, kind == "yaw") > tol(RESIDUAL.get(kind, POSE_RESIDUAL))
            if actual.shape == margin.shape:
                wrong &= want.prev_valid if f.name.startswith("prev_") else want.valid
            if actual.shape == margin.shape and not f.name.startswith("prev_"):
                tally.check(f.name, wrong, margin)
                continue
        else:
            wrong = actual != expected
        assert not wrong.any(), f"{f.name}: {np.argwhere(wrong)[:5].tolist()}"


def check_outcome(rig: Rig, want_state, want, tally: Tally, tol) -> None:
    got, got_state = host(rig.outcome), host(rig.state)
    for term in sim.RewardTerm:
        margin = getattr(want, f"margin_{DECIDED_BY.get(term, 'none')}", np.inf)
        residual = tol(TERM_RESIDUAL.get(term, 2 * POSE_RESIDUAL))
        wrong = error(got.terms[..., term], want.terms[..., term]) > residual
        tally.check(term.name, wrong, margin)
    tally.check("collision", got.collision != want.collision, want.margin_contact)
    ttc = error(np.minimum(got.ttc, 9.0), np.minimum(want.ttc, 9.0)) > tol(4e-3)
    tally.check("lane", got.lane != want.lane, want.margin_lane)
    same_lane = got.lane == want.lane
    for name in ("lane_offset", "lane_heading"):
        wrong = error(getattr(got, name), getattr(want, name), True) > tol(2 * POSE_RESIDUAL)
        tally.check(name, wrong & same_lane, want.margin_lane)
    assert (got.bad_action == want.bad_action).all()
    tally.check("ttc", ttc, want.margin_contact)
    assert (error(got.progress_fraction, want.progress_fraction) < 1e-4).all()
    tally.check("offroad", got_state.offroad != want_state.offroad, want.margin_offroad)
    every = np.minimum.reduce([want.margin_contact, want.margin_offroad, want.margin_flags])
    for name in ("terminated", "truncated"):
        tally.check(name, getattr(got_state, name) != getattr(want_state, name), every)
    # The reward is the weighted sum of the terms, whichever way they fell.
    total = (got.terms * rig.weights.cpu().numpy()[:, None]).sum(-1)
    assert (error(got.reward, total) < 1e-4 * (1 + np.abs(total))).all()


def check_step(rig: Rig, action: Tensor, tally: Tally, tol) -> None:
    """Step the rig, and hold all that this leaves against what the reference makes of it."""
    poison(rig.outcome)
    state, outcome = rig.reference_step(action)
    rig.step(action)
    check_state(rig.state, state, tally, outcome.margin_control, tol)
    check_outcome(rig, state, outcome, tally, tol)
