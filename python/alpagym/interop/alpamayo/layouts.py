"""How the same weights are named and described: the releases, AlpaGym's training, and its export.

- `alpamayo_r1`: model_type `alpamayo_r1`; the VLM's weights are `vlm.model.language_model.*`,
  `vlm.model.visual.*` and `vlm.lm_head.*`.
- `alpamayo1_5`: model_type `alpamayo1_5`, the same names; what AlpaSim's driver loads.
- `training`: model_type `alpamayo_reasoning_vla_expert`, the same names; what AlpaGym's trainer
  begins with.
- `export`: the same model_type, with `model.*`, `visual.*` and `lm_head.*`; what Cosmos-RL exports.

The expert's names are alike in all. Configurations differ in the classes that they name; after
NVlabs/alpagym 812c4cb and 92ba5ce (`packages/policies/alpamayo_r1/scripts`) and
NVlabs/alpamayo-recipes e2ebc5b (`scripts/convert_checkpoint.py`).
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from alpagym.interop.alpamayo.settings import ACTION, Settings, of

RELEASES = {"alpamayo_r1": "AlpamayoR1", "alpamayo1_5": "Alpamayo1_5"}
"""Classes of the releases' models, by layout."""
TRAINED = "alpamayo_reasoning_vla_expert"
LAYOUTS = (*RELEASES, "training", "export")
KEPT = "alpagym_release_config"
"""Where a configuration keeps, as text, that of the release it was made from."""
ADDED = "alpagym_added_weights"
"""Where it lists the constants that were added to the weights."""
TRAINING_ONLY: dict[str, Any] = {
    "cotrain_vlm": False,
    "stop_grad_from_vlm": True,
    "legacy_inference_image_input_format": False,
    "loss_weights": {"future_traj": 1.0, "others": 1.0},
    "traj_loss_weight": 1.0,
    "expert_hist_traj_tokenizer_cfg": None,
    "hist_traj_embed_cfg": None,
}
"""What only configurations for training have."""
TRAINING_TOO = {"include_camera_ids": True, "include_frame_nums": True, "padding_side": "left"}
"""What they have besides, where the release says nothing."""
PROMPTED = {"include_camera_ids": "camera_names", "include_frame_nums": "frame_numbers"}
"""What decides the words of prompts, and the settings' names of it: layouts differ in what they
take it for where nothing is said."""
UNICYCLE = "action_space.unicycle_accel_curvature.UnicycleAccelCurvatureActionSpace"
TO_TRAINING = {
    "alpamayo_r1.models.action_in_proj.": "alpagym_alpamayo_r1.submodules.action_in_proj.",
    "alpamayo_r1.diffusion.": "alpamayo1_x_rl.diffusion.",
    "alpamayo_r1.action_space.UnicycleAccelCurvatureActionSpace": f"alpamayo_r1.{UNICYCLE}",
    "alpamayo1_5.models.action_in_proj.": "alpagym_alpamayo_r1.submodules.action_in_proj.",
    "alpamayo1_5.models.delta_tokenizer.": "alpamayo_r1.models.delta_tokenizer.",
    "alpamayo1_5.diffusion.": "alpamayo1_x_rl.diffusion.",
    "alpamayo1_5.action_space.UnicycleAccelCurvatureActionSpace": f"alpamayo_r1.{UNICYCLE}",
    "alpamayo1_5.action_space.": "alpamayo_r1.action_space.",
}
"""Beginnings of classes' names, and what takes their place; the first that fits."""
FROM_TRAINING = {
    "alpagym_alpamayo_r1.submodules.action_in_proj.": "alpamayo1_5.models.action_in_proj.",
    "alpamayo1_x_rl.diffusion.": "alpamayo1_5.diffusion.",
    f"alpamayo_r1.{UNICYCLE}": "alpamayo1_5.action_space.UnicycleAccelCurvatureActionSpace",
    "alpamayo_r1.": "alpamayo1_5.",
}
BETWEEN_RELEASES = {
    f"{a}.{part}.": f"{b}.{part}."
    for a, b in (("alpamayo_r1", "alpamayo1_5"), ("alpamayo1_5", "alpamayo_r1"))
    for part in ("models.action_in_proj", "models.delta_tokenizer", "action_space", "diffusion")
}
MODULES = (
    r"alpamayo(_r1|1_5)\.models\.(action_in_proj|delta_tokenizer)",
    r"alpamayo(_r1|1_5)\.action_space(\.unicycle_accel_curvature|\.discrete_action_space)?",
    r"(alpamayo(_r1|1_5)|alpamayo1_x_rl)\.diffusion\.flow_matching",
    r"alpagym_alpamayo_r1\.submodules\.action_in_proj",
)
CLASSES = re.compile(rf"torch\.nn\.Linear|({'|'.join(MODULES)})\.[A-Z]\w*")
"""Classes that configurations may name: a loader calls what is named, whatever it is."""
FLAT = (
    ("vlm.model.language_model.", "model."),
    ("vlm.model.visual.", "visual."),
    ("vlm.lm_head.", "lm_head."),
)
"""Beginnings of weights' names in the releases and in exports."""


def layout_of(settings: Settings, names: Iterable[str]) -> str:
    """The layout of a checkpoint.

    Args:
        settings: of its configuration.
        names: of its weights.
    """
    if settings.kind in RELEASES:
        return settings.kind
    nested = any(name.startswith("vlm.") for name in names)
    return "training" if nested else "export"


def nested_name(name: str) -> str:
    """The name in the releases of a weight that may be named as in an export."""
    for nested, flat in FLAT:
        if name.startswith(flat):
            return nested + name[len(flat) :]
    return name


