"""Random numbers as a function of keys: exact integers, then float64."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from alpagym.reference.world import Place, worlds

_BITS = (1 << 64) - 1
ACTION, DESIRED_SPEED = 1, 2
"""Purposes: the last part of a key."""


def mix(z: int) -> int:
    """SplitMix64's finalizer, after its increment."""
    z = (z + 0x9E3779B97F4A7C15) & _BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _BITS
    return z ^ (z >> 31)


def combine(*parts: int) -> int:
    """One key out of many; negative parts count in two's complement."""
    key = parts[0] & _BITS
    for part in parts[1:]:
        key = mix(key ^ mix(part & _BITS))
    return key


def uniform(key: int) -> float:
    """In (0, 1): the middle of one of 2^23 equal bins."""
    return ((mix(key) >> 41) + 0.5) / 2**23


def normal(key: int) -> float:
    """Standard normal (Box and Muller 1958)."""
    angle = 2.0 * np.pi * uniform(combine(key, 1))
    return float(np.sqrt(-2.0 * np.log(uniform(key))) * np.cos(angle))


def noise(scenarios: list[Place], state: SimpleNamespace, columns: int) -> np.ndarray:
    """Normals keyed by seed, scenario, member, agent, step and column, [W, E, columns]."""
    out = np.zeros((*state.ego.shape, columns))
    for world in worlds(scenarios, state):
        w = world.w
        for e, agent in enumerate(state.ego[w]):
            parts = (state.seed[w], world.place.key, state.member[w], agent, state.step[w], ACTION)
            key = combine(*(int(p) for p in parts))
            out[w, e] = [normal(combine(key, d)) for d in range(columns)]
    return out
