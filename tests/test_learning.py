"""Policies get better: by imitation open loop, by GRPO in closed loop. Margins are wide."""

from __future__ import annotations

import pytest
import torch

from alpagym.config import (
    REWARD_PRESETS,
    GrpoConfig,
    ImitationConfig,
    PolicyConfig,
    SimConfig,
)
from alpagym.evaluation import evaluate
from alpagym.grpo.trainer import GrpoTrainer
from alpagym.imitation import demonstrate, imitate
from alpagym.policies.late_fusion import LateFusion
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.procedural import generate_many
from scenario_factory import STRAIGHT, Actor, curve, straight

SIM = SimConfig(num_agents=4, num_road_points=8, num_route_points=6, num_lights=1)
POLICY = PolicyConfig(width=16, hidden=32)


def policy(seed=0):
    torch.manual_seed(seed)
    return LateFusion(POLICY, SIM)


def curves(*radii):
    """Roads that bend: a policy that does nothing leaves them."""
    return [curve(radius=r, name=f"curve-{r}", frames=46) for r in radii]


def blocked(*places):
    """Roads with a parked car in the way: a policy that does nothing hits it."""
    return [straight(Actor(STRAIGHT, x, 0.0), name=f"blocked-{x}", frames=46) for x in places]


def test_imitation_reduces_the_held_out_loss():
    scenarios = generate_many(12, 5)
    rows = []
    imitate(
        policy(),
        demonstrate(batch(scenarios), max_agents(scenarios), SIM),
        ImitationConfig(max_epochs=25, batch_size=256),
        seed=0,
        on_epoch=rows.append,
    )
    losses = [row["held_out_loss"] for row in rows]
    assert min(losses) < 0.7 * losses[0]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]


def test_imitation_learns_to_steer():
    training, held_out = curves(30, 36, 42, 54, 60), curves(33, 48)
    driver = policy()
    assert evaluate(driver, held_out, SIM)[0].offroad.all()
    imitate(
        driver,
        demonstrate(batch(training), max_agents(training), SIM),
        ImitationConfig(max_epochs=120, batch_size=64, patience=100),
        seed=0,
        on_epoch=lambda row: None,
    )
    assert not evaluate(driver, held_out, SIM)[0].offroad.any()


@pytest.mark.parametrize(
    ("credit", "log_prob", "scale"), [("step", "sum", "batch"), ("episode", "sum", "group")]
)
def test_grpo_learns_to_stop_before_obstacles(credit, log_prob, scale):
    training, held_out = blocked(50, 55, 60, 70), blocked(52.5, 65)
    driver = policy()
    before, _ = evaluate(driver, held_out, SIM)
    assert before.failure.all()
    trainer = GrpoTrainer(
        driver,
        batch(training),
        max_agents(training),
        config=GrpoConfig(
            iterations=25,
            group_size=16,
            scenarios_per_iteration=4,
            minibatch_size=512,
            learning_rate=3e-3,
            credit=credit,
            log_prob=log_prob,
            scale=scale,
        ),
        sim_config=SIM,
        reward=REWARD_PRESETS["dense"],
        seed=0,
    )
    rows = []
    trainer.train(lambda iteration, values: rows.append(values))
    returns = [row["return_mean"] for row in rows]
    assert sum(returns[-5:]) > sum(returns[:5]) + 5 * 5.0
    after, _ = evaluate(driver, held_out, SIM)
    assert not after.failure.any()
