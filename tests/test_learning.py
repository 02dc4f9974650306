"""Policies get better: by imitation open loop, by GRPO in closed loop. Margins are wide."""

from __future__ import annotations

import pytest
import torch

from alpagym.config import REWARD_PRESETS, SimConfig
from alpagym.evaluation import evaluate
from alpagym.grpo.trainer import GrpoTrainer
from alpagym.imitation import demonstrate, imitate
from alpagym.policies.late_fusion import LateFusion
from alpagym.scenarios.batch import batch, max_agents
from alpagym.training_config import GrpoConfig, ImitationConfig, PolicyConfig
from scenario_factory import curve

SIM = SimConfig(num_agents=4, num_road_points=8, num_route_points=6, num_lights=1)


def policy():
    torch.manual_seed(0)
    return LateFusion(PolicyConfig(width=16, hidden=32), SIM)


def curves(*radii):
    """Roads that bend: a policy that does nothing leaves them."""
    return [curve(radius=r, name=f"curve-{r}", frames=46) for r in radii]


def test_imitation_learns_to_steer():
    training, unseen = curves(*range(26, 70, 3)), curves(33, 48)
    driver, rows = policy(), []
    assert evaluate(driver, unseen, SIM)[0].offroad.all()
    imitate(
        driver,
        demonstrate(batch(training), max_agents(training), SIM),
        ImitationConfig(learning_rate=3e-3, max_epochs=60, batch_size=64, patience=60),
        seed=0,
        on_epoch=rows.append,
    )
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[-1]["best"] < rows[0]["held_out_loss"]
    assert not evaluate(driver, unseen, SIM)[0].failure.any()


@pytest.mark.parametrize(("credit", "scale"), [("step", "batch"), ("episode", "group")])
def test_grpo_learns_to_steer(credit, scale):
    training, unseen = curves(35, 45, 55), curves(40, 50)
    driver, rows = policy(), []
    before, _ = evaluate(driver, unseen, SIM)
    assert before.failure.all()
    trainer = GrpoTrainer(
        driver,
        batch(training),
        max_agents(training),
        config=GrpoConfig(
            iterations=30,
            group_size=16,
            scenarios_per_iteration=4,
            minibatch_size=512,
            learning_rate=1e-2,
            credit=credit,
            scale=scale,
        ),
        sim_config=SIM,
        reward=REWARD_PRESETS["dense"],
        seed=0,
    )
    trainer.train(lambda iteration, values: rows.append(values))
    first, last = (sum(r["return_mean"] for r in part) / 5 for part in (rows[:5], rows[-5:]))
    assert last > first + 10.0  # from about -17 to 1; leaving the road alone costs 20
    assert rows[-1]["failure_rate"] < 0.5 < rows[0]["failure_rate"]
    after, _ = evaluate(driver, unseen, SIM)
    assert not after.failure.any()
    assert (after.scene_score > 0.9).all()
