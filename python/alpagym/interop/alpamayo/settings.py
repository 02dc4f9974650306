"""What a checkpoint's `config.json` says of an Alpamayo model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpagym.interop.alpamayo import action_space
from alpagym.interop.alpamayo.vocabulary import TRAJECTORY

KINDS = ("alpamayo_r1", "alpamayo1_5", "alpamayo_reasoning_vla_expert")
"""Types of models: the releases of 1 (R1) and 1.5, and that of AlpaGym's training."""
NOT_SUPPORTED = ("expert_hist_traj_tokenizer_cfg", "hist_traj_embed_cfg")
"""Parts that no released model has."""
EXPERT_SIZES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim"),
)
"""What an expert's configuration decides; the rest is its VLM's."""
EXPERT_IGNORED = ("_target_", "dtype", "torch_dtype", "attn_implementation", "_attn_implementation")
"""What it may say besides, and what the caller or the program decides instead. Names of attention
could be those of kernels on a hub, which are code."""
ACTION = {
    "accel_mean": action_space.ACCEL_MEAN,
    "accel_std": action_space.ACCEL_STD,
    "curvature_mean": action_space.CURVATURE_MEAN,
    "curvature_std": action_space.CURVATURE_STD,
    "dt": action_space.DT,
    "n_waypoints": action_space.NUM_FUTURE,
}
"""Constants of the action space that all releases share."""


@dataclass(frozen=True)
class Settings:
    """A model's sizes and numbers."""

    kind: str
    """One of `KINDS`."""
    vlm: str
    """Name or folder of the vision-language model that it was made from."""
    vocabulary: int
    """Tokens, of which the VLM embeds each."""
    trajectory_tokens: int
    trajectory_start: int
    """Number of the first of them."""
    trajectory_ids: Mapping[str, int]
    """By the names of `vocabulary.TRAJECTORY`."""
    special_tokens: bool
    """Whether the tokenizer has all of `vocabulary.SPECIAL`."""
    expert: Mapping[str, int]
    """Sizes that the expert has other than its VLM's language model, of `EXPERT_SIZES`."""
    features: int
    """Of each number that is fed into the expert: half sines, half cosines."""
    max_frequency: float
    encoder_layers: int
    encoder_hidden: int
    causal: bool
    """Whether a waypoint's token sees no later ones."""
    steps: int
    """Of integration from noise to an action, without noise on the way."""
    low_precision: bool
    """Whether the frequencies of features are rounded to bfloat16, as the rest of the model is."""
    camera_names: bool
    """Whether prompts name the cameras."""
    frame_numbers: bool
    """Whether prompts number the frames."""
    min_pixels: int
    max_pixels: int
    """Of a frame."""


def read(folder: Path) -> tuple[Settings, dict[str, Any]]:
    """The settings of a checkpoint, and its `config.json` as it is.

    Raises:
        ValueError: no such file, no JSON, or a model that is not supported; one sentence.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise ValueError(f"{folder}: expected a checkpoint's folder, found no config.json in it")
    try:
        config = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: expected JSON, got {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{file}: expected an object, got {type(config).__name__}")
    try:
        return of(config), config
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def of(config: Mapping[str, Any]) -> Settings:
    """The settings that a configuration holds.

    Raises:
        ValueError: something is missing, of another type, or not supported.
    """
    kind = config.get("model_type")
    if kind not in KINDS:
        raise ValueError(f"model_type: expected one of {', '.join(KINDS)}, got {kind}")
    for name in NOT_SUPPORTED:
        if config.get(name) is not None:
            raise ValueError(f"{name}: expected none, got {config[name]!r:.60}")
    space = _part(config, "action_space_cfg")
    for name, value in ACTION.items():
        if name in space and space[name] != value:
            raise ValueError(
                f"action_space_cfg.{name}: expected {value}, as in all releases, got {space[name]}"
            )
    ids = _part(config, "traj_token_ids")
    missing = [name for name in TRAJECTORY if not isinstance(ids.get(name), int)]
    if missing:
        raise ValueError(f"traj_token_ids: expected a number of {missing[0]}, got {dict(ids)}")
    if _number(config, "tokens_per_history_traj", 48) != 48:
        got = config["tokens_per_history_traj"]
        raise ValueError(f"tokens_per_history_traj: expected 48, got {got}")
    encoder, flow = _part(config, "action_in_proj_cfg"), _part(config, "diffusion_cfg")
    precision = str(config.get("model_dtype", "bfloat16")).removeprefix("torch.")
    return Settings(
        kind=kind,
        vlm=str(config.get("vlm_name_or_path") or ""),
        vocabulary=_number(config, "vocab_size"),
        trajectory_tokens=_number(config, "traj_vocab_size"),
        trajectory_start=_number(config, "traj_token_start_idx"),
        trajectory_ids={name: ids[name] for name in TRAJECTORY},
        # AlpaGym's converter drops the key, whose models have all tokens.
        special_tokens=bool(config.get("add_special_tokens", kind == KINDS[2])),
        expert=_expert(_part(config, "expert_cfg")),
        features=_number(encoder, "num_fourier_feats", 20),
        max_frequency=float(_number(encoder, "max_freq", 100.0, float)),
        encoder_layers=_number(encoder, "num_enc_layers", 4),
        encoder_hidden=_number(encoder, "hidden_size", 1024),
        causal=not config.get("expert_non_causal_attention", True),
        steps=_number(flow, "num_inference_steps", 10),
        low_precision=bool(config.get("keep_same_dtype", True)) and precision == "bfloat16",
        camera_names=bool(config.get("include_camera_ids", kind != KINDS[0])),
        frame_numbers=bool(config.get("include_frame_nums", kind != KINDS[0])),
        min_pixels=_number(config, "min_pixels", 163840),
        max_pixels=_number(config, "max_pixels", 196608),
    )


def _expert(part: Mapping[str, Any]) -> dict[str, int]:
    for name in part:
        if name not in EXPERT_SIZES + EXPERT_IGNORED:
            raise ValueError(
                f"expert_cfg.{name:.60}: expected no other names than {', '.join(EXPERT_SIZES)}"
            )
    return {name: _number(part, name) for name in EXPERT_SIZES if name in part}


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    if not isinstance(part, Mapping):
        raise ValueError(f"{name}: expected an object, got {part!r:.60}")
    return part


def _number(config: Mapping[str, Any], name: str, default: Any = None, kind: type = int) -> Any:
    value = config.get(name)
    value = default if value is None else value
    number = isinstance(value, int | kind) and not isinstance(value, bool)
    if not number or not value > 0:
        raise ValueError(f"{name}: expected a number above 0, got {value!r:.60}")
    return value
