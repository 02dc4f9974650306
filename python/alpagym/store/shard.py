"""Shards: what one says in its header, how it is written, and scenarios out of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpagym.scenarios.scenario import Scenario, ScenarioError
from alpagym.store import container
from alpagym.store.checks import check_arrays, checksum
from alpagym.store.layout import SCHEMA, Cutter, joined

SUFFIX = ".safetensors"
REPORT = "convert.json"
"""What `alpagym convert` writes beside the shards about them."""
MAX_TEXTS = 1 << 20
"""A scenario of which the texts take more in a header is not stored [bytes]."""
TEXTS = ("id", "dataset", "license", "kind", "source")
"""What the header says of each scenario, besides its notes and its file."""


@dataclass(frozen=True)
class SourceFile:
    """A file that scenarios were converted from."""

    name: str
    """Path below what was converted, so that it says the same on every machine."""
    sha256: str


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_shard(
    path: Path,
    scenarios: Sequence[Scenario],
    *,
    files: Sequence[SourceFile] = (),
    file_of: Sequence[int] = (),
    version: str = "",
) -> None:
    """Write scenarios into one file, whole or not at all; the same bytes for the same input.

    Args:
        path: to write, ending in `.safetensors`.
        scenarios: at least one.
        files: that they come from, if from files.
        file_of: for each scenario the index of its file.
        version: of the converter.

    Raises:
        ScenarioError: a scenario that could not be read again.
        OSError: the file cannot be written.
    """
    if not scenarios:
        raise ScenarioError(f"{path}: expected at least one scenario to write, got none")
    arrays = joined(scenarios)
    check_arrays(str(path), arrays, {})
    told = [_texts(s) | {"file": file_of[i] if file_of else -1} for i, s in enumerate(scenarios)]
    text = json.dumps(
        {
            "schema": SCHEMA,
            "converter": version,
            "files": [{"name": f.name, "sha256": f.sha256} for f in files],
            "sums": {name: checksum(array) for name, array in sorted(arrays.items())},
            "scenarios": told,
        },
        separators=(",", ":"),
    )
    container.write(path, text, arrays)


def refusal(scenario: Scenario) -> ScenarioError | None:
    """Why a scenario cannot be stored; None if it can."""
    try:
        told = _texts(scenario)
        if not is_unicode("".join([*scenario.notes, *(told[name] for name in TEXTS)])):
            raise ScenarioError(f"{scenario.source:.200}: a text, perhaps its path, is no Unicode")
        if (taken := length_of(told)) > MAX_TEXTS:
            raise ScenarioError(
                f"{scenario.source:.200}: its texts take {taken} bytes, at most {MAX_TEXTS} are "
                "stored"
            )
        check_arrays(scenario.source, joined([scenario]), {})
    except ScenarioError as error:
        return error
    return None


def _texts(scenario: Scenario) -> dict[str, Any]:
    """What the header says of a scenario, but for its file."""
    return {name: getattr(scenario, name) for name in TEXTS} | {"notes": scenario.notes}


def length_of(value: Any) -> int:
    """What a value takes in a header [bytes], where it is JSON inside of JSON."""
    return len(json.dumps(json.dumps(value, separators=(",", ":"))))


def size_of(scenario: Scenario) -> tuple[int, int]:
    """What a scenario adds to a shard [bytes]: to its arrays, and to its header."""
    parts = (scenario.tracks, scenario.map, scenario.lights, scenario.routes)
    arrays = [array for part in parts for array in vars(part).values() if array is not None]
    return sum(array.nbytes for array in arrays), length_of(_texts(scenario)) + 32


class Shard:
    """An open shard: mapped into memory and checked, so that taking scenarios out cannot fail.

    The file must not be changed in place as long as one of its scenarios is in use; writing a new
    one of its name, as `write_shard` does, is fine.
    """

    def __init__(self, path: str | Path) -> None:
        """Open and check a shard.

        Raises:
            ScenarioError: it is damaged, or of another schema; one sentence with file and field.
            OSError: it cannot be read.
        """
        self.path = Path(path)
        mapped = container.read(self.path)
        header = container.parse_json(f"{path}: header: {container.MARK}", mapped.text)
        self.header = _checked_header(self.path, header)
        self.files = [SourceFile(**file) for file in self.header["files"]]
        self.arrays = mapped.arrays
        check_arrays(str(path), self.arrays, self.header["sums"])
        self._told = self.header["scenarios"]
        if len(self._told) != len(self.arrays["dt"]):
            raise ScenarioError(
                f"{path}: header: scenarios: expected {len(self.arrays['dt'])} as in the arrays, "
                f"got {len(self._told)}"
            )
        self._cutter = Cutter(self.arrays)

    def __len__(self) -> int:
        return len(self._told)

    def told(self, i: int) -> dict[str, Any]:
        """What the header says of scenario `i`: `TEXTS`, `notes` and the index of its `file`."""
        return dict(self._told[i])

    def scenario(self, i: int) -> Scenario:
        """Scenario `i`; its arrays are views of the file, which writing to them leaves alone."""
        told = self._told[i]
        return self._cutter.scenario(
            i, notes=list(told["notes"]), **{name: told[name] for name in TEXTS}
        )

    def __iter__(self) -> Iterator[Scenario]:
        return (self.scenario(i) for i in range(len(self)))


def _checked_header(path: Path, header: Any) -> dict[str, Any]:
    """The header, every value of the kind that it must be."""
    place = f"{path}: header"
    if not isinstance(header, dict):
        raise ScenarioError(f"{place}: expected an object, got {type(header).__name__}")
    schema = header.get("schema")
    if type(schema) is not int or schema < 1:
        raise ScenarioError(f"{place}: schema: expected a version, got {schema!r:.40}")
    if schema != SCHEMA:
        told = f"alpagym {header.get('converter')!s:.40}"
        raise ScenarioError(
            f"{place}: schema: expected {SCHEMA}, got {schema}: written by {told}, a newer one"
        )
    files, sums, scenarios = (header.get(name) for name in ("files", "sums", "scenarios"))
    if not _all_of(files, {"name": str, "sha256": str}):
        raise ScenarioError(f"{place}: files: expected a name and sha256 of each")
    assert isinstance(files, list)
    if not isinstance(sums, dict) or not all(type(n) is int for n in sums.values()):
        raise ScenarioError(f"{place}: sums: expected a whole number for each array")
    if not _all_of(scenarios, {**dict.fromkeys(TEXTS, str), "notes": list, "file": int}):
        raise ScenarioError(
            f"{place}: scenarios: expected {', '.join(TEXTS)}, notes and file of each"
        )
    assert isinstance(scenarios, list)
    for i, told in enumerate(scenarios):
        if not all(type(note) is str for note in told["notes"]):
            raise ScenarioError(f"{place}: scenarios: {i}: notes: expected texts")
        texts = "".join([*told["notes"], *(told[name] for name in TEXTS)])
        if not is_unicode(texts):
            raise ScenarioError(f"{place}: scenarios: {i}: a text is no Unicode")
        if not -1 <= told["file"] < len(files):
            raise ScenarioError(f"{place}: scenarios: {i}: file: expected below {len(files)}")
    return header


def is_unicode(text: str) -> bool:
    """Whether a text has no halves of characters, as paths do that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _all_of(entries: Any, kinds: dict[str, type]) -> bool:
    """Whether this is a list of objects with exactly these keys and kinds of values."""
    return isinstance(entries, list) and all(
        isinstance(entry, dict)
        and entry.keys() == kinds.keys()
        and all(type(entry[key]) is kind for key, kind in kinds.items())
        for entry in entries
    )


def sniff(head: bytes, path: Path) -> bool:
    """Whether a file is a shard."""
    return container.is_ours(head)


def part(path: Path) -> bool:
    """Whether a file is the report beside shards."""
    return path.name == REPORT and any(path.parent.glob(f"*{SUFFIX}"))


def read(path: Path) -> Iterator[Scenario | ScenarioError]:
    """Scenarios of a shard."""
    yield from Shard(path)
