"""The observation of AlpaSim's drivers: in the simulator, in policies, on the command line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from alpagym import sim
from alpagym.cli import compose, main, to_config
from alpagym.config import ALPASIM_SIZES, ObservationKind, SimConfig
from alpagym.interop.alpasim.route import (
    SPACING,
    RouteGenerator,
    prepare_for_policy,
    scenario_route,
)
from alpagym.interop.alpasim.told import observation_of, route_told, waypoints_of
from alpagym.policies.late_fusion import LateFusion
from alpagym.policies.registry import make_policy
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.procedural import KINDS, generate
from alpagym.training_config import PolicyConfig
from alpagym.types import EgoFeature, RouteFeature
from simulating import Rig

TOLD = {"observation": ObservationKind.alpasim, **ALPASIM_SIZES}


def driven(steps: int = 6, scenarios=None, **options) -> Rig:
    found = scenarios or [generate(kind, 3) for kind in KINDS]
    rig = Rig(found, 2 * len(found), **TOLD, **options)
    for t in range(steps):
        rig.step(rig.random_action(t))
    rig.observe()
    return rig


def test_nothing_else_is_seen() -> None:
    seen = driven().observation
    for name in ("agents", "road", "lights"):
        assert getattr(seen, name).shape[2] == 0
    assert not seen.ego[..., [EgoFeature.LENGTH, EgoFeature.WIDTH]].any()
    assert not seen.route[..., RouteFeature.SPEED_LIMIT].any()
    assert seen.ego.shape[-1] == EgoFeature.HEADING_ERROR + 1
    assert seen.ego[..., EgoFeature.SPEED].abs().max() > 1.0


def check_rebuilt(rig: Rig) -> None:
    """To what float32 leaves of differences of waypoints 4 m apart."""
    seen = rig.observation.map(lambda t: t.squeeze(1))
    waypoints = torch.as_tensor(waypoints_of(seen)[..., :2])
    rebuilt = observation_of(seen.ego[:, :3], waypoints, rig.config)
    for name in ("ego", "route"):
        apart = (getattr(rebuilt, name) - getattr(seen, name)).abs().max()
        assert apart < 2e-6, (name, apart)
    assert torch.equal(rebuilt.route_mask, seen.route_mask)
    assert seen.route_mask.any()


@pytest.mark.parametrize("steps", [0, 1, 6, 20])
def test_rebuilt_from_motion_and_waypoints_it_is_the_same(steps) -> None:
    check_rebuilt(driven(steps))


def test_rebuilt_on_recorded_roads(shared_data) -> None:
    files = sorted((shared_data / "womd_gpudrive_json" / "current").glob("*.json"))[:3]
    check_rebuilt(driven(10, [s for file in files for s in load_scenarios(file)[0]]))


def test_the_route_is_what_alpasims_generator_makes_of_the_same_path() -> None:
    rig = driven(10)
    seen = rig.observation.map(lambda t: t.squeeze(1))
    rows = waypoints_of(seen)
    scenarios, state = rig.scenarios, rig.state
    compared = 0
    for w in range(len(rows)):
        ego, s = int(state.ego[w, 0]), int(state.scenario[w])
        row = int(scenarios.agent_start[s]) + ego
        first, last = scenarios.route_start[row : row + 2].tolist()
        path = scenarios.route[first:last, :3].numpy().copy()
        path[:, 2] = 0.0
        if len(path) < 2:
            continue
        yaw = float(state.yaw[w, ego])
        back = float(scenarios.agent[row, 3])
        rig_x = float(state.x[w, ego]) - back * np.cos(yaw)
        rig_y = float(state.y[w, ego]) - back * np.sin(yaw)
        made = prepare_for_policy(RouteGenerator(path).generate(np.array([rig_x, rig_y, 0.0]), yaw))
        both = np.isfinite(rows[w]).all(1) & np.isfinite(made).all(1)
        assert abs(np.isfinite(rows[w]).all(1).sum() - np.isfinite(made).all(1).sum()) <= 1
        # Points every 2 m of arc length are nearer together than that where a path bends.
        assert np.abs(rows[w][both] - made[both]).max(initial=0.0) < 0.3
        compared += int(both.sum())
    assert compared > 100


# Routes as others send them


def line(spacing: float, count: int, y: float = 0.0) -> np.ndarray:
    points = np.zeros((count, 3), np.float32)
    points[:, 0] = spacing * np.arange(count)
    points[:, 1] = y
    return points


def test_alpasims_own_routes_stay_as_they_are() -> None:
    scenario = generate("roundabout", 5)
    made = prepare_for_policy(scenario_route(scenario).generate(scenario.tracks.xyz[0, 0], 0.0))
    for route in (made, line(SPACING, 20), line(SPACING, 7), line(SPACING, 1), line(1.0, 0)):
        told = route_told(route)
        assert told.shape == (20, 2)
        count = len(route) - np.isnan(route).any(1).sum()
        assert np.array_equal(told[:count], route[:count, :2])
        assert np.isnan(told[count:]).all()


def test_other_spacings_are_sampled_anew() -> None:
    told = route_told(line(2.0, 50, y=1.0))
    assert told[:, 0] == pytest.approx(SPACING * np.arange(20), abs=1e-4)
    assert (told[:, 1] == 1.0).all()
    short = route_told(line(10.0, 3))
    assert np.isfinite(short).all(1).sum() == 5
    assert route_told(line(SPACING, 30)).shape == (20, 2)
    assert np.isfinite(route_told(np.zeros((5, 3), np.float32))).all(1).sum() <= 1


def test_heights_and_what_follows_a_gap_do_not_count() -> None:
    route = line(SPACING, 20)
    route[:, 2] = 50.0 * np.arange(20)
    route[12, 1] = np.nan
    assert np.isfinite(route_told(route)).all(1).tolist() == [True] * 12 + [False] * 8
    route[5, 0] = np.inf
    with pytest.raises(ValueError, match="route waypoint 5: expected finite numbers or NaN"):
        route_told(route)


# Policies and options


@pytest.mark.parametrize("kind", ["late_fusion", "trajectory"])
def test_policies_read_it(kind) -> None:
    rig = driven()
    seen = rig.observation.map(lambda t: t.squeeze(1))
    config = PolicyConfig(kind=kind, history=4)
    torch.manual_seed(0)
    policy = make_policy(config, rig.config)
    memory = policy.remember(seen)
    assert memory.shape[-1] == 3 * (7 + 1)
    names = "".join(policy.state_dict())
    assert not any(part in names for part in ("agents", "road", "lights"))
    again = replace(seen, ego=torch.cat([seen.ego, memory], -1))
    assert policy.mean(again).isfinite().all()
    assert not torch.equal(policy.mean(again), policy.mean(seen))


def test_the_preset_and_what_does_not_go_with_it() -> None:
    config = to_config(compose("train", ["observation=alpasim", "policy=trajectory"]))
    assert config.sim.observation is ObservationKind.alpasim
    assert config.policy.history == 4
    assert config.policy.kind == "trajectory"
    for name, size in ALPASIM_SIZES.items():
        assert getattr(config.sim, name) == size
    assert to_config(compose("train", [])).sim.observation is ObservationKind.full
    assert (
        to_config(compose("train", ["observation=alpasim", "policy.history=1"])).policy.history == 1
    )
    with pytest.raises(ValueError, match=r"sim.num_agents: expected 0 with sim.observation=alp"):
        sim.make_params(SimConfig(observation=ObservationKind.alpasim))


def test_wrong_choices_get_a_sentence(capsys) -> None:
    assert main(["train", "observation=lidar"]) == 2
    assert "observation: expected one of full, alpasim, got lidar" in capsys.readouterr().err
    assert main(["eval", "observation=alpasim"]) == 2
    assert "observation: no such option" in capsys.readouterr().err
    sizes = ["observation=alpasim", "sim.num_agents=3", "data.train=1", "data.held_out=1"]
    assert main(["train", *sizes]) == 2
    assert "sim.num_agents: expected 0 with sim.observation=alpasim" in capsys.readouterr().err


def test_networks_of_the_full_observation_are_as_they_were() -> None:
    shapes = {
        n: list(t.shape) for n, t in LateFusion(PolicyConfig(), SimConfig()).state_dict().items()
    }
    assert shapes["trunk.0.weight"] == [128, 10 + 16 * 5 + 3 * 32]
    assert "encoders.lights.0.weight" in shapes
