"""The run report: what training changed, as one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.atomic import write_atomically
from alpagym.render.charts import chart_html, charts_of
from alpagym.render.format import (
    DASH,
    count,
    decimal,
    duration,
    finite,
    format_number,
    percent,
    plain,
    words,
)
from alpagym.render.page import build_page, escape
from alpagym.render.replay import Rollout, failed, first_incident, replay_json

# Key, label, whether it is a share, and which direction is better.
METRICS = (
    ("failure_rate", "Failure rate", True, -1),
    ("collision_at_fault_rate", "At-fault collisions", True, -1),
    ("collision_any_rate", "All collisions", True, -1),
    ("offroad_rate", "Offroad", True, -1),
    ("progress", "Progress", False, 1),
    ("scene_score", "Scene score", False, 1),
)
SECTIONS = (
    ("fixed", "Fixed", "Failed before training, passes after it."),
    ("still_failing", "Still failing", "Fails before and after training."),
    ("newly_broken", "Newly broken", "Passed before training, fails after it."),
    ("still_passing", "Still passing", "Passes before and after training."),
)


@dataclass
class ReplayGroup:
    """Rollouts of one scenario, the policy before training first and the one after it last."""

    rollouts: list[Rollout]

    @property
    def outcome(self) -> str:
        """One of the keys of `SECTIONS`."""
        before, after = failed(self.rollouts[0]), failed(self.rollouts[-1])
        if before:
            return "still_failing" if after else "fixed"
        return "newly_broken" if after else "still_passing"


def write_report(
    path: str | Path,
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    replays: Sequence[ReplayGroup],
) -> Path:
    """Write the report of one run.

    Whatever is absent, None or NaN shows as a dash; keys this function does not know are listed.

    Args:
        path: The HTML file to write.
        summary: `before` and `after`, each with `num_scenarios`, the rates and scores of `METRICS`
            and their `<key>_ci95` as [low, high]. Optionally `name`; `train` with `agent_steps` and
            `agent_steps_per_s`; `wall_s` [s], `device`, `commit`; `licenses` (names, or counts by
            name); `config` (a tree); `by_kind`, failure rates as
            {kind: {num_scenarios, before, after}}; `outcomes`, counts of scenarios by the keys of
            `SECTIONS`.
        history: Rows of `metrics.jsonl`: `phase` ("imitation", "grpo" or "eval"), `step`, numbers.
        replays: Scenarios to show.

    Raises:
        ValueError: a replay holds rollouts that do not fit together.
    """
    ordered = [g for key, _, _ in SECTIONS for g in replays if g.outcome == key]
    name = str(summary.get("name") or "Training run")
    body = (
        f'<main><header><p class="eyebrow">AlpaGym run report</p><h1>{escape(name)}</h1>'
        f'<p class="verdict">{escape(verdict(summary))}</p></header>'
        f"{_results(summary)}{_replays(ordered, _mapping(summary, 'outcomes'))}"
        f"{_by_kind(_mapping(summary, 'by_kind'))}{_curves(history)}{_facts(summary)}</main>"
        '<dialog id="viewer" aria-label="Replay"><header><h2></h2>'
        '<button type="button" data-close aria-label="Close the replay">Close</button></header>'
        '<div class="body"></div></dialog>'
    )
    page = build_page(
        title=f"{name} · AlpaGym",
        body=body,
        replays=[replay_json(group.rollouts) for group in ordered],
        scripts=("scene.js", "backdrop.js", "plot.js", "player.js", "report.js"),
        styles=("player.css", "report.css"),
    )
    return write_atomically(Path(path), lambda to: to.write_text(page, encoding="utf-8"))


def verdict(summary: Mapping[str, Any]) -> str:
    """The result in one sentence."""
    before, after = _mapping(summary, "before"), _mapping(summary, "after")
    old, new = finite(before.get("failure_rate")), finite(after.get("failure_rate"))
    number = finite(after.get("num_scenarios"))
    where = f" on {number:,.0f} held-out scenarios" if number is not None else ""
    if old is None or new is None:
        return "This run has no failure rate before and after training to compare."
    change = f"from {percent(old)} to {percent(new)}{where}"
    old_ci, new_ci = _interval(before, "failure_rate"), _interval(after, "failure_rate")
    if old == new:
        return f"GRPO left the closed-loop failure rate at {percent(new)}{where}."
    verb = "cut" if new < old else "raised"
    if old_ci is None or new_ci is None:
        proof = ""
    elif new_ci[1] < old_ci[0] or old_ci[1] < new_ci[0]:
        proof = "; the 95 % intervals do not touch"
    else:
        proof = "; the 95 % intervals overlap, so this may be chance"
    return f"GRPO {verb} the closed-loop failure rate {change}{proof}."


def _results(summary: Mapping[str, Any]) -> str:
    before, after = _mapping(summary, "before"), _mapping(summary, "after")
    known = {key for key, *_ in METRICS} | {"num_scenarios", "num_recordings"}
    extra = [k for k in {**before, **after} if k not in known and not str(k).endswith("_ci95")]
    extra = [
        k for k in extra if finite(before.get(k)) is not None or finite(after.get(k)) is not None
    ]
    metrics = list(METRICS) + [
        (k, words(k).capitalize(), str(k).endswith("_rate"), 0) for k in extra
    ]
    shares = [
        v
        for key, _, share, _ in metrics
        if share
        for v in _values(before, key) + _values(after, key)
    ]
    top = _ceiling(max(shares, default=1.0))
    rows = []
    for key, label, share, better in metrics:
        old, new = finite(before.get(key)), finite(after.get(key))
        shown = percent if share else decimal
        span = top if share else max([1.0, *_values(before, key), *_values(after, key)])
        rows.append(
            f'<tr><th scope="row">{escape(label)}</th><td>{_estimate(before, key, shown)}</td>'
            f"<td>{_estimate(after, key, shown)}</td>{_change(old, new, share, better)}"
            f'<td class="strip">{_strip(before, after, key, span)}</td></tr>'
        )
    sizes = {"before": before.get("num_scenarios"), "after": after.get("num_scenarios")}
    known_sizes = [f"{when} {count(n)}" for when, n in sizes.items() if finite(n) is not None]
    basis = f" Scenarios: {', '.join(known_sizes)}." if known_sizes else ""
    return (
        "<section><h2>Before and after</h2><p class='muted'>Closed loop on held-out scenarios, "
        "with 95 % intervals. "
        f"A failure is an at-fault collision or leaving the road.{basis}</p>"
        '<table class="results"><thead><tr><th></th><th><i class="dot"></i>Before</th>'
        '<th><i class="dot run1"></i>After</th><th>Change</th>'
        f'<th class="strip">0 to {percent(top, digits=0)}; scores 0 to 1</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></section>"
    )


def _estimate(values: Mapping[str, Any], key: str, shown: Callable[[float | None], str]) -> str:
    interval = _interval(values, key)
    text = f"[{shown(interval[0])}, {shown(interval[1])}]".replace(" %,", ",") if interval else ""
    return f'{shown(finite(values.get(key)))}<span class="ci">{text}</span>'


def _change(old: float | None, new: float | None, share: bool, better: int) -> str:
    if old is None or new is None:
        return f"<td>{DASH}</td>"
    difference = new - old
    text = f"{100 * difference:+.1f} points" if share else f"{difference:+.3f}"
    direction = better * difference
    kind = "better" if direction > 0 else "worse" if direction < 0 else ""
    return f'<td class="{kind}">{text.replace("-", "−")}</td>'


def _strip(before: Mapping[str, Any], after: Mapping[str, Any], key: str, top: float) -> str:
    """Both estimates with their intervals on one axis from 0 to `top`."""
    parts = ['<line class="base" x1="4" x2="196" y1="13" y2="13"/>']
    for values, kind, y in ((before, "before", 8), (after, "after", 18)):
        value, interval = finite(values.get(key)), _interval(values, key)
        if value is None:
            continue
        low, value, high = _place(value, interval, top)
        parts.append(f'<line class="{kind}" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="{kind}" cx="{value:.1f}" cy="{y}" r="3.5"/>')
    return f'<svg viewBox="0 0 200 26" aria-hidden="true">{"".join(parts)}</svg>'


def _place(
    value: float, interval: tuple[float, float] | None, top: float
) -> tuple[float, float, float]:
    low, high = interval or (value, value)

    def place(v: float) -> float:
        return 4 + 192 * min(max(v / top, 0.0), 1.0)

    return place(low), place(value), place(high)


def _replays(groups: Sequence[ReplayGroup], totals: Mapping[str, Any]) -> str:
    parts = []
    for key, title, text in SECTIONS:
        indices = [i for i, group in enumerate(groups) if group.outcome == key]
        total = finite(totals.get(key))
        if not indices and (not total or key == "still_passing"):
            continue
        shown = (
            f" Showing {len(indices)} of {total:,.0f}."
            if total is not None and total > len(indices)
            else ""
        )
        cards = "".join(_card(i, groups[i], key) for i in indices)
        parts.append(
            f'<section><h2>{title}</h2><p class="muted">{text}{shown}</p>'
            f'<div class="cards">{cards}</div></section>'
        )
    return "".join(parts)


def _card(index: int, group: ReplayGroup, outcome: str) -> str:
    """A thumbnail of the first incident, which opens the replay."""
    scenario = group.rollouts[0].scenario
    run = 0 if outcome == "fixed" else len(group.rollouts) - 1
    stories = "".join(f"<span>{escape(_story(rollout))}</span>" for rollout in group.rollouts)
    label = escape(f"Open the replay of {scenario.id}")
    return (
        f'<button type="button" class="card" data-replay="{index}" data-run="{run}" '
        f'aria-label="{label}">'
        f"<canvas></canvas><strong>{escape(words(scenario.kind) or scenario.id)}</strong>"
        f"{stories}</button>"
    )


def _story(rollout: Rollout) -> str:
    incident = first_incident(rollout)
    label = rollout.label or "rollout"
    if incident is None:
        progress = finite(rollout.metrics.get("progress_fraction"))
        how = "no incident" if progress is None else f"no incident, progress {progress:.2f}"
        return f"{label}: {how}"
    blame = "" if incident.at_fault else ", not at fault"
    return f"{label}: {incident.name} at {(incident.step + 1) * rollout.scenario.dt:.1f} s{blame}"


def _by_kind(kinds: Mapping[str, Any]) -> str:
    if not kinds:
        return ""
    rows = []
    entries = {str(kind): entry for kind, entry in kinds.items() if isinstance(entry, Mapping)}
    for kind, entry in sorted(
        entries.items(), key=lambda item: -(finite(item[1].get("before")) or 0.0)
    ):
        old, new = finite(entry.get("before")), finite(entry.get("after"))
        rows.append(
            f'<tr><th scope="row">{escape(words(kind) or "unnamed")}</th>'
            f"<td>{count(entry.get('num_scenarios'))}</td>"
            f"<td>{percent(old)}</td><td>{percent(new)}</td>{_change(old, new, True, -1)}"
            f'<td class="strip">{_strip({"r": old}, {"r": new}, "r", 1.0)}</td></tr>'
        )
    return (
        '<section><h2>Failures by kind of scenario</h2><table class="results"><thead><tr><th></th>'
        "<th>Scenarios</th>"
        '<th><i class="dot"></i>Before</th><th><i class="dot run1"></i>After</th><th>Change</th>'
        f'<th class="strip">0 to 100 %</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
        "</section>"
    )


def _curves(history: Sequence[Mapping[str, Any]]) -> str:
    known, others = charts_of(history)
    if not known and not others:
        return ""
    more = "".join(chart_html(chart) for chart in others)
    if more:
        more = (
            f"<details><summary>More curves ({len(others)})</summary>"
            f'<div class="charts">{more}</div></details>'
        )
    charts = "".join(chart_html(chart) for chart in known)
    return f'<section><h2>Curves</h2><div class="charts">{charts}</div>{more}</section>'


def _facts(summary: Mapping[str, Any]) -> str:
    train = _mapping(summary, "train")
    licenses = summary.get("licenses") or ""
    if isinstance(licenses, Mapping):
        names = ", ".join(f"{name} ({count(n)} scenarios)" for name, n in licenses.items())
    elif isinstance(licenses, (list, tuple, set)):
        names = ", ".join(str(name) for name in licenses)
    else:
        names = str(licenses)
    rate = finite(train.get("agent_steps_per_s"))
    facts = {
        "Device": summary.get("device"),
        "Commit": summary.get("commit"),
        "Wall time": duration(finite(summary.get("wall_s"))),
        "Agent steps": count(train.get("agent_steps")),
        "Agent steps per second": DASH if rate is None else format_number(rate),
        "Data licenses": names,
    }
    told = {
        "before",
        "after",
        "train",
        "wall_s",
        "device",
        "commit",
        "licenses",
        "config",
        "baselines",
        "on_training_scenarios",
        "by_kind",
        "outcomes",
        "name",
    }
    rest = {k: v for k, v in summary.items() if k not in told}
    rest |= {
        f"train.{k}": v for k, v in train.items() if k not in ("agent_steps", "agent_steps_per_s")
    }
    facts |= {words(k).capitalize(): v for k, v in _flat(rest)}
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(plain(v))}</dd>" for k, v in facts.items())
    config = "\n".join(f"{k}: {plain(v)}" for k, v in _flat(_mapping(summary, "config")))
    shown = (
        f"<details><summary>Configuration</summary><pre>{escape(config)}</pre></details>"
        if config
        else ""
    )
    return f'<section><h2>The run</h2><dl class="facts-list">{rows}</dl>{shown}</section>'


def _mapping(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = tree.get(key)
    return value if isinstance(value, Mapping) else {}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in tree.items():
        nested = isinstance(value, Mapping) and value
        rows += _flat(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return rows


def _interval(values: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    pair = values.get(f"{key}_ci95")
    if not isinstance(pair, (list, tuple, np.ndarray)) or len(pair) != 2:
        return None
    low, high = finite(pair[0]), finite(pair[1])
    return None if low is None or high is None else (low, high)


def _values(values: Mapping[str, Any], key: str) -> list[float]:
    value = finite(values.get(key))
    return ([] if value is None else [value]) + list(_interval(values, key) or ())


def _ceiling(value: float) -> float:
    """A round share that is at least `value`, up to 1."""
    return next((c for c in (0.05, 0.1, 0.2, 0.25, 0.5, 0.75) if value <= c), 1.0)
