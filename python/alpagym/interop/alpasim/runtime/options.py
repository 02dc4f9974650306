"""Options of `alpagym serve runtime`."""

from __future__ import annotations

from dataclasses import dataclass, field

from alpagym.config import SimConfig
from alpagym.interop.alpasim.session_options import SessionConfig
from alpagym.training_config import DataConfig


@dataclass(frozen=True)
class RuntimeConfig:
    """`alpagym serve runtime`."""

    scenarios: str = "procedural"
    """`procedural`, or a file or folder of recordings; clients choose by id."""
    host: str = "127.0.0.1"
    """Address to listen at; this machine alone reaches the default, 0.0.0.0 is reached by all."""
    port: int = 50051
    """0 for a free one."""
    shut_down: bool = True
    """Whether clients may end the runtime by `shut_down`."""
    max_message_mib: int = 64
    """Largest message in either direction [MiB]."""
    tls_certificate: str = ""
    """Certificate chain (PEM); empty for no TLS, as AlpaSim has none."""
    tls_key: str = ""
    """Its private key."""
    tls_authority: str = ""
    """Certificates of who signs those of clients, which must then show one."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, or `auto`."""
    seed: int = 0
    """Of what is generated; rollouts have seeds of their own."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    data: DataConfig = field(default_factory=lambda: DataConfig(egos_per_scenario=1))
    sim: SimConfig = field(default_factory=SimConfig)
    alpasim: SessionConfig = field(
        default_factory=lambda: SessionConfig(
            max_seconds=20.0, send_ground_truth=True, skip_driver_during_force_gt=True
        )
    )
