"""When what happens in a session, in frames of the scenario's record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from alpagym.interop.alpasim.session_options import SessionConfig
from alpagym.scenarios.scenario import Scenario, ScenarioError


@dataclass(frozen=True)
class Timeline:
    """Frames of a session; its time is 0 at frame 0 of the record."""

    context: int
    """The first frame of which the driver is told the ego's pose."""
    first: int
    """The first in which it is asked for a plan."""
    engaged: int
    """From here on its plans are followed; until here the record drives."""
    last: int
    """Where the session ends."""
    every: int
    """From one plan to the next."""
    frame_us: int
    """Length of a frame [us]."""

    def time_us(self, frame: int) -> int:
        """[us]."""
        return frame * self.frame_us

    @property
    def asked(self) -> range:
        """The frames in which the driver is asked for a plan."""
        return range(self.first, self.last, self.every)


def timeline(
    scenario: Scenario, config: SessionConfig, *, every: int = 1, offset_us: int = 0
) -> Timeline:
    """The session of a scenario.

    The driver takes over at the scenario's start, as any driver of ours does; later where the
    record before it is shorter than `force_gt`, so that it always has that time to watch, and by
    `offset_us` [us], rounded to frames.

    Raises:
        ValueError: a time that steps do not divide, or no time left after `force_gt`.
        ScenarioError: the record is too short.
    """
    frame_us = round(scenario.dt * 1e6)
    forced = _frames("force_gt", config.force_gt, scenario.dt, every)
    present = scenario.tracks.valid[scenario.ego]
    absent = np.flatnonzero(~present[: scenario.start_frame])
    context = int(absent[-1]) + 1 if len(absent) else 0
    offset = round(offset_us / frame_us)
    first = max(context, scenario.start_frame - forced) + offset
    engaged = first + forced
    last = scenario.tracks.num_frames - 1
    if config.max_seconds > 0.0:
        most = _frames("max_seconds", config.max_seconds, scenario.dt, every)
        if most <= forced:
            raise ValueError(
                f"alpasim.max_seconds: expected more than alpasim.force_gt={config.force_gt:g}, in "
                f"which the record drives, got {config.max_seconds:g}"
            )
        last = min(last, first + most)
    if engaged >= last or not present[context : engaged + 1].all():
        have = int(np.argmin(present[context:])) or len(present) - context
        raise ScenarioError(
            f"{scenario.id}: expected the ego in {forced + 2} frames from frame {first} on, "
            f"got frames {context} to {context + have - 1}"
        )
    return Timeline(context, first, engaged, last, every, frame_us)


def taken_over(
    scenarios: Sequence[Scenario], config: SessionConfig, every: int
) -> tuple[list[Scenario], dict[str, str]]:
    """The same scenarios, each beginning where the driver of a session takes over.

    Args:
        scenarios: any.
        config: how sessions go.
        every: steps from plan to plan.

    Returns:
        Those whose record is long enough, and why others are not among them, by id.

    Raises:
        ValueError: as `timeline`.
        ScenarioError: none is long enough.
    """
    kept, left_out = [], {}
    for scenario in scenarios:
        try:
            start = timeline(scenario, config, every=every).engaged
            kept.append(replace(scenario, start_frame=start))
        except ScenarioError as error:
            left_out[scenario.id] = str(error)
    if not kept:
        raise ScenarioError(next(iter(left_out.values())))
    return kept, left_out


def _frames(name: str, seconds: float, dt: float, every: int) -> int:
    """A time in frames, a multiple of those from plan to plan.

    Raises:
        ValueError: it is none.
    """
    frames = round(seconds / dt)
    if abs(frames * dt - seconds) > 1e-6 or frames % every:
        raise ValueError(
            f"alpasim.{name}: expected a multiple of {every * dt:g} s, the time from plan to plan, "
            f"got {seconds:g} s"
        )
    return frames
