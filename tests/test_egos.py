"""Other vehicles of a recording as egos."""

from __future__ import annotations

from alpagym.scenarios.batch import batch
from alpagym.scenarios.egos import drives_of
from alpagym.scenarios.scenario import AgentFlag, AgentType, Scenario
from scenario_factory import WALKER, Actor, line, straight


def busy_road() -> Scenario:
    """An ego, two other drivers (the second drives farther), a slow one, a parked one, a walker."""
    lane = [line((-60.0, y), (200.0, y)) for y in (3.0, -3.0)]
    return straight(
        Actor(lane[0], s=10.0, speed=8.0),
        Actor(lane[1], s=10.0, speed=12.0),
        Actor(lane[0], s=60.0, speed=1.0),
        Actor(lane[1], s=80.0, speed=0.0),
        Actor(lane[0], s=90.0, speed=4.0, type=AgentType.PEDESTRIAN, size=WALKER),
        frames=61,
    )


def test_vehicles_that_drive_farthest_come_first():
    scenario = busy_road()
    drives = drives_of(scenario, 8)
    assert [d.ego for d in drives] == [scenario.ego, 2, 1]
    assert drives[0] is scenario
    assert len({d.id for d in drives}) == len({d.key for d in drives}) == 3
    assert all(d.license == scenario.license for d in drives)
    assert [int(e) for e in batch(drives).ego_order.view(3, -1)[:, 0]] == [d.ego for d in drives]


def test_count_bounds_the_drives():
    assert [d.ego for d in drives_of(busy_road(), 2)] == [0, 2]
    assert len(drives_of(busy_road(), 1)) == 1


def test_faulty_or_short_records_are_no_egos():
    scenario = busy_road()
    scenario.flags[2] |= AgentFlag.OFFROAD_IN_LOG
    scenario.tracks.valid[1, 30:] = False
    assert [d.ego for d in drives_of(scenario, 8)] == [0]
    scenario = busy_road()
    scenario.tracks.valid[2, 20] = False  # a gap
    assert [d.ego for d in drives_of(scenario, 8)] == [0, 1]
