"""Edits of traffic lights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from alpagym.scenarios.edits.tracks import changed, in_range
from alpagym.scenarios.scenario import LightState, Scenario

STATES = {state.name.lower(): state for state in LightState if state != LightState.ABSENT}


@dataclass(frozen=True)
class ShowLights:
    """Let lights show one state from the start on; each light is drawn with a probability."""

    state: str
    """A `LightState` in lower case, e.g. `red`."""
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(
                f"edits: show_lights: expected one of {', '.join(STATES)}, got {self.state}"
            )
        in_range("edits: show_lights: share", self.share, 0.0, 1.0)

    def apply(self, scenario: Scenario, rng: np.random.Generator) -> Scenario:
        lights = scenario.lights
        drawn = rng.random(len(lights.lane)) < self.share
        state = lights.state.copy()
        state[drawn, scenario.start_frame :] = STATES[self.state]
        after = lights.after
        if after is not None:
            after = after.copy()
            after[drawn] = STATES[self.state]
        note = f"edited: {drawn.sum()} of {len(drawn)} lights show {self.state}"
        return changed(scenario, note, lights=replace(lights, state=state, after=after))


@dataclass(frozen=True)
class ShiftLights:
    """Show the states of all lights later (or earlier, if negative), by one time drawn for all."""

    low: float
    """[s]."""
    high: float
    """[s]."""

    def __post_init__(self) -> None:
        in_range("edits: shift_lights: low", self.low, -60.0, 60.0)
        in_range("edits: shift_lights: high", self.high, self.low, 60.0)

    def apply(self, scenario: Scenario, rng: np.random.Generator) -> Scenario:
        lights, frames = scenario.lights, scenario.tracks.num_frames
        shift = round(float(rng.uniform(self.low, self.high)) / scenario.dt)
        after = lights.after
        if after is not None and after.shape[1]:  # what follows the record is known, and repeats
            known = np.concatenate([lights.state, after], axis=1)
            period = after.shape[1]
            source = np.maximum(np.arange(known.shape[1]) - shift, 0)
            source = np.where(source < frames, source, frames + (source - frames) % period)
            state, after = np.split(known[:, source], [frames], axis=1)
        else:
            state = lights.state[:, np.clip(np.arange(frames) - shift, 0, frames - 1)]
        note = f"edited: lights {shift * scenario.dt:g} s later"
        shifted = replace(lights, state=state.copy(), after=after)
        return changed(scenario, note, lights=shifted)
