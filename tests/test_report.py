"""The run report: complete, self-contained, and closed to hostile names."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from alpagym.grpo.report import verdict, write_report
from alpagym.render.charts import MAX_POINTS, charts_of
from alpagym.render.outputs import write_html
from replaying import Page, make_group

HOSTILE = (
    "</script><script>alert(1)</script>\" onload='alert(2)' <img src=x onerror=alert(3)>\u2028&amp;"
)


def results(rate: float, **fields) -> dict:
    return {
        "num_scenarios": 256,
        "failure_rate": rate,
        "failure_rate_ci95": [rate * 0.8, rate * 1.2],
        "collision_at_fault_rate": rate * 0.7,
        "collision_any_rate": rate * 0.9,
        "offroad_rate": rate * 0.3,
        "progress": 0.9 - rate,
        "scene_score": 1.0 - rate,
    } | fields


def make_summary(**fields) -> dict:
    return {
        "before": results(0.4),
        "after": results(0.1),
        "train": {"agent_steps": 12_345_678, "agent_steps_per_s": 98_765.4},
        "wall_s": 321.0,
        "device": "cpu",
        "commit": "abc1234",
        "licenses": {"synthetic-cc0": 512},
        "config": {"grpo": {"group_size": 16, "clip": [0.2, 0.28]}, "seed": 1},
        "by_kind": {"bend": {"num_scenarios": 256, "before": 0.4, "after": 0.1}},
    } | fields


HISTORY = [
    *(
        {"phase": "imitation", "step": i, "loss": 1 / (i + 1), "held_out_loss": 1.1 / (i + 1)}
        for i in range(40)
    ),
    *(
        {"phase": "grpo", "step": i, "return": i * 0.1, "reward": {"progress": 0.1 * i}, "kl": 0.01}
        for i in range(30)
    ),
    {"phase": "eval", "step": 0, "failure_rate": 0.4},
    {"phase": "eval", "step": 29, "failure_rate": 0.1},
]


def report(tmp_path, summary=None, history=HISTORY, replays=()) -> tuple[str, Page]:
    path = write_report(
        tmp_path / "report.html", make_summary() if summary is None else summary, history, replays
    )
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_report_tells_the_story(tmp_path):
    groups = [
        make_group("fixed-1"),
        make_group("failing-1", after=True),
        make_group("broken-1", before=False, after=True),
    ]
    _, page = report(tmp_path, replays=groups)
    sentence = (
        "GRPO cut the closed-loop failure rate from 40.0 % to 10.0 % on 256 held-out scenarios"
    )
    assert f"{sentence}; the 95 % intervals do not touch." in page.text
    for words in (
        "[32.0, 48.0 %]",
        "Fixed",
        "Still failing",
        "Newly broken",
        "imitation: front collision at 1.1 s",
    ):
        assert words in page.text
    for words in (
        "5 min 21 s",
        "12,345,678",
        "98.8k",
        "synthetic-cc0 (512 scenarios)",
        "grpo.group_size: 16",
    ):
        assert words in page.text
    assert [r["id"] for r in page.replays()] == ["fixed-1", "failing-1", "broken-1"]
    cards = [attrs for tag, attrs in page.elements if tag == "button" and "data-replay" in attrs]
    # A fixed scenario shows what went wrong before; the others what goes wrong now.
    assert [(c["data-replay"], c["data-run"]) for c in cards] == [
        ("0", "0"),
        ("1", "1"),
        ("2", "1"),
    ]
    charts = [attrs["aria-label"] for tag, attrs in page.elements if "data-chart" in attrs]
    assert [c.split(":")[0] for c in charts] == [
        "Imitation loss",
        "Reward terms",
        "Return",
        "Failures",
        "KL",
    ]


def test_page_asks_for_nothing_outside(tmp_path):
    text, _ = report(tmp_path, replays=[make_group()])
    write_html(make_group().rollouts, tmp_path / "replay.html")
    for source in (text, (tmp_path / "replay.html").read_text(encoding="utf-8")):
        assert not re.search(r"https?://|url\(|@import|\bfetch\(|XMLHttpRequest|import\(", source)
        parsed = Page(source)
        assert not [a for _, a in parsed.elements if {"src", "href", "srcset"} & a.keys()]
        policy = next(
            a["content"]
            for t, a in parsed.elements
            if a.get("http-equiv") == "Content-Security-Policy"
        )
        assert policy.startswith("default-src 'none';")
        assert "script-src 'sha256-" in policy


def test_hostile_names_stay_text(tmp_path):
    group = make_group(HOSTILE, kind=HOSTILE, dataset=HOSTILE, license=HOSTILE, notes=[HOSTILE])
    for rollout in group.rollouts:
        rollout.label = HOSTILE
        rollout.rewards[HOSTILE] = rollout.rewards["progress"]
        rollout.metrics[HOSTILE] = 1.0
    summary = make_summary(
        name=HOSTILE,
        device=HOSTILE,
        commit=HOSTILE,
        licenses={HOSTILE: HOSTILE},
        config={HOSTILE: {HOSTILE: HOSTILE}},
        by_kind={HOSTILE: {"num_scenarios": 1, "before": 1.0, "after": 0.0}},
    )
    summary["before"][HOSTILE] = 0.5
    summary[HOSTILE] = {HOSTILE: HOSTILE}
    history = [
        {"phase": phase, "step": 0, HOSTILE: 1.0, f"reward/{HOSTILE}": 1.0}
        for phase in ("grpo", HOSTILE)
    ]
    _, clean = report(tmp_path, replays=[make_group()])
    text, page = report(tmp_path, summary, history, [group])
    assert len(page.scripts) == len(clean.scripts) == 2
    assert page.scripts[1] == clean.scripts[1]
    assert "img" not in {tag for tag, _ in page.elements}
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
    assert "alert(1)</script>" not in text
    assert "\u2028" not in page.scripts[0]
    replay = page.replays()[0]
    assert replay["id"] == replay["notes"][0] == replay["rollouts"][0]["label"] == HOSTILE
    write_html(group.rollouts, tmp_path / "replay.html")
    page = Page((tmp_path / "replay.html").read_text(encoding="utf-8"))
    assert len(page.scripts) == 2
    assert "img" not in {tag for tag, _ in page.elements}


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, np.float32(np.nan)])
def test_missing_values_show_as_dashes(tmp_path, nothing):
    blank = dict.fromkeys(results(0.1), nothing) | {"failure_rate_ci95": [nothing, nothing]}
    summary = make_summary(
        before=blank, after=blank, wall_s=nothing, train={"agent_steps": nothing}
    )
    summary["by_kind"] = {"bend": {"before": nothing}}
    history = [{"phase": "grpo", "step": nothing, "kl": nothing, "return": nothing}, *HISTORY]
    group = make_group()
    group.rollouts[0].rewards["progress"][3] = np.nan
    group.rollouts[0].metrics["scene_score"] = nothing
    group.rollouts[0].x[4, 1] = np.nan
    _, page = report(tmp_path, summary, history, [group])
    assert "–" in page.text
    assert not re.search(r"\b(nan|None|inf)\b", page.text, re.IGNORECASE)
    rollout = page.replays()[0]["rollouts"][0]
    assert rollout["rewards"]["progress"][3] is None
    assert rollout["metrics"]["scene_score"] is None
    assert rollout["tracks"][1]["valid"] == [0, 4, 5, 21]


def test_empty_run_still_reports(tmp_path):
    _, page = report(tmp_path, {}, [])
    assert "no failure rate before and after" in page.text
    assert page.replays() == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            results(0.2),
            results(0.4, failure_rate_ci95=[0.3, 0.5]),
            "raised the closed-loop failure rate from 20.0 %",
        ),
        (results(0.2), results(0.19), "the 95 % intervals overlap, so this may be chance"),
        (results(0.2), results(0.2), "left the closed-loop failure rate at 20.0 %"),
        (
            results(0.2, failure_rate_ci95=None),
            results(0.1),
            "from 20.0 % to 10.0 % on 256 held-out scenarios.",
        ),
    ],
)
def test_verdict_does_not_flatter(before, after, words):
    assert words in verdict({"before": before, "after": after})


def test_twelve_replays_fit_in_three_megabytes(tmp_path):
    groups = [make_group(f"bend-{i}", agents=40, steps=81) for i in range(12)]
    noise = np.random.default_rng(0)
    for rollout in (r for g in groups for r in g.rollouts):
        rollout.x += noise.normal(0, 0.05, rollout.x.shape)
        rollout.rewards = {f"term_{k}": noise.normal(size=81).astype(np.float32) for k in range(8)}
    text, _ = report(tmp_path, replays=groups)
    assert len(text.encode()) < 3_000_000


def test_long_histories_are_thinned_and_every_number_is_shown(tmp_path):
    history = [{"phase": "grpo", "step": i, "kl": float(i), "odd_number": 1.0} for i in range(5000)]
    known, others = charts_of(history)
    assert [c.title for c in known] == ["KL"]
    assert [c.title for c in others] == ["grpo: odd_number"]
    _, page = report(tmp_path, history=history)
    data = [json.loads(a["data-chart"]) for _, a in page.elements if "data-chart" in a]
    assert len(data[0]["series"][0]["x"]) <= MAX_POINTS
    assert np.allclose(np.diff(data[0]["series"][0]["y"]), 13, atol=1.5)
    assert "each point is the mean of 13 rows" in page.text
