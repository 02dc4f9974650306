"""AlpaGym: closed-loop reinforcement learning for driving policies at simulator speed."""

import torch  # noqa: F401  first, so that one OpenMP runtime serves torch and _core

from alpagym.config import ActionType, AutoReset, RewardConfig, SimConfig, Traffic
from alpagym.env import VectorEnv, make
from alpagym.sim import Controller, RewardTerm, cuda_built
from alpagym.types import Observation, Outcome, Scenarios, State

__version__ = "0.1.0"

__all__ = [
    "ActionType",
    "AutoReset",
    "Controller",
    "Observation",
    "Outcome",
    "RewardConfig",
    "RewardTerm",
    "Scenarios",
    "SimConfig",
    "State",
    "Traffic",
    "VectorEnv",
    "cuda_built",
    "make",
]
