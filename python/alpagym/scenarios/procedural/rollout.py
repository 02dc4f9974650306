"""Records from plans: all vehicles are driven by the simulator's own IDM, then an ego is chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from alpagym import sim
from alpagym.config import SimConfig, Traffic
from alpagym.scenarios.batch import batch
from alpagym.scenarios.flags import offroad_frames, overlapping, parked_agents
from alpagym.scenarios.procedural.plan import FRAMES, random_source
from alpagym.scenarios.scenario import AgentFlag, AgentType, LightState, Routes, Scenario, Tracks

START_FRAME = 10
"""Frame at which episodes start: one second of history."""
MIN_TRAVEL = 10.0
"""An ego drives at least this far after the start frame, unless a light holds it [m]."""
MIN_AGENTS = 8
"""A record of fewer agents is not kept."""
MAX_DROPPED = 3
"""A record from which more vehicles must go is not kept."""
FRAME_STRIDE = 6
"""Every how many frames agents are searched for off-road boxes; the ego in every frame."""
HARDEST = 6.0
"""Who brakes harder after the start frame is no ego [m/s^2]."""
LONGEST_EGO = 5.5
"""Trucks are no egos [m]."""


@dataclass
class Drive:
    """What the simulator made of one plan: A agents over T frames."""

    xy: np.ndarray
    """[m], float32 [A, T, 2]."""
    yaw: np.ndarray
    """[rad], float32 [A, T]."""
    speed: np.ndarray
    """[m/s], float32 [A, T]."""
    valid: np.ndarray
    """bool [A, T]."""
    route_s: np.ndarray
    """Arc length reached on the route at the last frame [m], float32 [A]."""


def drive(plan: Scenario) -> Drive:
    """Let the IDM drive every vehicle of a plan from frame 0 to the last frame."""
    config = SimConfig(traffic=Traffic.idm, end_on=(), max_steps=0)
    params, weights = sim.make_params(config), torch.zeros(1, len(sim.RewardTerm))
    scenarios = batch([plan])
    state = sim.make_state(1, plan.tracks.num_agents)
    outcome = sim.make_outcome(state)
    action = torch.zeros(1, 1, sim.action_size(config))
    sim.reset(scenarios, state, torch.ones(1, dtype=torch.bool), params)
    given = torch.from_numpy(_given(plan))
    state.controller.fill_(int(sim.Controller.IDM))
    state.controller[0, given] = int(sim.Controller.LOG)
    now = [getattr(state, name)[0].numpy() for name in ("x", "y", "yaw", "speed", "valid")]
    frames = [[array.copy() for array in now]]
    for _ in range(FRAMES - 1):
        sim.step(scenarios, state, outcome, action, weights, params)
        frames.append([array.copy() for array in now])
    x, y, yaw, speed, valid = (np.stack(arrays, axis=1) for arrays in zip(*frames, strict=True))
    return Drive(np.stack([x, y], axis=2), yaw, speed, valid, state.route_s[0].numpy().copy())


def _given(plan: Scenario) -> np.ndarray:
    """Whose whole record the plan holds: pedestrians, parked cars, hard brakes; bool [A]."""
    return np.asarray(plan.tracks.valid.all(axis=1))


def finish(
    plan: Scenario, record: Drive, seed: int, attempt: int, min_agents: int = MIN_AGENTS
) -> Scenario | None:
    """The scenario that a drive makes of its plan, or None where it is not worth keeping.

    Agents that overlap others and vehicles that leave the road are dropped; the ego is drawn among
    the rest, more often one that turns, brakes, waits or is close to others.
    """
    full = replace(
        plan, tracks=_tracks(plan.tracks, record), start_frame=START_FRAME, flags=plan.flags.copy()
    )
    moves = np.diff(plan.routes.offsets) >= 2
    walks = full.tracks.type == AgentType.PEDESTRIAN
    steps = np.hypot(*np.moveaxis(np.diff(record.xy, axis=1), 2, 0)).sum(axis=1)
    driven = np.where(_given(plan), steps, record.route_s)
    full.routes.log_length[moves] = driven[moves]
    offroad = offroad_frames(full.tracks, full.map, _searched(full.tracks), full.has_z)
    overlap = overlapping(full.tracks, full.has_z)
    bad = overlap.any(axis=1) | (offroad.any(axis=1) & ~walks)
    if (bad & ~walks).sum() > MAX_DROPPED or (~bad).sum() < min_agents:
        return None
    weight = np.where(bad | _given(plan), 0.0, _ego_weights(full, record))
    if weight.max() < 2.5:
        return None
    rng = random_source(plan.kind, seed, attempt).spawn(1)[0]
    full.ego = int(rng.choice(len(weight), p=weight / weight.sum()))
    every_frame = np.zeros_like(offroad)
    every_frame[full.ego] = True
    if offroad_frames(full.tracks, full.map, every_frame, full.has_z).any():
        return None
    full.flags[parked_agents(full.tracks)] |= np.uint16(AgentFlag.PARKED)
    full.flags[offroad.any(axis=1)] |= np.uint16(AgentFlag.OFFROAD_IN_LOG)
    full.flags[offroad[:, START_FRAME]] |= np.uint16(AgentFlag.STARTS_OFFROAD)
    return _without(full, bad).validate()


def _searched(tracks: Tracks) -> np.ndarray:
    """Frames in which boxes are held against road edges, bool [A, T]; one where nothing moves."""
    search = np.zeros_like(tracks.valid)
    search[(tracks.type != AgentType.PEDESTRIAN) & ~parked_agents(tracks), ::FRAME_STRIDE] = True
    search[:, START_FRAME] = True
    return search & tracks.valid


def _tracks(tracks: Tracks, record: Drive) -> Tracks:
    here = record.valid
    xyz = np.zeros_like(tracks.xyz)
    xyz[..., :2] = np.where(here[..., None], record.xy, 0.0)
    toward = np.stack([np.cos(record.yaw), np.sin(record.yaw)], axis=2)
    velocity = np.where(here[..., None], record.speed[..., None] * toward, 0.0).astype(np.float32)
    return replace(
        tracks,
        xyz=xyz,
        yaw=np.where(here, record.yaw, np.float32(0.0)),
        velocity=velocity,
        valid=here,
    )


def _ego_weights(scenario: Scenario, record: Drive) -> np.ndarray:
    """What each agent's drive is worth as the ego's, float64 [A]; 0 where it cannot be."""
    tracks = scenario.tracks
    cars = (tracks.type == AgentType.VEHICLE) & (tracks.size[:, 0] < LONGEST_EGO)
    can = cars & tracks.valid.all(axis=1) & (np.diff(scenario.routes.offsets) >= 2)
    later = slice(START_FRAME, None)
    speed = record.speed[:, later]
    travel = speed[:, 1:].sum(axis=1) * scenario.dt
    turn = np.unwrap(record.yaw[:, later], axis=1)[:, -1] - record.yaw[:, START_FRAME]
    brake = -np.diff(speed, axis=1).min(axis=1) / scenario.dt
    middle = np.hypot(*np.moveaxis(record.xy[:, later], 2, 0)).min(axis=1)
    weight = 0.5 + 1.5 * (middle < 15.0) + 1.5 * (_closest(record, later) < 12.0)
    weight += 12.0 * (turn > 0.6) + 4.0 * (turn < -0.6) + 8.0 * (speed[:, 0] < 0.5)
    weight += 2.0 * (brake > 1.5) + 2.0 * (brake > 3.0) + 2.0 * (np.ptp(speed, axis=1) > 3.0)
    # Who stands through the whole episode teaches little; a few wait at a red light.
    stopping = np.isin(scenario.lights.state[:, later], (LightState.RED, LightState.YELLOW))
    held = np.asarray(stopping.all(axis=1))
    waits = np.array([_first_light(scenario.routes, a) for a in range(tracks.num_agents)])
    at_red = (waits >= 0) & held[np.maximum(waits, 0)] if len(held) else np.zeros(len(waits), bool)
    weight[travel < MIN_TRAVEL] = 0.0
    weight[(travel < MIN_TRAVEL) & at_red & (travel > 2.0)] = 0.3
    return np.where(can & (brake < HARDEST), weight, 0.0)


def _first_light(routes: Routes, agent: int) -> int:
    """The light at the first stop of a route, negative if there is none."""
    first, end = routes.stop_offsets[agent], routes.stop_offsets[agent + 1]
    return int(routes.stop_light[first]) if first < end else -1


def _closest(record: Drive, frames: slice) -> np.ndarray:
    """Least distance of each agent to another one that moves, over some frames [m], [A]."""
    xy, valid = record.xy[:, frames][:, ::5], record.valid[:, frames][:, ::5]
    moving = np.ptp(record.speed, axis=1) + record.speed[:, 0] > 0.0
    distance = np.hypot(*np.moveaxis(xy[:, None] - xy[None], -1, 0))
    distance[~(valid[:, None] & valid[None])] = np.inf
    distance[:, ~moving] = np.inf
    distance[np.arange(len(xy)), np.arange(len(xy))] = np.inf
    return distance.min(axis=(1, 2))


def _without(scenario: Scenario, dropped: np.ndarray) -> Scenario:
    """The scenario without some of its agents (bool [A]), which are not the ego."""
    keep = np.flatnonzero(~dropped)
    t, r = scenario.tracks, scenario.routes

    def pick(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        spans = [np.arange(offsets[a], offsets[a + 1]) for a in keep]
        return np.concatenate(spans), np.cumsum([0, *map(len, spans)]).astype(np.int32)

    points, offsets = pick(r.offsets)
    stops, stop_offsets = pick(r.stop_offsets)
    arrays = {
        f: getattr(t, f)[keep] for f in ("xyz", "yaw", "velocity", "valid", "size", "type", "id")
    }
    routes = Routes(
        points=r.points[points],
        offsets=offsets,
        speed_limit=r.speed_limit[points],
        log_length=r.log_length[keep],
        stop_offsets=stop_offsets,
        stop_s=r.stop_s[stops],
        stop_light=r.stop_light[stops],
    )
    ego = int(np.searchsorted(keep, scenario.ego))
    return replace(
        scenario, tracks=Tracks(**arrays), routes=routes, flags=scenario.flags[keep], ego=ego
    )
