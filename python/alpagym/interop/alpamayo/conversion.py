"""Alpamayo checkpoints from one layout into another, and trained weights into a checkpoint.

Weights are copied as bytes: what a conversion does not rename stays as it is, and converting back
gives the same files.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from alpagym.interop.alpamayo.checkpoints import TOKENIZER, load_tokenizer, vlm_folder
from alpagym.interop.alpamayo.layouts import (
    LAYOUTS,
    constants,
    convert_config,
    flat_name,
    harmless,
    layout_of,
    nested_name,
    noted,
)
from alpagym.interop.alpamayo.settings import Settings, read
from alpagym.interop.alpamayo.weights import INDEX, files_of, rewrite, table_of

if TYPE_CHECKING:
    from alpagym.interop.alpamayo.model import Alpamayo

COPIED = {".json", ".txt", ".jinja", ".model", ".md"}
"""Files that are copied beside weights, by the ends of their names; others could run code."""
LICENSES = ("license", "notice")
"""What names of licenses begin with, which may have no end."""
VLM_FILES = (
    *("preprocessor_config.json", "video_preprocessor_config.json", "chat_template.json"),
    *("chat_template.jinja", "generation_config.json"),
)
"""What trainers want beside the tokenizer, from the VLM's folder as far as it is there."""


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote."""

    source: str
    """Layout that was read."""
    target: str
    files: int
    """Of weights."""
    tensors: int
    nbytes: int
    tokenizer: bool
    """Whether there is one."""


def convert(
    source: str | Path,
    out: str | Path,
    target: str,
    *,
    vlm: str | Path | None = None,
    link: bool = False,
) -> Converted:
    """Write a checkpoint in another layout.

    Args:
        source: folder of a checkpoint.
        out: folder to write, which must not be there yet, or be empty.
        target: one of `layouts.LAYOUTS`.
        vlm: folder of the VLM, for a tokenizer with Alpamayo's tokens; needed for `training` and
            `export` where the source has none.
        link: link to files of weights that stay as they are, instead of copying them.

    Raises:
        ValueError: an unknown layout, a source that is no checkpoint, or an `out` that is taken.
    """
    if target not in LAYOUTS:
        raise ValueError(f"to: expected one of {', '.join(LAYOUTS)}, got {target or 'nothing'}")
    path, folder = Path(source), _Folder(Path(out))
    settings, found = read(path)
    files = files_of(path)
    names = [name for names in files.values() for name in names]
    rename, added = _plan(names, found, settings, target)
    try:
        config = convert_config((path / "config.json").read_text(), target, added)
    except ValueError as error:
        raise ValueError(f"{path / 'config.json'}: {error}") from None
    owns_tokenizer = (path / TOKENIZER).is_file()
    tokenizer = None
    if target in ("training", "export") and not owns_tokenizer:
        tokenizer = load_tokenizer(path, vlm)
    with folder as made:
        sizes = _write_weights(path, made, files, rename, added=added, link=link)
        (made / "config.json").write_text(config)
        _copy_rest(path, made)
        if tokenizer is not None:
            tokenizer.save_pretrained(made)
            for name in VLM_FILES:
                if (vlm_folder(settings, vlm) / name).is_file():
                    shutil.copyfile(vlm_folder(settings, vlm) / name, made / name)
        _disarm(made)
    return Converted(
        source=layout_of(settings, names),
        target=target,
        files=len(files),
        tensors=len(sizes),
        nbytes=sum(sizes.values()),
        tokenizer=owns_tokenizer or tokenizer is not None,
    )


def save(model: Alpamayo, source: str | Path, out: str | Path) -> Converted:
    """Write a model that was trained as a checkpoint of the layout that it was loaded from.

    Args:
        model: of `checkpoints.load`, LoRA merged. What it has learned, all but the VLM, is written
            in the precision of the source.
        source: folder that it was loaded from; its VLM is copied.
        out: folder to write, which must not be there yet, or be empty.

    Raises:
        ValueError: another model's source, or an `out` that is taken.
    """
    path, folder = Path(source), _Folder(Path(out))
    settings, _ = read(path)
    files = files_of(path)
    names = [name for names in files.values() for name in names]
    learned = {n: t for n, t in model.state_dict().items() if not n.startswith("vlm.")}
    if not learned.keys() <= {nested_name(name) for name in names}:
        odd = sorted(learned.keys() - {nested_name(name) for name in names})
        raise ValueError(f"{path}: expected {odd[0]} in it, as the model has; is LoRA not merged?")
    with folder as made:
        sizes = _write_weights(path, made, files, lambda name: name, replaced=learned)
        shutil.copyfile(path / "config.json", made / "config.json")
        _copy_rest(path, made)
        _disarm(made)
    layout = layout_of(settings, names)
    tokenizer = (path / TOKENIZER).is_file()
    return Converted(layout, layout, len(files), len(sizes), sum(sizes.values()), tokenizer)


def _plan(
    names: Sequence[str], config: Mapping[str, Any], settings: Settings, target: str
) -> tuple[Callable[[str], str | None], dict[str, Tensor]]:
    """The new name of each weight, and the constants that the target has and the source has not."""
    derived, dropped, added = constants(settings), set[str](), dict[str, Tensor]()
    if target == "alpamayo1_5":
        # Those of another's making stay, where 1.5 does not look for them.
        dropped = derived.keys() & set(noted(config))
    else:
        added = {n: t for n, t in derived.items() if n not in names}
    named = flat_name if target == "export" else (lambda name: name)
    return (lambda name: None if name in dropped else named(nested_name(name))), added


def _write_weights(
    path: Path,
    made: Path,
    files: Mapping[str, list[str]],
    rename: Callable[[str], str | None],
    *,
    replaced: Mapping[str, Tensor] | None = None,
    added: Mapping[str, Tensor] | None = None,
    link: bool = False,
) -> dict[str, int]:
    """All files of weights, and their index; returns bytes by tensor."""
    sizes: dict[str, int] = {}
    where: dict[str, str] = {}
    last = list(files)[-1]
    for file, names in files.items():
        extra = added if file == last else None
        same = all(rename(name) == name for name in names) and not extra
        if link and same:
            (made / file).symlink_to((path / file).resolve())
            written = {e.name: e.end - e.begin for e in table_of(path / file).entries}
        else:
            written = rewrite(path / file, made / file, rename, replaced=replaced, added=extra)
        twice = sorted(sizes.keys() & written.keys())
        if twice:
            raise ValueError(f"{path}: expected {twice[0]} once, got it in {where[twice[0]]} too")
        sizes |= written
        where |= dict.fromkeys(written, file)
    if (path / INDEX).is_file():
        index: dict[str, Any] = json.loads((path / INDEX).read_text())
        metadata = dict(index.get("metadata") or {}) | {"total_size": sum(sizes.values())}
        text = json.dumps(
            index | {"metadata": metadata, "weight_map": where}, indent=2, sort_keys=True
        )
        (made / INDEX).write_text(text + "\n")
    return sizes


def _copy_rest(path: Path, made: Path) -> None:
    """Tokenizer, processor and licenses."""
    for file in sorted(path.iterdir()):
        there = (made / file.name).exists() or file.name == INDEX
        license = not file.suffix and file.name.lower().startswith(LICENSES)
        if file.is_file() and not there and (license or file.suffix.lower() in COPIED):
            shutil.copyfile(file, made / file.name)


def _disarm(made: Path) -> None:
    """Drop from all settings written what names code to run."""
    for file in made.iterdir():
        if file.suffix.lower() == ".json":
            try:
                text = file.read_text()
                rest, _ = harmless(text)
            except ValueError as error:
                raise ValueError(f"{file.name}: expected JSON, got {error}") from None
            if rest != text:
                file.write_text(rest)


class _Folder:
    """A folder that appears when all of it is written, or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"out={folder}: expected a new or empty folder, got one with files")

    def __enter__(self) -> Path:
        self.part.mkdir(parents=True)
        return self.part

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None:
            shutil.rmtree(self.part)
            return
        if self.folder.exists():
            self.folder.rmdir()
        os.replace(self.part, self.folder)
