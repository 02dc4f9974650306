"""What the binding refuses, and in which words."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import scenario_factory as factory
from alpagym import sim
from alpagym.config import SimConfig
from simulating import Rig, same_bits

R = len(sim.RewardTerm)


def make_rig(**options) -> Rig:
    return Rig([factory.straight(factory.Actor(factory.STRAIGHT, 50.0, 8.0))], 3, **options)


def refused(kind: type[Exception], sentence: str):
    return pytest.raises(kind, match=f"^{re.escape(sentence)}$")


BAD_FIELDS = [
    (
        "yaw",
        lambda: torch.zeros(4, 2),
        "expected float32[W, A] with W=3 (from State.x), got float32[4, 2] on cpu",
    ),
    (
        "yaw",
        lambda: torch.zeros(3, 5),
        "expected float32[W, A] with A=2 (from State.x), got float32[3, 5] on cpu",
    ),
    (
        "speed",
        lambda: torch.zeros(3, 2).double(),
        "expected contiguous float32[W, A], got float64[3, 2] on cpu",
    ),
    (
        "speed",
        lambda: torch.zeros(3, 2).bfloat16(),
        "expected contiguous float32[W, A], got bfloat16[3, 2] on cpu",
    ),
    (
        "speed",
        lambda: torch.zeros(3, 2).cfloat(),
        "expected contiguous float32[W, A], got complex64[3, 2] on cpu",
    ),
    ("yaw", lambda: torch.zeros(6), "expected contiguous float32[W, A], got float32[6] on cpu"),
    (
        "y",
        lambda: torch.zeros(2, 3).t(),
        "expected contiguous float32[W, A], got float32[3, 2] on cpu, not contiguous",
    ),
    (
        "y",
        lambda: torch.zeros(3, 4)[:, ::2],
        "expected contiguous float32[W, A], got float32[3, 2] on cpu, not contiguous",
    ),
    (
        "y",
        lambda: torch.zeros(1, 2).expand(3, 2),
        "expected contiguous float32[W, A], got float32[3, 2] on cpu, not contiguous",
    ),
    ("step", lambda: torch.zeros(3).long(), "expected contiguous int32[W], got int64[3] on cpu"),
    (
        "ego",
        lambda: torch.zeros(3, 4).int(),
        "expected bool[W, E] with E=4 (from State.ego), got bool[3, 1] on cpu",
    ),
]


@pytest.mark.parametrize(
    ("name", "make", "sentence"), BAD_FIELDS, ids=[s for _, _, s in BAD_FIELDS]
)
def test_a_wrong_tensor_is_named_with_expectation_and_reality(name, make, sentence) -> None:
    rig = make_rig()
    field = "terminated" if name == "ego" else name  # the first field that disagrees is told
    with refused(ValueError, f"State.{field}: {sentence}"):
        sim.reset(rig.scenarios, replace(rig.state, **{name: make()}), rig.all, rig.params)


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: [True], "list"),
        (lambda: None, "NoneType"),
        (lambda: torch.zeros(3, 2).numpy(), "numpy.ndarray"),
        (lambda: FakeTensorMode().from_tensor(torch.zeros(3, 2)), "FakeTensor"),
        (lambda: torch.zeros(3, 2).as_subclass(Subclass), "Subclass"),
    ],
)
def test_only_plain_tensors_are_taken(make, kind) -> None:
    rig = make_rig()
    with refused(TypeError, f"State.yaw: expected torch.Tensor, got {kind}"):
        sim.reset(rig.scenarios, replace(rig.state, yaw=make()), rig.all, rig.params)


@pytest.mark.parametrize(
    "make", [lambda: torch.zeros(3, 2).to_sparse(), lambda: torch.zeros(3, 2, device="meta")]
)
def test_tensors_without_memory_get_one_sentence(make) -> None:
    rig = make_rig()
    words = (
        r"^State\.yaw: expected contiguous float32\[W, A\], "
        r"got a tensor without plain memory \([^\n]*\)$"
    )
    with pytest.raises(ValueError, match=words) as raised:
        sim.reset(rig.scenarios, replace(rig.state, yaw=make()), rig.all, rig.params)
    assert "\n" not in str(raised.value)


def test_an_object_without_the_fields_is_refused() -> None:
    rig = make_rig()
    with refused(TypeError, "expected State with a tensor x, got object"):
        sim.reset(rig.scenarios, object(), rig.all, rig.params)


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        (
            {"action": torch.zeros(3, 2)},
            ValueError,
            "action: expected contiguous float32[W=3, E=1, D=2], got float32[3, 2] on cpu",
        ),
        (
            {"action": torch.zeros(3, 1, 3)},
            ValueError,
            "action: expected contiguous float32[W=3, E=1, D=2], got float32[3, 1, 3] on cpu",
        ),
        ({"action": None}, TypeError, "action: expected torch.Tensor, got NoneType"),
        (
            {"weights": torch.zeros(R)},
            ValueError,
            f"weights: expected contiguous float32[1 or W, R={R}], got float32[{R}] on cpu",
        ),
        (
            {"weights": torch.zeros(2, R)},
            ValueError,
            f"weights: expected 1 or W=3 rows, got float32[2, {R}] on cpu",
        ),
        (
            {"weights": torch.zeros(1, R - 1)},
            ValueError,
            f"weights: expected contiguous float32[1 or W, R={R}], got float32[1, {R - 1}] on cpu",
        ),
        (
            {"outcome": sim.make_outcome(sim.make_state(4, 2))},
            ValueError,
            "Outcome: expected W=3 (from State), got 4",
        ),
        (
            {"outcome": sim.make_outcome(sim.make_state(3, 2, num_egos=2))},
            ValueError,
            "Outcome: expected E=1 (from State), got 2",
        ),
        (
            {
                "outcome": replace(
                    sim.make_outcome(sim.make_state(3, 2)), terms=torch.zeros(3, 1, 5)
                )
            },
            ValueError,
            f"Outcome.terms: expected R={R} reward terms, got 5",
        ),
    ],
)
def test_step_checks_its_arguments(change, kind, sentence) -> None:
    rig = make_rig()
    before = rig.state.clone()
    given = {"outcome": rig.outcome, "action": rig.zero_action(), "weights": rig.weights} | change
    with refused(kind, sentence):
        sim.step(
            rig.scenarios,
            rig.state,
            given["outcome"],
            given["action"],
            given["weights"],
            rig.params,
        )
    assert same_bits(rig.state, before), "a refused call must change nothing"


@pytest.mark.parametrize(
    ("mask", "got"),
    [(torch.ones(2, dtype=torch.bool), "bool[2] on cpu"), (torch.ones(3), "float32[3] on cpu")],
)
def test_masks_are_checked(mask, got) -> None:
    rig = make_rig()
    sentence = f"mask: expected contiguous bool[W=3], got {got}"
    with refused(ValueError, sentence):
        sim.reset(rig.scenarios, rig.state, mask, rig.params)
    with refused(ValueError, sentence):
        sim.observe(rig.scenarios, rig.state, rig.observation, rig.params, mask=mask)


def test_reset_needs_a_mask() -> None:
    rig = make_rig()
    with refused(TypeError, "mask: expected torch.Tensor, got NoneType"):
        sim.reset(rig.scenarios, rig.state, None, rig.params)


def test_observe_checks_sizes() -> None:
    rig = make_rig()
    other = sim.make_observation(sim.make_state(4, 2), rig.config)
    with refused(ValueError, "Observation: expected W=3 (from State), got 4"):
        sim.observe(rig.scenarios, rig.state, other, rig.params)
    wide = replace(
        rig.observation,
        agents=torch.zeros(3, 1, 300, 8),
        agents_mask=torch.zeros(3, 1, 300, dtype=torch.bool),
    )
    with refused(ValueError, "Observation.agents: expected at most 256 slots, got 300"):
        sim.observe(rig.scenarios, rig.state, wide, rig.params)
    more = replace(rig.observation, ego=torch.zeros(3, 1, 11))
    with refused(ValueError, "Observation.ego: expected at most 10 columns, got 11"):
        sim.observe(rig.scenarios, rig.state, more, rig.params)
    slots = rig.config.num_agents
    counted = replace(rig.observation, agents=torch.zeros(3, 1, slots, 8, dtype=torch.int32))
    with refused(ValueError, "Observation.agents: expected rows of features, got int32"):
        sim.observe(rig.scenarios, rig.state, counted, rig.params)
    with refused(ValueError, "sim.road_columns: expected 0 to 7, got 8"):
        sim.make_observation(rig.state, SimConfig(road_columns=8))
    with refused(ValueError, "sim.num_road_points: expected 0 to 256, got 257"):
        sim.make_observation(rig.state, SimConfig(num_road_points=257))


def test_fork_is_refused_onto_itself_and_between_sizes() -> None:
    rig = make_rig()
    index = torch.zeros(3, dtype=torch.int32)
    with refused(ValueError, "fork: expected two states, got one as source and target"):
        sim.fork(rig.state, rig.state, index)
    with refused(ValueError, "fork target: expected A=2 (from State), got 3"):
        sim.fork(rig.state, sim.make_state(3, 3), index)
    with refused(ValueError, "index: expected contiguous int32[W=3], got int64[3] on cpu"):
        sim.fork(rig.state, rig.state.clone(), index.long())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"action": 9}, "Params.action: expected 0..5, got 9"),
        ({"action": -1}, "Params.action: expected 0..5, got -1"),
        ({"traffic": 5}, "Params.traffic: expected 1..4, got 5"),
        ({"traffic": 0}, "Params.traffic: expected 1..4, got 0"),
        ({"dt": 0.0}, "Params.dt: expected a positive, finite step length, got 0.0"),
        ({"dt": -0.5}, "Params.dt: expected a positive, finite step length, got -0.5"),
        ({"dt": torch.inf}, "Params.dt: expected a positive, finite step length, got inf"),
        ({"dt": torch.nan}, "Params.dt: expected a positive, finite step length, got nan"),
        ({"max_steps": -1}, "Params.max_steps: expected at least 0, got -1"),
        ({"plan_steps": 0}, "Params.plan_steps: expected 1..1024, got 0"),
        ({"replan_every": 2000}, "Params.replan_every: expected 1..1024, got 2000"),
    ],
)
def test_params_out_of_range_are_refused(monkeypatch, change, sentence) -> None:
    given = {}
    monkeypatch.setattr(sim, "Params", lambda **values: given.update(values))
    sim.make_params(SimConfig())
    sim._core.Params(**given)
    with refused(ValueError, sentence):
        sim._core.Params(**(given | change))


def test_reset_refuses_scenarios_with_more_agents_than_the_state_holds() -> None:
    sizes = (3, 4, 2, 9)
    rig = Rig([factory.random_scenario(s, num_agents=n) for s, n in enumerate(sizes)])
    small = sim.make_state(4, 4)
    small.scenario.copy_(torch.arange(4))
    before = small.clone()
    with refused(ValueError, "State: expected A >= 9 (agents of scenario 3), got A=4"):
        sim.reset(rig.scenarios, small, rig.all, rig.params)
    assert same_bits(small, before), "a refused call must change nothing"
    rig.all[3] = False  # the other worlds fit
    sim.reset(rig.scenarios, small, rig.all, rig.params)
    assert small.valid[:3].any(1).all()


def test_inverse_checks_its_arguments() -> None:
    rig = make_rig()
    action, after = rig.zero_action(), rig.state.clone()
    with refused(ValueError, "state after: expected W=3 (from State), got 4"):
        sim.inverse(rig.scenarios, rig.state, sim.make_state(4, 2), action, rig.params)
    with refused(ValueError, "state after: expected A=2 (from State), got 3"):
        sim.inverse(rig.scenarios, rig.state, sim.make_state(3, 3), action, rig.params)
    with refused(
        ValueError,
        "action: expected contiguous float32[W=3, E=1, D=2], got float32[3, 1, 3] on cpu",
    ):
        sim.inverse(rig.scenarios, rig.state, after, torch.zeros(3, 1, 3), rig.params)


def test_noise_needs_three_dimensions() -> None:
    rig = make_rig()
    with refused(
        ValueError, "noise: expected contiguous float32[W=3, E=1, D], got float32[3, 1] on cpu"
    ):
        sim.noise(rig.scenarios, rig.state, torch.zeros(3, 1))


def test_no_scenarios_for_some_worlds_is_refused() -> None:
    rig = make_rig()
    per_scenario = {
        n for n, _, dims in sim._core.fields["Scenarios"] if dims == ("S",) or dims[:1] == ("S",)
    }
    shorter = {n: getattr(rig.scenarios, n)[:0] for n in per_scenario}
    shorter |= {
        n: getattr(rig.scenarios, n)[:1] for n in ("agent_start", "light_start", "lane_start")
    }
    with refused(ValueError, "Scenarios: expected at least one scenario for 3 worlds, got none"):
        sim.reset(replace(rig.scenarios, **shorter), rig.state, rig.all, rig.params)


@pytest.mark.cuda
def test_a_tensor_on_another_device_is_named() -> None:
    if not torch.cuda.is_available() or not sim.cuda_built():
        pytest.skip("no NVIDIA GPU, or alpagym built without CUDA")
    rig = make_rig(device="cuda")
    with pytest.raises(
        ValueError, match=r"^State\.yaw: expected the device of State\.x, got float32"
    ):
        sim.reset(rig.scenarios, replace(rig.state, yaw=rig.state.yaw.cpu()), rig.all, rig.params)
    with pytest.raises(
        ValueError, match=r"^Scenarios: expected tensors on cuda:0 as in State, got cpu$"
    ):
        sim.reset(rig.scenarios.to("cpu"), rig.state, rig.all, rig.params)
    with pytest.raises(ValueError, match=r"^action: expected a tensor on cuda:0, got float32"):
        rig.step(rig.zero_action().cpu())
