"""`alpagym render`: a rollout of training as a page to look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from alpagym.devices import choose_device
from alpagym.flight import replay
from alpagym.grpo.tokens import Token
from alpagym.option_ranges import check
from alpagym.render.frames import write_html
from alpagym.tables import plain_printer
from alpagym.training_config import RenderConfig, TrainConfig


def render_command(config: RenderConfig, run: TrainConfig) -> str:
    """Drive the rollout of a token again and write the page; returns what it is, as a sentence.

    Args:
        config: what to show.
        run: the options of the run it is from.

    Raises:
        ValueError: no token, or none of that form.
        CheckpointError: the run has no such rollout.
        ScenarioError: its scenarios are no longer there.
        OSError: the page cannot be written.
    """
    check(config)
    if not config.token:
        raise ValueError(
            "render: expected --token scenario@seed.member+lead, as flight.jsonl of the run has "
            "them, got none"
        )
    token = Token.of(config.token)
    device = choose_device(config.device or run.device)
    if threads := config.threads or run.threads:
        torch.set_num_threads(threads)
    say = plain_printer(Console(stderr=True))
    shown = replay(Path(config.run), run, token, device, say)
    label = f"{token}, iteration {shown.iteration}, {shown.rollout.label}"
    page = write_html([replace(shown.rollout, label=label)], config.out)
    return f"{shown.told}; {page}"
