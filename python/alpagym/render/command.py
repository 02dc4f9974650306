"""`alpagym render`: rollouts as a page, a picture or a video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from alpagym.contenders import contenders_of, simulators_of
from alpagym.devices import choose_device
from alpagym.evaluation import evaluate
from alpagym.flight import replay
from alpagym.grpo.tokens import Token
from alpagym.interop.alpasim.address import Address
from alpagym.option_ranges import check
from alpagym.render.options import RenderConfig
from alpagym.render.outputs import is_page, writer_of
from alpagym.render.replay import Rollout, failed
from alpagym.scenarios.sources import PROCEDURAL, held_out_only
from alpagym.tables import plain_printer
from alpagym.training_config import TrainConfig

OF_DRIVES = ("checkpoint", "policy", "compare", "count", "reward_weights", "seed", "data", "sim")
"""Options that say what is driven, and by whom, where nothing is driven yet."""
PAGE_COUNT = 4
"""Scenarios on a page, where no number is given."""


def render_command(
    config: RenderConfig, run: TrainConfig | None = None, given: Sequence[str] = ()
) -> str:
    """Write rollouts as a file to look at; returns what it is, as a sentence.

    They are driven now, unless they are of a token or of logs.

    Args:
        config: what to show.
        run: with a token, the options of the run it is from.
        given: names of the fields of `config.sim` that replace a checkpoint's.

    Raises:
        ValueError: options that exclude each other, or a file of no format that is written.
        CheckpointError: the run has no such rollout, or a checkpoint cannot be read.
        ScenarioError: scenarios that cannot be loaded.
        OSError: the file cannot be written.
    """
    check(config)
    sources = [name for name in ("token", "asl") if getattr(config, name)]
    others = (*OF_DRIVES, *(["scenarios"] if config.token else []))
    default = RenderConfig()
    unused = [name for name in others if getattr(config, name) != getattr(default, name)]
    if len(sources) > 1 or (sources and unused):
        first, other = (*sources, *unused)[:2]
        raise ValueError(f"render: expected either {first}= or {other}=, got both")
    if bool(config.run) != bool(config.token):
        raise ValueError(
            "render: expected --token scenario@seed.member+lead, as flight.jsonl of a run has "
            f"them, and run=; got only {'run' if config.run else 'token'} (checkpoint=<run> drives)"
        )
    write = writer_of(Path(config.out), config.at)
    say = plain_printer(Console(stderr=True))
    if config.asl:
        from alpagym.interop.alpasim.asl.replays import replays_at
        from alpagym.interop.alpasim.wire import require

        require()
        rollouts, told = replays_at(Path(config.asl), config.scenarios)
    elif run is not None:
        rollouts, told = _training_rollout(config, run, say)
    else:
        rollouts, told = _drives(config, given, say)
    return f"{told}; {write(rollouts)}"


def _training_rollout(
    config: RenderConfig, run: TrainConfig, say: Callable[[str], None]
) -> tuple[list[Rollout], str]:
    token = Token.of(config.token)
    device = choose_device(config.device or run.device)
    if threads := config.threads or run.threads:
        torch.set_num_threads(threads)
    shown = replay(Path(config.run), run, token, device, say)
    label = f"{token}, iteration {shown.iteration}, {shown.rollout.label}"
    return [replace(shown.rollout, label=label)], shown.told


def _drives(
    config: RenderConfig, given: Sequence[str], say: Callable[[str], None]
) -> tuple[list[Rollout], str]:
    """The drives of each scenario together."""
    if not (config.checkpoint or config.policy):
        config = replace(config, policy="log")
    count = config.count or (PAGE_COUNT if is_page(Path(config.out)) else 1)
    device = choose_device(config.device or "auto")
    if config.threads:
        torch.set_num_threads(config.threads)
    contenders = contenders_of("render", config, device, far=False)
    simulators = simulators_of(contenders, config.sim, given, say)
    data = config.data
    if not data.select:
        data = replace(data, held_out=min(count, data.held_out))
    source = config.scenarios or PROCEDURAL
    scenarios = held_out_only(source, data, simulators[0].dt, config.seed, say)[:count]
    driven = []
    for contender, sim_config in zip(contenders, simulators, strict=True):
        assert not isinstance(contender.driver, Address)
        driven.append(
            evaluate(
                contender.driver, scenarios, sim_config, device=device, record=contender.label
            )[1]
        )
    rollouts = [one for together in zip(*driven, strict=True) for one in together]
    fails = ", ".join(
        f"{sum(map(failed, drives))} failures of {contender.label}"
        for contender, drives in zip(contenders, driven, strict=True)
    )
    return rollouts, f"{len(scenarios)} scenarios, {fails}"
