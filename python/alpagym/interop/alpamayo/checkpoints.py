"""Alpamayo models from folders, and trained ones back into folders of the same layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alpagym.interop.alpamayo import vocabulary
from alpagym.interop.alpamayo.encoder import Waves
from alpagym.interop.alpamayo.layouts import constants, layout_of, nested_name
from alpagym.interop.alpamayo.model import Alpamayo, require
from alpagym.interop.alpamayo.settings import Settings, read
from alpagym.interop.alpamayo.weights import INDEX, files_of, table_of

CONSTANT_ERROR = 1e-2
"""How far, in proportion, constants in a file may be from what they stand for: bfloat16's."""
TOKENIZER = "tokenizer.json"
"""File that a tokenizer is read from."""
SHOWN = 3
"""Names of weights in a message."""


def load(
    folder: str | Path,
    vlm: str | Path | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    expert_dtype: torch.dtype = torch.float32,
) -> Alpamayo:
    """A model from a local checkpoint of Alpamayo 1 or 1.5, or of AlpaGym's training or export.

    Only safetensors are read; nothing is downloaded and no code of the checkpoint is run. Memory:
    the model and, on its way, one tensor.

    Args:
        folder: `config.json` and weights.
        vlm: folder of the VLM that the model was made from, for its `config.json` and tokenizer;
            None where the checkpoint's `vlm_name_or_path` is a folder.
        device: where to.
        dtype: of the VLM.
        expert_dtype: of the expert; in bfloat16 small steps of learning round to none.

    Raises:
        ValueError: files, weights or settings that are missing, broken, or not this model's; one
            sentence.
    """
    require()
    from safetensors import SafetensorError, safe_open

    path = Path(folder)
    settings, _ = read(path)
    files = files_of(path)
    with torch.device("meta"):
        model = Alpamayo(settings, vlm_config(settings, vlm))
    wanted = model.state_dict()
    _check(path, files, wanted, settings)
    state: dict[str, Tensor] = {}
    for file, names in files.items():
        try:
            with safe_open(path / file, "pt", device=str(device)) as opened:
                for stored in names:
                    name = nested_name(stored)
                    if name in wanted:
                        kind = dtype if name.startswith("vlm.") else expert_dtype
                        state[name] = opened.get_tensor(stored).to(kind)
                    else:
                        _check_constant(path / file, stored, opened.get_tensor(stored), settings)
        except SafetensorError as error:
            raise ValueError(f"{path / file}: expected a safetensors file: {error}") from None
    model.load_state_dict(state, assign=True)
    _restore(model, torch.device(device))
    return model.eval()


def vlm_folder(settings: Settings, vlm: str | Path | None) -> Path:
    """The local folder of a model's VLM.

    Raises:
        ValueError: there is none.
    """
    folder = Path(vlm if vlm is not None else settings.vlm)
    if not (folder / "config.json").is_file():
        given = "vlm" if vlm is not None else "vlm_name_or_path"
        raise ValueError(
            f"{given}: expected a local folder with the config.json and tokenizer of the model's "
            f"VLM ({settings.vlm or 'not named'}), got {folder}"
        )
    return folder


def vlm_config(settings: Settings, vlm: str | Path | None) -> Any:
    """`transformers.Qwen3VLConfig` of a model's VLM.

    Raises:
        ValueError: no such folder, or a configuration of another model.
    """
    from transformers import Qwen3VLConfig

    folder = vlm_folder(settings, vlm)
    found, _ = Qwen3VLConfig.get_config_dict(folder, local_files_only=True)
    if found.get("model_type") != Qwen3VLConfig.model_type:
        raise ValueError(
            f"{folder / 'config.json'}: expected model_type {Qwen3VLConfig.model_type}, "
            f"got {found.get('model_type')}"
        )
    return Qwen3VLConfig(**_harmless(found))


def _harmless(node: Any) -> Any:
    """A copy without what could choose code (classes, kernels of attention), at any depth."""
    if isinstance(node, list):
        return [_harmless(part) for part in node]
    if not isinstance(node, dict):
        return node
    return {
        name: _harmless(part)
        for name, part in node.items()
        if not name.startswith("_") and name != "auto_map" and "_implementation" not in name
    }


def load_tokenizer(folder: str | Path, vlm: str | Path | None = None) -> Any:
    """The tokenizer of a checkpoint, or of its VLM with Alpamayo's tokens added.

    Arguments are those of `load`.

    Raises:
        ValueError: no tokenizer, or one that does not fit the model.
    """
    require()
    from transformers import PreTrainedTokenizerFast

    settings, _ = read(Path(folder))
    own = Path(folder)
    place = own if (own / TOKENIZER).is_file() else vlm_folder(settings, vlm)
    if not (place / TOKENIZER).is_file():
        raise ValueError(f"{place}: expected a tokenizer, found no {TOKENIZER}")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(place, local_files_only=True)
    return vocabulary.extend(tokenizer, settings)


def _check(
    path: Path, files: dict[str, list[str]], wanted: dict[str, Tensor], settings: Settings
) -> None:
    """Compare names and shapes before gigabytes are read.

    Raises:
        ValueError: weights that are missing, twice there, of another shape or of no part of the
            model.
    """
    known = set(constants(settings))
    seen: dict[str, str] = {}
    for file, names in files.items():
        shapes = {e.name: e.shape for e in table_of(path / file).entries}
        for stored in names:
            name = nested_name(stored)
            if name in seen:
                raise ValueError(f"{path}: expected {name} once, got it in {seen[name]} and {file}")
            seen[name] = file
            if name in wanted and tuple(wanted[name].shape) != shapes[stored]:
                raise ValueError(
                    f"{path / file}: expected {stored} of shape {list(wanted[name].shape)}, as "
                    f"config.json has it, got {list(shapes[stored])}"
                )
    layout = layout_of(settings, (name for names in files.values() for name in names))
    missing = sorted(set(wanted) - set(seen))
    if missing:
        raise ValueError(
            f"{path}: expected all weights of {layout}, missing {_some(missing)}; is a file of "
            f"{INDEX} not there?"
        )
    odd = sorted(set(seen) - set(wanted) - known)
    if odd:
        raise ValueError(
            f"{path}: expected no other weights than those of {layout}, got {_some(odd)}"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _check_constant(file: Path, name: str, stored: Tensor, settings: Settings) -> None:
    """Refuse constants among the weights that are not what the configuration says."""
    value = constants(settings)[name]
    got = stored.float().cpu()
    fits = got.shape == value.shape and torch.allclose(got, value, rtol=CONSTANT_ERROR, atol=0.0)
    if not fits:
        raise ValueError(
            f"{file}: expected {name} to be {value.flatten()[:3].tolist()}, as its configuration "
            f"has it, got {got.flatten()[:3].tolist()}"
        )


def _restore(model: nn.Module, device: torch.device) -> None:
    """Make what no file holds, and what making the model without memory left out."""
    for module in model.modules():
        if isinstance(module, Waves):
            module.freqs = module.derived(device)
        elif any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            # Tables of rotary positions, which follow from the configuration.
            made: nn.Module = type(module)(module.config)
            for name, buffer in made.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))
