"""Curves of a run as inline SVG, with the values beside them for the hover read-out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alpagym.render.format import format_number
from alpagym.render.page import escape

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 10, 26
MAX_POINTS = 400
NUM_COLORS = 8

# Title, phases, and what a key must contain; the first group that matches takes the key.
GROUPS = (
    ("Imitation loss", {"imitation"}, re.compile(r"loss|nll")),
    ("Reward terms", {"grpo"}, re.compile(r"^reward")),
    ("Return", {"grpo"}, re.compile(r"return")),
    ("Dead groups", {"grpo"}, re.compile(r"dead")),
    ("Failures", {"grpo", "eval", "validation"}, re.compile(r"failure|(collision|offroad).*rate")),
    ("Progress and score", {"grpo", "eval", "validation"}, re.compile(r"progress|score")),
    ("KL", {"grpo"}, re.compile(r"(^|[_/])(approx_)?kl")),
    ("Ratio and clipping", {"grpo"}, re.compile(r"ratio|clip")),
    ("Entropy", {"grpo"}, re.compile(r"entropy")),
    ("Throughput", {"imitation", "grpo"}, re.compile(r"per_s(ec(ond)?)?$|throughput")),
)
NOT_CURVES = {"phase", "step", "wall_s"}


@dataclass
class Chart:
    """Series over a common step axis."""

    title: str
    x_label: str
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """(step, value) by name, value possibly NaN."""


def charts_of(history: Iterable[Mapping[str, Any]]) -> tuple[list[Chart], list[Chart]]:
    """Arrange the numbers of a run's history.

    Args:
        history: Rows with `phase`, `step` and any numbers; nested mappings count as `outer/inner`.

    Returns:
        The well-known charts in order of `GROUPS`, and one chart for each key that no group takes.
    """
    known: dict[tuple[str, str], Chart] = {}
    others: dict[tuple[str, str], Chart] = {}
    for index, row in enumerate(history):
        phase = str(row.get("phase", ""))
        step = _number(row.get("step"))
        x = float(index) if step is None or math.isnan(step) else step
        for key, value in _flat(row):
            number = _number(value)
            if key in NOT_CURVES or number is None:
                continue
            title = next(
                (t for t, phases, match in GROUPS if phase in phases and match.search(key)), None
            )
            # Evaluations lie on the step axis of what they evaluate.
            axis = (
                "imitation"
                if phase == "imitation"
                else "grpo"
                if phase in ("grpo", "eval", "validation")
                else phase
            )
            if title is None:
                name = f"{phase}: {key}" if phase else key
                chart = others.setdefault((name, axis), Chart(name, f"{axis} step"))
            else:
                chart = known.setdefault((title, axis), Chart(title, f"{axis} step"))
            mark = {"eval": " (evaluation)", "validation": " (validation)"}.get(phase, "")
            name = f"{key}{mark}"
            chart.series.setdefault(name, []).append((x, number))
    order = [title for title, _, _ in GROUPS]
    arranged = sorted(known.values(), key=lambda c: order.index(c.title))
    repeated = {c.title for c in arranged if sum(d.title == c.title for d in arranged) > 1}
    for chart in arranged:
        if chart.title in repeated:
            chart.title += f", {chart.x_label.removesuffix(' step')}"
    return arranged, list(others.values())


def chart_html(chart: Chart) -> str:
    """One figure: SVG with axes, a legend, and the values for the read-out. Never fails on NaN."""
    series = {name: _thin(sorted(points)) for name, points in chart.series.items()}
    stride = max((thin[1] for thin in series.values()), default=1)
    drawn = {name: thin[0] for name, thin in series.items() if np.isfinite(thin[0][:, 1]).any()}
    missing = [name for name in series if name not in drawn]
    if not drawn:
        body = '<p class="muted">no finite values</p>'
    else:
        body = _svg(chart, drawn) + _legend(drawn)
    note = f"each point is the mean of {stride} rows" if stride > 1 else ""
    if missing and drawn:
        note += f"{'; ' if note else ''}no finite values: {', '.join(missing)}"
    return (
        f'<figure class="chart"><figcaption>{escape(chart.title)}</figcaption>{body}'
        + (f'<p class="note">{escape(note)}</p>' if note else "")
        + "</figure>"
    )


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round values within [low, high]."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= span / count * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [0.0 if k == 0 else k * step for k in range(first, last + 1)]


def _svg(chart: Chart, drawn: Mapping[str, np.ndarray]) -> str:
    every = np.concatenate(list(drawn.values()))
    finite = every[np.isfinite(every[:, 1]), 1]
    x0, x1 = _span(every[:, 0], pad=0.0)
    y0, y1 = _span(finite, pad=0.06)
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def to_x(value: float) -> float:
        return LEFT + (value - x0) / (x1 - x0) * inner_width

    def to_y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y0) / (y1 - y0) * inner_height

    parts = []
    for tick in ticks(y0, y1):
        y = to_y(tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{format_number(tick)}</text>'
        )
    for tick in ticks(x0, x1):
        label = format_number(tick)
        parts.append(
            f'<text x="{to_x(tick):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{label}</text>'
        )
    for index, points in enumerate(drawn.values()):
        parts.append(_curve(points, index, to_x, to_y))
    parts.append(
        f'<line class="cursor" x1="0" x2="0" y1="{TOP}" y2="{HEIGHT - BOTTOM}" '
        'visibility="hidden"/>'
    )
    data = {
        "left": LEFT / WIDTH,
        "right": RIGHT / WIDTH,
        "x0": x0,
        "x1": x1,
        "label": chart.x_label,
        "series": [
            {"x": _compact(points[:, 0]), "y": _compact(points[:, 1])} for points in drawn.values()
        ],
    }
    summary = "; ".join(
        f"{name} ends at {format_number(_last(points))}" for name, points in drawn.items()
    )
    label = escape(f"{chart.title}: {summary}")
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" '
        f'data-chart="{escape(json.dumps(data, separators=(",", ":")))}">{"".join(parts)}</svg>'
    )


def _curve(
    points: np.ndarray, index: int, to_x: Callable[[float], float], to_y: Callable[[float], float]
) -> str:
    """A polyline broken at NaN; few points get marks, so that a lone one can be seen."""
    color = f"s{index % NUM_COLORS}"
    path, down = [], False
    marks = []
    for x, y in points:
        if not math.isfinite(y):
            down = False
            continue
        path.append(f"{'L' if down else 'M'}{to_x(x):.1f} {to_y(y):.1f}")
        down = True
        if len(points) <= 30:
            marks.append(f'<circle class="{color}" cx="{to_x(x):.1f}" cy="{to_y(y):.1f}" r="2.2"/>')
    return f'<path class="{color}" d="{"".join(path)}"/>{"".join(marks)}'


def _legend(drawn: Mapping[str, np.ndarray]) -> str:
    items = []
    for index, (name, points) in enumerate(drawn.items()):
        label = escape(name.removeprefix("reward/").replace("_", " "))
        last = format_number(_last(points))
        items.append(
            f'<li><i class="s{index % NUM_COLORS}"></i>{label} '
            f'<output data-last="{last}">{last}</output></li>'
        )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _thin(points: Sequence[tuple[float, float]]) -> tuple[np.ndarray, int]:
    """At most `MAX_POINTS` points [n, 2], each the mean of `stride` rows; and that stride."""
    array = np.array(points, np.float64)
    array[~np.isfinite(array[:, 1]), 1] = np.nan
    stride = -(-len(array) // MAX_POINTS)
    if stride == 1:
        return array, 1
    buckets = np.array_split(array, -(-len(array) // stride))
    rows = []
    for bucket in buckets:
        values = bucket[np.isfinite(bucket[:, 1]), 1]
        rows.append((bucket[-1, 0], values.mean() if len(values) else math.nan))
    return np.array(rows), stride


def _span(values: np.ndarray, pad: float) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-12 * max(1.0, abs(high)):
        margin = 0.5 if low == 0 else abs(low) * 0.5
        return low - margin, high + margin
    return low - pad * (high - low), high + pad * (high - low)


def _compact(values: np.ndarray) -> list[float | None]:
    return [float(f"{v:.4g}") if math.isfinite(v) else None for v in values]


def _last(points: np.ndarray) -> float:
    finite = points[np.isfinite(points[:, 1]), 1]
    return float(finite[-1]) if len(finite) else math.nan


def _number(value: Any) -> float | None:
    """A float, possibly NaN; None for what is not a number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        return None
    number = float(value)
    return number if math.isfinite(number) else math.nan


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value
