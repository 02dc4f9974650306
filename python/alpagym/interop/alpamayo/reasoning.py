"""The chain of thought that Alpamayo writes before it drives, as the releases sample it.

AlpaGym's training does without it: prompts then begin the answer with the future.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alpagym.interop.alpamayo.model import Alpamayo
from alpagym.interop.alpamayo.prompt import Prompt
from alpagym.interop.alpamayo.vocabulary import written


@torch.no_grad()
def think(
    model: Alpamayo,
    prompt: Prompt,
    tokenizer: Any,
    *,
    seed: int,
    max_tokens: int = 256,
    top_p: float = 0.98,
    temperature: float = 0.6,
) -> tuple[Prompt, list[str]]:
    """Let the VLM write until the future begins.

    Bins of trajectories are never written, nor tokens that stand for pictures. Who does not come to
    an end is cut off.

    Args:
        model: that thinks.
        prompt: built with `reasoning`.
        tokenizer: as of `prompt.build`.
        seed: of what is written.
        max_tokens: for each situation.
        top_p: least share of the probability that tokens are chosen from.
        temperature: by which logits are divided.

    Returns:
        The prompt with what was written and the beginning of the future after it, for
        `Alpamayo.prefix`; and the chain of thought of each situation in words.

    Raises:
        ValueError: a prompt that asks for no chain of thought.
    """
    settings, config = model.settings, model.vlm.config
    begins = tokenizer.convert_tokens_to_ids(written("cot_start"))
    if (prompt.ids[:, -1] != begins).any():
        raise ValueError(
            f"prompt: expected {written('cot_start')} at its end, as build(reasoning=True) puts it"
        )
    future = settings.trajectory_ids["future_start"]
    first = settings.trajectory_start
    pictures = (config.image_token_id, config.video_token_id, config.vision_start_token_id)

    def mask(ids: Tensor, scores: Tensor) -> Tensor:
        scores[:, first : first + settings.trajectory_tokens] = -torch.inf
        scores[:, list(pictures)] = -torch.inf
        return scores

    prompt = prompt.to(model.device)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        out = model.vlm.generate(
            input_ids=prompt.ids,
            attention_mask=prompt.mask.long(),
            mm_token_type_ids=(prompt.ids == config.image_token_id).int(),
            pixel_values=prompt.patches,
            image_grid_thw=prompt.grid,
            do_sample=True,
            top_p=top_p,
            top_k=0,
            temperature=temperature,
            max_new_tokens=max_tokens,
            eos_token_id=future,
            pad_token_id=future,
            logits_processor=[mask],
        )
    rows, words = [], []
    for b, row in enumerate(out[:, prompt.ids.shape[1] :].tolist()):
        thought = row[: row.index(future)] if future in row else row
        rows.append(prompt.ids[b][prompt.mask[b]].tolist() + thought + [future])
        text = tokenizer.decode(thought, skip_special_tokens=False)
        words.append(text.partition(written("cot_end"))[0])
    return prompt.with_rows(rows), words
