"""Alpamayo's prompt: camera frames, own motion and route as the tokens that its VLM reads.

As NVlabs/alpamayo and AlpaGym build it: a system's sentence, then the user's frames, history, route
and request, then the first token of the answer. Nothing is generated where the answer begins with
the future: that is how AlpaGym trains. With `reasoning` it begins with a chain of thought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from alpagym.interop.alpamayo.contract import Inputs, order
from alpagym.interop.alpamayo.settings import Settings
from alpagym.interop.alpamayo.tokens import encode_history
from alpagym.interop.alpamayo.vocabulary import HISTORY_OFFSET, written

SYSTEM = "You are a driving assistant that generates safe and accurate actions."
THINK = "output the chain-of-thought reasoning of the driving process"
DRIVE = "output the future trajectory"
CAMERA_NAMES = {
    0: "Front left camera",
    1: "Front camera",
    2: "Front right camera",
    3: "Rear left camera",
    4: "Rear camera",
    5: "Rear right camera",
    6: "Front telephoto camera",
}
"""What prompts of 1.5 call the cameras of `contract.CAMERAS`."""
NUM_HISTORY_TOKENS = 48


@dataclass(frozen=True)
class Patches:
    """How the VLM's vision tower cuts frames into patches."""

    size: int = 16
    """Edge [pixels]."""
    merge: int = 2
    """Patches by side that make one token."""
    times: int = 2
    """Frames in a patch; a still is repeated."""
    mean: float = 0.5
    """Taken from pixels, from 0 to 1, of each color."""
    std: float = 0.5
    """Divides them."""

    def tokens(self, height: int, width: int) -> int:
        """Tokens of a frame.

        Raises:
            ValueError: a size that does not divide into them.
        """
        edge = self.size * self.merge
        if height % edge or width % edge:
            raise ValueError(
                f"frames: expected height and width as multiples of {edge} pixels, "
                f"got {height} x {width}"
            )
        return height * width // edge**2

    def cut(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Patches of frames, in the order in which Qwen's processor gives them.

        Args:
            frames: uint8 [N, 3, H, W], of which nothing is resized.

        Returns:
            Patches, float32 [N H W / size^2, 3 times size^2], and each frame's grid of patches in
            time, height and width, int64 [N, 3].
        """
        count, colors, height, width = frames.shape
        self.tokens(height, width)
        rows, columns = height // self.size, width // self.size
        pixels = (frames.float() / 255.0 - self.mean) / self.std
        cells = pixels.view(
            *(count, colors, rows // self.merge, self.merge, self.size),
            *(columns // self.merge, self.merge, self.size),
        )
        cells = cells.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None]
        shape = (*cells.shape[:6], self.times, *cells.shape[7:])
        grid = torch.tensor([[1, rows, columns]], device=frames.device).expand(count, 3)
        return cells.expand(shape).reshape(count * rows * columns, -1), grid


@dataclass
class Prompt:
    """What the VLM reads in B situations."""

    ids: Tensor
    """Tokens, padded in front. int64 [B, L]"""
    mask: Tensor
    """Which are there. bool [B, L]"""
    patches: Tensor
    """Of all frames. float32 [P, 3 times size^2]"""
    grid: Tensor
    """Of each frame. int64 [B C F, 3]"""

    def to(self, device: torch.device | str) -> Prompt:
        """On a device."""
        return Prompt(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def with_rows(self, rows: Sequence[Sequence[int]]) -> Prompt:
        """The same frames in other words: tokens of each situation, not padded."""
        ids, mask = _padded(rows)
        device = self.ids.device
        return replace(self, ids=ids.to(device), mask=mask.to(device))


def text(
    cameras: Sequence[int],
    frames: int,
    tokens: int,
    settings: Settings,
    *,
    route: str = "",
    reasoning: bool = False,
) -> str:
    """The prompt in words, in Qwen's chat format.

    Args:
        cameras: numbers, rising.
        frames: of each camera.
        tokens: of each frame.
        settings: of the model.
        route: in words, as "Turn left in 40m"; 1.5 was trained with it.
        reasoning: ask for a chain of thought first.
    """
    image = "<|vision_start|>" + "<|image_pad|>" * tokens + "<|vision_end|>"
    shown = []
    for camera in cameras:
        if settings.camera_names:
            shown.append(f"{CAMERA_NAMES[camera]}: ")
        for frame in range(frames):
            shown.append(f"frame {frame} {image}" if settings.frame_numbers else image)
    own = written("traj_history") * NUM_HISTORY_TOKENS
    told = written("traj_history_start") + own + written("traj_history_end")
    if route:
        told += written("route_start") + route + written("route_end")
    asked = f"{THINK}, then {DRIVE}." if reasoning else f"{DRIVE}."
    begun = written("cot_start" if reasoning else "traj_future_start")
    return (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
        f"<|im_start|>user\n{''.join(shown)}{told}{asked}<|im_end|>\n"
        f"<|im_start|>assistant\n{begun}"
    )


def build(
    inputs: Inputs,
    settings: Settings,
    tokenizer: Any,
    patches: Patches,
    *,
    routes: Sequence[str] | None = None,
    reasoning: bool = False,
) -> Prompt:
    """The prompt of checked inputs.

    Args:
        inputs: of B situations.
        settings: of the model.
        tokenizer: with Alpamayo's tokens (`vocabulary.extend`).
        patches: of the model's vision tower.
        routes: in words, one for each situation; empty for none.
        reasoning: ask for a chain of thought first.

    Raises:
        ValueError: frames of a size that the model was not made for, routes for a model without
            words for them or in another number, or a tokenizer that splits one of the model's
            tokens.
    """
    batch, _, _, height, width = inputs.frames.shape
    if not settings.min_pixels <= height * width <= settings.max_pixels:
        raise ValueError(
            f"frames: expected {settings.min_pixels} to {settings.max_pixels} pixels, "
            f"got {height} x {width} = {height * width}"
        )
    told = list(routes) if routes is not None else [""] * batch
    if len(told) != batch:
        raise ValueError(f"routes: expected one for each of {batch} situations, got {len(told)}")
    if any(told) and not settings.special_tokens:
        raise ValueError("routes: expected none, as the model has no tokens for them")
    if any(mark in route for route in told for mark in ("<|", "<i")):
        raise ValueError(f"routes: expected words without tokens, got {told}")
    cameras, frames = order(inputs.camera)
    each = patches.tokens(height, width)
    rows = []
    for route in told:
        words = text(cameras, frames, each, settings, route=route, reasoning=reasoning)
        rows.append(tokenizer.encode(words, add_special_tokens=False))
    ids, mask = _padded(rows)
    device = inputs.frames.device
    cut, grid = patches.cut(inputs.frames.flatten(0, 1))
    ids = fuse_history(ids.to(device), inputs.history_xyz, settings)
    return Prompt(ids, mask.to(device), cut, grid)


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of one length, filled in front with what is masked, and the mask: [B, L] each."""
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for b, row in enumerate(rows):
        ids[b, length - len(row) :] = torch.tensor(row)
        mask[b, length - len(row) :] = True
    return ids, mask


def fuse_history(ids: Tensor, history_xyz: Tensor, settings: Settings) -> Tensor:
    """Put the history's bins where the prompt has placeholders for them.

    Args:
        ids: [B, L].
        history_xyz: [B, 1, 16, 3].
        settings: of the model.

    Raises:
        ValueError: a row without exactly 48 placeholders.
    """
    places = ids == settings.trajectory_ids["history"]
    found = places.sum(1)
    if (found != NUM_HISTORY_TOKENS).any():
        raise ValueError(
            f"prompt: expected {NUM_HISTORY_TOKENS} placeholders {written('traj_history')}, "
            f"got {found.tolist()}"
        )
    bins = encode_history(history_xyz[:, 0]).to(ids.device)
    first = settings.trajectory_start + HISTORY_OFFSET
    return ids.masked_scatter(places, (first + bins).to(ids.dtype))
