"""AlpaGym: closed-loop reinforcement learning for driving policies at simulator speed."""

import torch  # noqa: F401  first, so that one OpenMP runtime serves torch and _core

from alpagym.config import ActionType, AutoReset, RewardConfig, SimConfig, Traffic
from alpagym.env import VectorEnv, make
from alpagym.sim import Controller, RewardTerm, cuda_built
from alpagym.types import (
    AgentFeature,
    EgoFeature,
    LightFeature,
    Observation,
    Outcome,
    RoadFeature,
    RouteFeature,
    Scenarios,
    State,
)

__version__ = "0.1.0"

__all__ = [
    "ActionType",
    "AgentFeature",
    "AutoReset",
    "Controller",
    "EgoFeature",
    "LightFeature",
    "Observation",
    "Outcome",
    "RewardConfig",
    "RewardTerm",
    "RoadFeature",
    "RouteFeature",
    "Scenarios",
    "SimConfig",
    "State",
    "Traffic",
    "VectorEnv",
    "cuda_built",
    "make",
]
