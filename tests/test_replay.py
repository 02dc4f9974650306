"""Replays: what the player is given is what happened, ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alpagym.render.outputs import write_html
from alpagym.render.replay import NEAR, failed, incidents, replay_json
from alpagym.scenarios.scenario import MapType
from replaying import DT, START, Page, make_group, make_rollout, make_scenario


def running_sum(values: list[int]) -> np.ndarray:
    return np.cumsum(np.array(values, np.int64))


def test_replay_returns_the_rollout_to_a_centimeter():
    scenario = make_scenario()
    rollout = make_rollout(scenario, fails=True, drift=3.0)
    rollout.yaw[10:, 0] = -np.pi + 0.01
    rollout.yaw[:10, 0] = np.pi - 0.01
    rollout.valid[3:6, 2] = False
    rollout.x[3:6, 2] = 0.0
    data = replay_json([rollout])
    track = data["rollouts"][0]["tracks"][0]
    assert np.allclose(running_sum(track["x"]) / 100, rollout.x[:, 0], atol=0.0051)
    assert np.allclose(running_sum(track["y"]) / 100, rollout.y[:, 0], atol=0.0051)
    distance = np.hypot(np.diff(rollout.x[:, 0]), np.diff(rollout.y[:, 0]))
    assert np.allclose(data["rollouts"][0]["speed"], distance / DT, rtol=1e-3)
    # Across the seam of yaw the player must turn by 0.02, not by a full circle.
    assert np.abs(np.array(track["yaw"][1:])).max() <= 20
    assert data["rollouts"][0]["tracks"][2]["valid"] == [0, 3, 6, 21]
    assert np.allclose(
        running_sum(data["log"]["x"]) / 100, scenario.tracks.xyz[0, START:, 0], atol=0.0051
    )
    assert data["lights"][0]["state"] == "".join(str(s) for s in scenario.lights.state[0, START:])


def test_replay_map_is_simplified_within_tolerance_and_cropped():
    scenario = make_scenario()
    scenario.map.points[-1] = [5000.0, 0.0, 0.0]
    data = replay_json([make_rollout(scenario, fails=False)])
    assert MapType.STOP_SIGN not in {e["type"] for e in data["map"]}
    lane = np.cumsum(np.array(data["map"][0]["xy"]).reshape(-1, 2), axis=0) / 100
    original = scenario.map.polyline(0)[:, :2]
    assert len(lane) < len(original) / 2
    ego = scenario.tracks.xyz[0, START:, None, :2]
    near = np.hypot(*np.moveaxis(original - ego, -1, 0)).min(axis=0) < NEAR - 2.0
    assert near.any()
    assert not near.all()
    chords = lane[1:] - lane[:-1]
    for point in original[near]:
        along = np.clip(((point - lane[:-1]) * chords).sum(1) / (chords**2).sum(1), 0, 1)
        assert np.hypot(*(point - lane[:-1] - along[:, None] * chords).T).min() < 0.07


def test_far_agents_are_left_out():
    scenario = make_scenario()
    rollout = make_rollout(scenario, fails=False)
    rollout.x[:, 1] += 10 * NEAR
    data = replay_json([rollout])
    assert [a["id"] for a in data["agents"]] == [str(2**60 + i) for i in (0, 2, 3, 4, 5)]


def test_states_after_the_end_are_ignored():
    rollout = make_rollout(make_scenario(), fails=True)
    rollout.done_step = 11
    data = replay_json([rollout, make_rollout(rollout.scenario, fails=False, label="GRPO")])
    assert [r["steps"] for r in data["rollouts"]] == [12, 20]
    assert len(data["rollouts"][0]["tracks"][0]["x"]) == 13
    assert [i.name for i in incidents(rollout)] == ["front collision"]


def test_rear_hit_is_not_a_failure():
    rollout = make_rollout(make_scenario(), fails=False)
    rollout.collision[4:6] = 2
    rollout.metrics = {}
    assert [(i.step, i.name, i.at_fault) for i in incidents(rollout)] == [
        (4, "rear collision", False)
    ]
    assert not failed(rollout)
    rollout.collision[6] = 3
    assert failed(rollout)


def test_misfit_rollouts_are_refused():
    first, other = (
        make_rollout(make_scenario("a"), fails=False),
        make_rollout(make_scenario("b"), fails=False),
    )
    with pytest.raises(ValueError, match=r"expected rollouts of one scenario.* got a .* and b "):
        replay_json([first, other])
    other.yaw = other.yaw[:-1]
    with pytest.raises(ValueError, match=r"yaw: expected \[21, 6\], got \[20, 6\]"):
        replay_json([other])
    with pytest.raises(ValueError, match="at least one rollout"):
        replay_json([])


def test_write_html_plays_rollouts_of_one_scenario_together(tmp_path):
    rollouts = [*make_group("a").rollouts, *make_group("b").rollouts]
    page = Page(write_html(rollouts, tmp_path / "replay.html").read_text(encoding="utf-8"))
    assert [(r["id"], len(r["rollouts"])) for r in page.replays()] == [("a", 2), ("b", 2)]
    assert [a["data-player"] for _, a in page.elements if "data-player" in a] == ["0", "1"]


def test_where_drives_part():
    """Drifts of 4 (t / 20)^2 and 0.5 (t / 20)^2 m differ by more than 5 cm from t = 2.4 on."""
    first, other = make_group().rollouts
    assert replay_json([first, other])["parts"] == 3
    assert replay_json([first, first])["parts"] is None
    assert replay_json([first])["parts"] is None
    short = replace(first, done_step=11)
    assert replay_json([first, short])["parts"] == 12
