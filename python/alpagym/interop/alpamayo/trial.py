"""Whether a checkpoint works from end to end: loaded, shown a scene, drawn from, judged again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch

from alpagym.grpo.loss import reduce_log_prob
from alpagym.interop.alpamayo.action_space import NUM_HISTORY
from alpagym.interop.alpamayo.checkpoints import load, load_tokenizer
from alpagym.interop.alpamayo.contract import FRAME_SIZE, Inputs, trajectories
from alpagym.interop.alpamayo.prompt import build
from alpagym.interop.alpamayo.sampling import log_prob, sample
from alpagym.policies.flow_matching import Schedule

CAMERAS = (0, 1, 2, 6)
"""Those that the releases were trained with."""
FRAMES = 4
SPEED = 10.0
"""[m/s]"""
STEPS, NOISE = 5, 0.2
"""Of AlpaGym's draws."""
DRAWS = 2
APART = 1e-2
"""How far what is judged may be from what was drawn, as the mean over numbers drawn."""


def scene() -> Inputs:
    """Gray frames of four cameras after a straight drive at 10 m/s."""
    count = len(CAMERAS) * FRAMES
    past = torch.zeros(1, 1, NUM_HISTORY, 3)
    past[..., 0] = torch.arange(1 - NUM_HISTORY, 1) * 0.1 * SPEED
    return Inputs(
        history_xyz=past,
        history_rotation=torch.eye(3).expand(1, 1, NUM_HISTORY, 3, 3).contiguous(),
        frames=torch.full((1, count, 3, *FRAME_SIZE), 127, dtype=torch.uint8),
        camera=torch.tensor(CAMERAS).repeat_interleave(FRAMES)[None],
        time_us=(torch.arange(1 - FRAMES, 1) * 100_000).repeat(len(CAMERAS))[None],
    )


def try_out(folder: str | Path, vlm: str | Path | None, device: str) -> Iterator[str]:
    """Use a checkpoint, and say in a line what each part of it came to.

    Args:
        folder: of the checkpoint.
        vlm: as of `checkpoints.load`.
        device: where to.

    Raises:
        ValueError: it cannot be loaded, draws what is not finite, or judges it otherwise than it
            drew it.
    """
    watch = _Watch(device)
    model = load(folder, vlm, device=device)
    weights = sum(p.numel() for p in model.parameters())
    size = sum(p.nbytes for p in model.parameters())
    yield f"loaded {weights / 1e9:.2f}e9 weights of {size / 1e9:.2f} GB in {watch.lap():.1f} s"

    tokenizer, seen = load_tokenizer(folder, vlm), scene()
    seen.check()
    prompt = build(seen, model.settings, tokenizer, model.patches)
    prefix = model.prefix(prompt)
    yield (
        f"read {prompt.ids.shape[1]} tokens of {len(CAMERAS) * FRAMES} frames into "
        f"{prefix.nbytes / 1e9:.3f} GB in {watch.lap():.2f} s"
    )

    schedule = Schedule.even(STEPS, NOISE, device)
    generator = torch.Generator(device).manual_seed(0)
    draws = sample(model, prefix, DRAWS, schedule, generator)
    action = draws.action[:, None].cpu()
    xyz, _ = trajectories(action, seen.history_xyz, seen.history_rotation)
    if not xyz.isfinite().all():
        raise ValueError(f"{folder}: expected finite trajectories, got NaN or infinity")
    ends = " and ".join(f"({x:.1f}, {y:.1f}) m" for x, y, _ in xyz[0, 0, :, -1].tolist())
    yield f"drew {DRAWS} trajectories that end at {ends} after 6.4 s in {watch.lap():.2f} s"

    with torch.no_grad():
        again = log_prob(model, prefix, draws.path, schedule)
    apart = reduce_log_prob(again, "mean") - reduce_log_prob(draws.log_prob, "mean")
    worst = float(apart.abs().max())
    if not worst < APART:
        raise ValueError(
            f"{folder}: expected log-probabilities, all steps at once, less than {APART} from "
            f"those drawn, got {worst:.1e}"
        )
    yield (
        f"their log-probabilities, all steps at once: {worst:.1e} from those "
        f"drawn, mean over {again.shape[-1]} numbers, in {watch.lap():.2f} s"
    )


class _Watch:
    """Seconds between laps, with the device idle at each."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.since = time.perf_counter()

    def lap(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        took, self.since = now - self.since, now
        return took
