"""A reward function that fails on one rank, and a script in which ranks talk and train."""

from __future__ import annotations

import json
import os
import sys
import time

import torch

from alpagym import cli
from alpagym.ranks import RankError, Ranks


def not_a_number(state, outcome, scenarios):
    """NaN on the second rank."""
    bad = os.environ.get("RANK") == "1"
    return torch.full_like(outcome.reward, float("nan") if bad else 0.0)


def main(trainings: list[str]) -> int:
    """Let ranks talk, of which the first prints what it heard, and then train, again and again.

    Args:
        trainings: arguments of `alpagym train`, JSON lists.

    Returns:
        The exit status of the first training that fails.
    """
    _talk()
    for training in trainings:
        if status := cli.main(["train", *json.loads(training)]):
            return status
    return 0


def _talk() -> None:
    ranks = Ranks.of_environment()
    ranks.connect(torch.device("cpu"), nccl=False)
    rank, own = ranks.rank, ranks.share(5)
    one, two = torch.full((2,), float(rank + 1)), torch.full((1, 2), 10.0 * (rank + 1))
    ranks.sum_([one, two])
    told = torch.full((2,), float(rank))
    ranks.tell_([told])
    numbers = torch.arange(10.0).view(2, 5)
    numbers[0, 0] = float("nan")
    heard = {
        "sums": [one.tolist(), two.tolist()],
        "joined": str(ranks.join(numbers[:, own], 1, own, 5).tolist()),
        "everyone": ranks.everyone(rank),
        "told": [ranks.told(f"rank {rank}"), told.tolist()],
    }
    ranks.agree("numbers", [torch.ones(3), torch.arange(2)])
    try:
        ranks.agree("numbers", [torch.ones(3), torch.tensor([0, rank])])
    except RankError as error:
        heard["differs"] = str(error)
    with ranks.in_turn():
        begun = time.monotonic()
        time.sleep(0.2)
        ended = time.monotonic()
    (_, before), (after, _) = ranks.everyone((begun, ended))
    ranks.close()
    if ranks.first:
        print("heard", json.dumps(heard | {"in_turn": before <= after}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