def flat_name(name: str) -> str:
    """The name in an export of a weight that is named as in the releases."""
    for nested, flat in FLAT:
        if name.startswith(nested):
            return flat + name[len(nested) :]
    return name


def constants(settings: Settings) -> dict[str, Tensor]:
    """What follows from the configuration, yet lies among the weights of some checkpoints.

    R1 and AlpaGym's training read it from there; 1.5 does not have it.
    """
    made = {
        f"action_space.{name}": torch.tensor(ACTION[name])
        for name in ("accel_mean", "accel_std", "curvature_mean", "curvature_std")
    }
    count = settings.features // 2
    waves = torch.logspace(0.0, math.log10(settings.max_frequency), count)[None]
    for part in ("sinus.0", "sinus.1", "timestep_fourier_encoder"):
        made[f"action_in_proj.{part}.freqs"] = waves.clone()
    return made


def convert_config(text: str, target: str, added: Iterable[str] = ()) -> str:
    """A `config.json` in another layout.

    Args:
        text: the file, of a supported model.
        target: one of `LAYOUTS`.
        added: names of constants that are added to the weights.

    Raises:
        ValueError: it names classes that are none of Alpamayo's, or becomes one that is not
            supported.
    """
    text, config = harmless(text)
    _check_classes(config)
    goal = target if target in RELEASES else TRAINED
    names = [] if target == "alpamayo1_5" else [*noted(config), *added]
    if config["model_type"] != goal:
        text = _kept(config) or text
        config = json.loads(text)
    kind = config["model_type"]
    if kind != goal:
        made = _converted(config, goal)
        alone = _written(_bare(config)) if noted(config) else text
        if kind in RELEASES and _written(_converted(made, kind)) != alone:
            made[KEPT] = text
        text, config = _written(made), made
    if noted(config) != names:
        rest = {name: part for name, part in config.items() if name != ADDED}
        text = _written(rest | ({ADDED: names} if names else {}))
    return text


def harmless(text: str) -> tuple[str, Any]:
    """JSON without `auto_map`, which names code to run, at any depth: its text and what it holds.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        found = json.loads(text)
        rest = _without(found, "auto_map")
    except RecursionError:
        raise ValueError("expected JSON, got one that is nested too deeply") from None
    return (text if rest == found else _written(rest)), rest


def noted(config: Mapping[str, Any]) -> list[str]:
    """Names of the constants that a conversion added to the weights."""
    names = config.get(ADDED)
    return [str(name) for name in names] if isinstance(names, list) else []


def _without(node: Any, name: str) -> Any:
    if isinstance(node, list):
        return [_without(part, name) for part in node]
    if not isinstance(node, dict):
        return node
    return {key: _without(part, name) for key, part in node.items() if key != name}


def _check_classes(node: Any) -> None:
    """Refuse classes at any depth that are none of Alpamayo's."""
    parts = node
    if isinstance(node, Mapping):
        target, parts = node.get("_target_"), list(node.values())
        if "_target_" in node and not (isinstance(target, str) and CLASSES.fullmatch(target)):
            raise ValueError(f"_target_: expected a class of Alpamayo's, got {target!r:.80}")
    if isinstance(parts, list):
        for part in parts:
            _check_classes(part)


def _kept(config: Mapping[str, Any]) -> str | None:
    """The release's text in a configuration, unless that was edited since."""
    try:
        text, release = harmless(config[KEPT])
        _check_classes(release)
        made = _converted(release, config["model_type"])
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    same = release["model_type"] in RELEASES and made == _bare(config)
    return text if same else None


def _bare(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in config.items() if name not in (KEPT, ADDED)}


def _converted(config: Mapping[str, Any], goal: str) -> dict[str, Any]:
    """In the layout of another type of model, whose prompts have the same words."""
    before, made = of(config), _bare(config)
    if made["model_type"] == TRAINED:
        made = _from_training(made)
    elif goal == TRAINED:
        made = _to_training(made)
    if made["model_type"] != goal:
        made = _renamed(made, BETWEEN_RELEASES)
        made |= {"model_type": goal, "architectures": [RELEASES[goal]]}
    after = of(made)
    for name, setting in PROMPTED.items():
        if getattr(after, setting) != getattr(before, setting):
            made[name] = getattr(before, setting)
    return made


def _to_training(release: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = _renamed(release, TO_TRAINING)
    config |= {"model_type": TRAINED, "architectures": ["ExpertModel"]}
    config["diffusion_cfg"]["x_dims"] = None
    config["expert_cfg"].pop("dtype", None)
    config.pop("add_special_tokens", None)
    return copy.deepcopy(TRAINING_TOO | TRAINING_ONLY) | config


def _from_training(training: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = _renamed(training, FROM_TRAINING)
    for name in TRAINING_ONLY:
        config.pop(name, None)
    kind = "alpamayo1_5"
    return config | {
        "model_type": kind,
        "architectures": [RELEASES[kind]],
        "add_special_tokens": True,
    }


def _renamed(node: Any, table: Mapping[str, str]) -> Any:
    """A copy with the classes named by `_target_` renamed, at any depth."""
    if isinstance(node, list):
        return [_renamed(part, table) for part in node]
    if not isinstance(node, Mapping):
        return node
    made = {name: _renamed(part, table) for name, part in node.items()}
    target = made.get("_target_")
    if isinstance(target, str):
        begins = next((old for old in table if target.startswith(old)), None)
        if begins is not None:
            made["_target_"] = table[begins] + target[len(begins) :]
    return made


def _written(config: Mapping[str, Any]) -> str:
    return json.dumps(config, indent=2) + "\n"
