"""Options of `alpagym render`."""

from __future__ import annotations

from dataclasses import dataclass, field

from alpagym.config import SimConfig
from alpagym.training_config import DataConfig


@dataclass(frozen=True)
class RenderConfig:
    """`alpagym render`."""

    scenarios: str = ""
    """File or folder of recordings to drive, `procedural` if empty; or with `asl`, of the maps of
    its scenes, by id."""
    checkpoint: str = ""
    """Who drives: a run directory, or a policy file in its `checkpoints/`."""
    policy: str = ""
    """Or `log`, `idm`, `constant_velocity`; `log` if nothing is given."""
    compare: str = ""
    """Another checkpoint, or such a driver, to show beside it on the same scenarios."""
    token: str = ""
    """Instead, a rollout in training, as `flight.jsonl` has them: `scenario@seed.member+lead`."""
    run: str = ""
    """The run directory of the token."""
    asl: str = ""
    """Instead, a log of AlpaSim, or a folder of them."""
    out: str = "rollout.html"
    """File to write: `.html`, or for one scenario `.png`, `.gif`, `.mp4`, `.webm` or `.rrd`."""
    count: int = 0
    """Scenarios to drive at most; 0 for four on a page, and for one elsewhere."""
    at: float = -1.0
    """Moment that a `.png` shows, from the rollout's begin [s]; negative for the first failure, or
    the end."""
    reward_weights: dict[str, float] = field(default_factory=dict)
    """What checkpoints that observe reward weights drive for; the middle of their ranges where not
    given."""
    device: str = ""
    """`cpu`, `cuda`, `cuda:1`, or `auto`; empty for the token's run's."""
    seed: int = 0
    """Of scenarios that are generated."""
    threads: int = 0
    """CPU threads; 0 for as many as the token's run had, or all cores."""
    data: DataConfig = field(default_factory=lambda: DataConfig(egos_per_scenario=1))
    sim: SimConfig = field(default_factory=SimConfig)
