"""Options of what talks to AlpaSim, the schema of `alpagym serve`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DriverConfig:
    """`alpagym serve driver`."""

    checkpoint: str = ""
    """A run directory, or a policy file in its `checkpoints/`, trained with
    `observation=alpasim`."""
    host: str = "127.0.0.1"
    """Address to listen at; this machine alone reaches the default, 0.0.0.0 is reached by all."""
    port: int = 6789
    """0 for a free one."""
    sample: bool = False
    """Draw decisions, from each session's seed, instead of the policy's mean."""
    reward_weights: dict[str, float] = field(default_factory=dict)
    """What a checkpoint that observes reward weights drives for; the middle of their ranges where
    not given."""
    max_sessions: int = 1024
    """Sessions at a time; more are refused."""
    idle_s: float = 600.0
    """Sessions of which nothing is heard for so long are dropped [s]."""
    max_batch: int = 256
    """Drives that are answered together, at most."""
    max_message_mib: int = 64
    """Largest message in either direction [MiB]."""
    shut_down: bool = False
    """Whether clients may end the driver by `shut_down`, as AlpaSim's runtime does when it ends."""
    tls_certificate: str = ""
    """Certificate chain (PEM); empty for no TLS, as AlpaSim has none."""
    tls_key: str = ""
    """Its private key."""
    tls_authority: str = ""
    """Certificates of who signs those of clients, which must then show one."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, or `auto`."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
