"""What a run of Cosmos-RL on the CPU must show: `check.py RUN`.

Every iteration was reported by the controller and learned from; all processes ended well; returns
rose, given 20 iterations; and the policy is, bit for bit, what `alpagym train`'s own loop makes of
the same draws. Several replicas sum in another order: their first iterations are the same but for
rounding.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))


def main() -> None:
    from alpagym.checkpoint import load_policy
    from alpagym.interop.cosmos.engine import engine_of
    from alpagym.run_directory import read_rows
    from cosmos_runs import without_cosmos

    run = Path(sys.argv[1])
    engine = engine_of(run)
    wanted = engine.config.iterations
    log = (run / "cosmos" / "log.txt").read_text(errors="replace")
    steps = [int(float(step)) for step in re.findall(r"- Step: ([\d.]+)/", log)]
    assert steps == list(range(1, wanted + 1)), f"the controller reported steps {steps}"
    cosmos = engine.run_options.cosmos
    replicas, apart = cosmos.policies, cosmos.mode == "disaggregated"
    workers = replicas + apart * cosmos.rollouts
    assert log.count("a worker ended with status 0") == workers, "a worker did not end well"
    left = list((run / "cosmos").glob("groups/*"))
    assert not left, f"{len(left)} groups were not learned from"
    assert "the controller ended with status 0" in log, "the controller did not end well"

    rows = [row for row in read_rows(run / "metrics.jsonl") if row["phase"] == "grpo"]
    assert len(rows) == wanted, f"expected {wanted} iterations, got {len(rows)}"
    returns = [row["return_mean"] for row in rows]
    fifth = max(1, wanted // 5)
    first, last = sum(returns[:fifth]) / fifth, sum(returns[-fifth:]) / fifth
    assert last > first or wanted < 20, (
        f"returns did not rise: {first:.2f} at first, {last:.2f} in the end"
    )

    trainer, own = without_cosmos(engine, run)
    learned = load_policy(run)[0].state_dict()
    own_returns = [row["return_mean"] for row in own]
    off = max(
        float((weight - learned[name]).abs().max())
        for name, weight in trainer.policy.state_dict().items()
    )
    if replicas == 1:
        assert off == 0.0, f"weights: up to {off} from those of alpagym train"
        assert returns == own_returns, "returns: not those of alpagym train"
        same = "returns and weights are those of alpagym train with the same draws, bit for bit"
    else:
        early = max(abs(a - b) for a, b in zip(returns[:3], own_returns[:3], strict=True))
        assert early < 1e-3, f"returns: up to {early} from those of alpagym train"
        same = (
            f"returns of three iterations are within {early:.0e} of alpagym train's, and weights "
            f"in the end within {off:.0e}: rounding grows"
        )

    seconds = [row["rollout_s"] + row["update_s"] for row in rows[1:]]
    whole = (rows[-1]["wall_s"] - rows[0]["wall_s"]) / (wanted - 1)
    print(
        f"{cosmos.mode}, {workers} workers, {wanted} steps, mean return {first:.2f} -> {last:.2f}"
    )
    print(f"a step drives and learns in {1e3 * sum(seconds) / len(seconds):.0f} ms on average")
    print(f"and takes {1e3 * whole:.0f} ms in all, with what Cosmos-RL does about it")
    print(same)


if __name__ == "__main__":
    main()
