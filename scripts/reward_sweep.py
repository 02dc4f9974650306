"""Write docs/rewards.md's table: what each weight of the dense reward is good for.

One imitation policy is improved by GRPO once for each variant, which changes one weight of the
dense reward, and driven on the same held-out procedural scenarios.

    python scripts/reward_sweep.py [--iterations 30] [--seeds 1] [--json FILE] [variant ...]
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from alpagym import sim
from alpagym.config import REWARD_PRESETS, SimConfig
from alpagym.evaluation import Results, evaluate
from alpagym.grpo.trainer import GrpoTrainer
from alpagym.imitation import demonstrate, imitate
from alpagym.policies.late_fusion import LateFusion
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.procedural import generate_many
from alpagym.training_config import GrpoConfig, ImitationConfig, PolicyConfig

VARIANTS: dict[str, dict[str, float]] = {
    "dense": {},
    "progress 0.10": {"progress": 0.10},
    "progress 0.20": {"progress": 0.20},
    "at fault, off-road -10": {"collision_at_fault": -10.0, "offroad": -10.0},
    "at fault, off-road -40": {"collision_at_fault": -40.0, "offroad": -40.0},
    "any collision 0": {"collision_any": 0.0},
    "any collision -6": {"collision_any": -6.0},
    "comfort 0": {"comfort": 0.0},
    "comfort -0.05": {"comfort": -0.05},
    "ttc 0": {"ttc": 0.0},
    "ttc -0.6": {"ttc": -0.6},
    "lane for route": {"route": 0.0, "lane": -0.03},
    "route 0": {"route": 0.0},
}


def describe(results: Results) -> dict[str, float]:
    """The columns of the table."""
    summary = results.summary()
    names = ("failure_rate", "collision_any_rate", "progress", "scene_score")
    steps = results.steps.sum()
    return {n: float(summary[n]) for n in names} | {
        "uncomfortable": float(results.terms["comfort"].sum() / steps),
        "red_light": float((results.terms["red_light"] > 0).mean()),
        "stop_sign": float((results.terms["stop_sign"] > 0).mean()),
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variants", nargs="*", metavar="variant")
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    config = SimConfig()
    rows: list[dict[str, object]] = []
    for seed in range(given.seeds):
        torch.manual_seed(seed)
        scenarios = generate_many(512, 1000 + seed)
        train_set, held_out = scenarios[:256], scenarios[256:]
        packed = batch(train_set)
        start = LateFusion(PolicyConfig(), config)
        shown = demonstrate(packed, max_agents(train_set), config, smoothing=0.5)
        imitate(start, shown, ImitationConfig(), seed=seed, on_epoch=lambda values: None)
        judged = describe(evaluate(start, held_out, config)[0])
        rows.append({"variant": "imitation", "seed": seed, **judged})
        print(rows[-1], flush=True)
        for name in given.variants or VARIANTS:
            torch.manual_seed(seed)
            policy = copy.deepcopy(start)
            GrpoTrainer(
                policy,
                packed,
                max_agents(train_set),
                config=GrpoConfig(iterations=given.iterations),
                sim_config=config,
                reward=replace(REWARD_PRESETS["dense"], **VARIANTS[name]),
                seed=seed,
            ).train(lambda iteration, values: None)
            policy.eval()
            judged = describe(evaluate(policy, held_out, config)[0])
            rows.append({"variant": name, "seed": seed, **judged})
            print(rows[-1], flush=True)
            if given.json:
                value = {"commit": sim.commit(), "iterations": given.iterations, "rows": rows}
                given.json.write_text(json.dumps(value, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
