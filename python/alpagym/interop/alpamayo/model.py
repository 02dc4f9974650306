"""Alpamayo: a vision-language model that reads the scene, and an expert that draws the action.

The expert is a transformer as deep as the VLM's language model. Its 64 tokens, one a waypoint,
attend in each layer to what the VLM kept there of the prompt (keys and values), and to each other.
Modules have the names that checkpoints give them; the VLM and the layers are those of
`transformers`, which the extra `alpamayo` brings.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alpagym.interop.alpamayo.action_space import NUM_FUTURE
from alpagym.interop.alpamayo.encoder import ActionEncoder
from alpagym.interop.alpamayo.prompt import Patches, Prompt
from alpagym.interop.alpamayo.settings import Settings


def require() -> None:
    """Look whether the extra `alpamayo` is installed.

    Raises:
        ValueError: it is not; one sentence that says how to install it.
    """
    try:
        from transformers import Qwen3VLForConditionalGeneration

        assert Qwen3VLForConditionalGeneration
    except ImportError as error:
        raise ValueError(
            f"Alpamayo's models need transformers ({error}): pip install alpagym[alpamayo]"
        ) from error


@dataclass
class Prefix:
    """What a VLM keeps of B prompts for an expert of L layers, without gradients."""

    keys: list[Tensor]
    """L of [B, heads, P, D]"""
    values: list[Tensor]
    """L of [B, heads, P, D]"""
    mask: Tensor
    """Which of the P tokens are there. bool [B, P]"""
    start: Tensor
    """Position of the first token after the prompt. int64 [B]"""

    def __len__(self) -> int:
        return len(self.start)

    def index(self, rows: Tensor | slice) -> Prefix:
        """Those of some situations."""
        at = rows.to(self.mask.device) if isinstance(rows, Tensor) else rows
        return self._map(lambda t: t[at])

    def to(self, device: torch.device | str) -> Prefix:
        """On a device; those of many decisions fit into the host's memory only."""
        return self._map(lambda t: t.to(device))

    @classmethod
    def join(cls, parts: Sequence[Prefix]) -> Prefix:
        """One of all situations of several, padded in front to the longest prompt."""
        longest = max(part.mask.shape[1] for part in parts)

        def padded(part: Prefix, tensor: Tensor, dim: int) -> Tensor:
            missing = longest - part.mask.shape[1]
            return nn.functional.pad(tensor, (*(0, 0) * (tensor.ndim - 1 - dim), missing, 0))

        layers = range(len(parts[0].keys))
        return cls(
            [torch.cat([padded(p, p.keys[n], 2) for p in parts]) for n in layers],
            [torch.cat([padded(p, p.values[n], 2) for p in parts]) for n in layers],
            torch.cat([padded(p, p.mask, 1) for p in parts]),
            torch.cat([p.start for p in parts]),
        )

    def _map(self, of: Callable[[Tensor], Tensor]) -> Prefix:
        return Prefix(
            [of(k) for k in self.keys], [of(v) for v in self.values], of(self.mask), of(self.start)
        )

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return sum(t.nbytes for t in (*self.keys, *self.values))


class _Reading:
    """A cache that is only read: an expert's layers see what it holds before their own tokens."""

    def __init__(self, prefix: Prefix) -> None:
        self.prefix = prefix

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        kept = self.prefix.keys[layer].to(keys.dtype), self.prefix.values[layer].to(values.dtype)
        return torch.cat([kept[0], keys], 2), torch.cat([kept[1], values], 2)

    def get_seq_length(self, layer: int = 0) -> int:
        return self.prefix.mask.shape[1]


