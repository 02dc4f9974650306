"""The version that services of ours tell."""

from __future__ import annotations

from typing import Any

import alpagym
from alpagym import sim
from alpagym.interop.alpasim.wire.messages import common

API_VERSION = (0, 54, 0)
"""Of AlpaSim's contract, as of 2026-08."""


def version() -> Any:
    """A `VersionId` of this package."""
    told = common.VersionId(version_id=f"alpagym-{alpagym.__version__}", git_hash=sim.commit())
    api = told.grpc_api_version
    api.major, api.minor, api.patch = API_VERSION
    return told
