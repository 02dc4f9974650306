"""How hard a recorded drive is: what training by difficulty draws scenarios by."""

from __future__ import annotations

import numpy as np

from alpagym.scenarios.scenario import Scenario

AHEAD = 2.0
"""How far ahead constant velocity is held against the record [s]."""
SURPRISE = 4.0
"""Where the record is farther than this from constant velocity, a frame counts fully [m]."""
COMPANY = 10.0
"""An agent whose center is this near is company [m]."""


def difficulty(scenario: Scenario) -> float:
    """From 0, straight on and alone, to 1: the mean of two shares over the frames of the drive.

    The first is how far the ego gets in `AHEAD` from where constant velocity would have taken it,
    over `SURPRISE` and at most 1; the second, whether another agent is within `COMPANY`. Frames
    count from the start frame on, as far as the ego was recorded.
    """
    tracks, ego, start = scenario.tracks, scenario.ego, scenario.start_frame
    there = tracks.valid[ego, start:]
    xy, velocity = tracks.xyz[ego, start:, :2], tracks.velocity[ego, start:]
    ahead = max(round(AHEAD / scenario.dt), 1)
    both = there[:-ahead] & there[ahead:]
    straight = xy[:-ahead] + velocity[:-ahead] * np.float32(ahead * scenario.dt)
    off = np.hypot(*(xy[ahead:] - straight).T)[both]
    surprise = float(np.minimum(off / SURPRISE, 1.0).mean()) if len(off) else 0.0
    near = np.hypot(*np.moveaxis(tracks.xyz[:, start:, :2] - xy, -1, 0)) < COMPANY
    near &= tracks.valid[:, start:]
    near[ego] = False
    return 0.5 * (surprise + float(near.any(0)[there].mean()))