class Alpamayo(nn.Module):
    """The model of a checkpoint."""

    def __init__(self, settings: Settings, vlm_config: Any) -> None:
        """Random weights.

        Args:
            settings: of the checkpoint.
            vlm_config: `transformers.Qwen3VLConfig` of the VLM it was made from.

        Raises:
            ValueError: no `transformers`, or an expert that its VLM cannot feed.
        """
        super().__init__()
        require()
        from transformers import Qwen3VLForConditionalGeneration, Qwen3VLTextModel

        vlm_config = copy.deepcopy(vlm_config)
        vlm_config.text_config.vocab_size = settings.vocabulary
        # Other names of attention could be those of a hub's kernels, which are code.
        vlm_config._attn_implementation = "sdpa"
        expert_config = _expert_config(settings, vlm_config.text_config)
        self.settings = settings
        self.vlm = Qwen3VLForConditionalGeneration(vlm_config)
        self.expert = Qwen3VLTextModel(expert_config)
        del self.expert.embed_tokens
        self.action_in_proj = ActionEncoder(settings, expert_config.hidden_size)
        self.action_out_proj = nn.Linear(expert_config.hidden_size, 2)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.action_out_proj.weight.device

    @property
    def patches(self) -> Patches:
        """How its vision tower cuts frames."""
        vision = self.vlm.config.vision_config
        return Patches(vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)

    @torch.no_grad()
    def prefix(self, prompt: Prompt) -> Prefix:
        """Read prompts, once for all that is drawn and learned after them.

        The VLM never learns here, so what is read stays true while the expert does.
        """
        prompt = prompt.to(self.device)
        image = prompt.ids == self.vlm.config.image_token_id
        mask = prompt.mask.long()
        places, shift = self.vlm.model.get_rope_index(
            prompt.ids, image.int(), image_grid_thw=prompt.grid, attention_mask=mask
        )
        read = self.vlm.model(
            input_ids=prompt.ids,
            attention_mask=mask,
            position_ids=places,
            pixel_values=prompt.patches,
            image_grid_thw=prompt.grid,
            use_cache=True,
        )
        layers = read.past_key_values.layers
        return Prefix(
            [layer.keys for layer in layers],
            [layer.values for layer in layers],
            prompt.mask,
            mask.sum(1) + shift[:, 0],
        )

    def velocity(self, prefix: Prefix, action: Tensor, time: Tensor) -> Tensor:
        """Where noisy actions are carried: C of them for each of B prefixes, in one pass.

        They do not see each other, and no copy of the prefix is made for them.

        Args:
            prefix: of B situations.
            action: [B, C, 64, 2].
            time: 0 for noise, 1 for data, [B, C].

        Returns:
            In float32 at least, [B, C, 64, 2].
        """
        batch, count = action.shape[:2]
        tokens: Tensor = self.action_in_proj(action, time).flatten(1, 2)
        ahead = torch.arange(NUM_FUTURE, device=action.device).repeat(count)
        places = (prefix.start[:, None] + ahead).expand(3, batch, -1)
        out = self.expert(
            inputs_embeds=tokens,
            position_ids=places,
            attention_mask=self._seen(prefix, count),
            past_key_values=_Reading(prefix),
            use_cache=False,
        )
        carried: Tensor = self.action_out_proj(out.last_hidden_state)
        carried = carried.to(torch.promote_types(carried.dtype, torch.float32))
        return carried.unflatten(1, (count, NUM_FUTURE))

    def _seen(self, prefix: Prefix, count: int) -> Tensor:
        """Which tokens each waypoint attends to, bool [B, 1, C 64, P + C 64]."""
        own = torch.ones(NUM_FUTURE, NUM_FUTURE, dtype=torch.bool, device=prefix.mask.device)
        own = own.tril() if self.settings.causal else own
        blocks = torch.block_diag(*[own] * count)
        batch, length = len(prefix), len(blocks)
        return torch.cat(
            [
                prefix.mask[:, None, None].expand(batch, 1, length, -1),
                blocks.expand(batch, 1, length, length),
            ],
            -1,
        )


def train_expert_only(model: Alpamayo) -> list[nn.Parameter]:
    """Freeze the VLM, and return what is left to learn: the expert and what leads in and out."""
    model.requires_grad_(False)
    learned: list[nn.Parameter] = []
    for part in (model.expert, model.action_in_proj, model.action_out_proj):
        learned += part.requires_grad_(True).parameters()
    model.vlm.eval()
    return learned


def _expert_config(settings: Settings, text_config: Any) -> Any:
    """The configuration of an expert: its VLM's language model with sizes of its own."""
    expert = copy.deepcopy(text_config)
    for name, value in settings.expert.items():
        setattr(expert, name, value)
    # Its embedding is thrown away.
    expert.vocab_size, expert.pad_token_id = 1, None
    shared: Sequence[str] = ("num_hidden_layers", "num_key_value_heads", "head_dim")
    for name in shared:
        own, theirs = getattr(expert, name), getattr(text_config, name)
        if own != theirs:
            raise ValueError(
                f"expert_cfg.{name}: expected {theirs}, as the VLM whose keys and values it reads, "
                f"got {own}"
            )
    return expert
