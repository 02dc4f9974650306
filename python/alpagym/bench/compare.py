"""`alpagym bench compare A.json B.json`: what changed, and whether it can be told from noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def compare(first: Path, second: Path) -> list[str]:
    """`metric first second ratio` for what both have; `~` marks a change within the spread.

    Lines with `#` tell where the machines or the options differ, and how many metrics only one has.

    Raises:
        ValueError: a file that cannot be read, or that `alpagym bench` did not write.
    """
    a, b = _read(first), _read(second)
    lines = []
    for name, before in a["metrics"].items():
        if name not in b["metrics"]:
            continue
        after = b["metrics"][name]
        old, new = before["value"], after["value"]
        ratio = new / old if old else float("inf") if new else 1.0
        noise = before["spread"] + after["spread"]
        mark = " ~" if abs(ratio - 1.0) <= noise else ""
        lines.append(f"{name} {old:.6g} {new:.6g} {ratio:.3f}{mark}")
    for part in ("machine", "options"):
        for key in sorted({*a[part], *b[part]}):
            values = [x[part].get(key) for x in (a, b)]
            if values[0] != values[1]:
                lines.append(f"# {key}: {values[0]} | {values[1]}")
    for path, one, other in ((first, a, b), (second, b, a)):
        alone = len(one["metrics"].keys() - other["metrics"].keys())
        if alone:
            lines.append(f"# {alone} metrics are only in {path}")
    return lines


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        stored = json.loads(text)
        for metric in stored["metrics"].values():
            float(metric["value"]), float(metric["spread"])
        return {"options": {}} | stored | {"machine": dict(stored["machine"])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected a JSON file of alpagym bench ({error})") from error
