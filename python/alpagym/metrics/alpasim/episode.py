"""What AlpaSim's scorers read of one rollout, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from alpagym.metrics.alpasim.lanes import LineMap
from alpagym.metrics.alpasim.rounded import Outline, outline

SHRINK = 0.02
"""Fraction of length and width that AlpaSim takes off all boxes (`vehicle_shrink_factor`)."""

ROUNDNESS = 0.5
"""Corner radius over half the shorter side (`vehicle_corner_roundness`)."""


@dataclass(frozen=True)
class Plan:
    """Box centers over time."""

    times_us: np.ndarray
    """Strictly rising, int64 [n]."""
    pose: np.ndarray
    """x, y [m] and yaw [rad], [n, 3]."""


@dataclass(frozen=True)
class Reply:
    """What a driver answered.

    AlpaSim drops replies without a plan: leave them out. A plan of a single pose, on which its
    whole evaluation fails, counts like any other here.
    """

    now_us: int
    """When it was asked."""
    query_us: int
    """For when it was asked."""
    plan: Plan
    samples: Sequence[Plan] = ()
    """Further trajectories it considered."""
    safe: bool | None = None
    """What its safety monitor said."""


@dataclass(frozen=True)
class Episode:
    """One rollout: T steps, N actors besides the ego. Poses are box centers, in one frame."""

    times_us: np.ndarray
    """Strictly rising, int64 [T]."""
    ego_pose: np.ndarray
    """x, y [m] and yaw [rad], [T, 3]."""
    ego_z: np.ndarray
    """Height of the box center [m], [T]; for map look-ups alone."""
    ego_size: np.ndarray
    """Length and width [m], [2]."""
    actor_pose: np.ndarray
    """[T, N, 3]."""
    actor_there: np.ndarray
    """Whether an actor counts, from its first to its last sighting (`fill_gaps`), bool [T, N]."""
    actor_size: np.ndarray
    """[N, 2]."""
    log: Plan
    """The whole recorded drive of the ego."""
    engaged_us: int
    """When the driver took over: render start plus the time driven by the record."""
    lanes: LineMap | None = None
    replies: Sequence[Reply] | None = None
    """In order of time; None where no driver was recorded."""
    black: np.ndarray | None = None
    """Whether the first front image that ends at or after each step is black, bool [T]."""
    shrink: float = SHRINK
    roundness: float = ROUNDNESS

    def __post_init__(self) -> None:
        steps, actors = len(self.times_us), len(self.actor_size)
        for name, value, shape in (
            ("times_us", self.times_us, (steps,)),
            ("ego_pose", self.ego_pose, (steps, 3)),
            ("ego_z", self.ego_z, (steps,)),
            ("ego_size", self.ego_size, (2,)),
            ("actor_pose", self.actor_pose, (steps, actors, 3)),
            ("actor_there", self.actor_there, (steps, actors)),
            ("actor_size", self.actor_size, (actors, 2)),
            ("log.pose", self.log.pose, (len(self.log.times_us), 3)),
        ):
            if value.shape != shape:
                raise ValueError(
                    f"Episode.{name}: expected shape {list(shape)}, got {list(value.shape)}"
                )
            if not np.isfinite(value).all():
                raise ValueError(f"Episode.{name}: expected finite numbers, got NaN or infinity")
        if steps == 0 or len(self.log.times_us) == 0:
            raise ValueError("Episode: expected at least one step and one recorded pose, got none")
        for name, times in (("times_us", self.times_us), ("log.times_us", self.log.times_us)):
            if (np.diff(times) <= 0).any():
                raise ValueError(f"Episode.{name}: expected rising times, got a step back")
        if not 0 <= self.shrink < 1 or not 0 <= self.roundness <= 1:
            raise ValueError(
                f"Episode: expected shrink in [0, 1) and roundness in [0, 1], "
                f"got {self.shrink} and {self.roundness}"
            )
        for k, reply in enumerate(self.replies or ()):
            for plan in (reply.plan, *reply.samples):
                if len(plan.times_us) == 0 or plan.pose.shape != (len(plan.times_us), 3):
                    raise ValueError(
                        f"Episode.replies[{k}]: expected poses of shape [n, 3] for n >= 1 times, "
                        f"got {list(plan.pose.shape)} for {len(plan.times_us)}"
                    )
                if not np.isfinite(plan.pose).all() or (np.diff(plan.times_us) <= 0).any():
                    raise ValueError(
                        f"Episode.replies[{k}]: expected finite poses at rising times, got others"
                    )

    @cached_property
    def ego(self) -> Outline:
        """Outlines of the ego, [T]."""
        return outline(self.ego_pose, self.ego_size, self.shrink, self.roundness)

    @cached_property
    def actors(self) -> Outline:
        """Outlines of the actors, [T, N]; meaningless where they are not there."""
        return outline(self.actor_pose, self.actor_size, self.shrink, self.roundness)
