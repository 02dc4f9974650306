"""The replay player in a browser: every control does what it says, and nothing is complained of."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from alpagym.render.outputs import write_html
from alpagym.render.replay import Rollout
from alpagym.scenarios.road_map import unlinked_map
from alpagym.scenarios.scenario import MapType
from replaying import make_group, make_rollout, make_scenario

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), "")
pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason=f"no browser: expected one of {', '.join(BROWSERS)}"
)
WHOLE = {"width": 1280, "height": 1000}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@contextmanager
def opened(browser: Browser, path, **options) -> Iterator[Page]:
    """A page without network, at whose end nothing may have been logged or thrown."""
    context = browser.new_context(viewport=WHOLE, offline=True, **options)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert not said


@pytest.fixture
def page(browser, tmp_path) -> Iterator[Page]:
    rollouts = make_group().rollouts
    for rollout in rollouts:
        ahead = np.linspace(0.5, 8.0, 8)[:, None] * [1.0, 0.3]
        here = np.stack([rollout.x[:-1, 0], rollout.y[:-1, 0]], axis=1)
        rollout.plans = (here[:, None] + ahead).astype(np.float32)
    path = write_html(rollouts, tmp_path / "replay.html")
    with opened(browser, path) as found:
        yield found


def step_of(page: Page) -> int:
    return int(page.locator(".clock").inner_text().partition("step ")[2].partition("/")[0])


def pixels(page: Page) -> str:
    """What the first canvas shows."""
    return page.locator("figure canvas").first.evaluate("canvas => canvas.toDataURL()")


def wait_for(page: Page, *, least: int) -> None:
    steps = "|".join(str(t) for t in range(least, 21))
    expect(page.locator(".clock")).to_have_text(re.compile(rf"step ({steps})/"))


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def test_it_plays_and_stops(page) -> None:
    press(page, "Play")
    wait_for(page, least=3)
    press(page, "Pause")
    now = step_of(page)
    page.wait_for_timeout(300)
    assert step_of(page) == now >= 3
    press(page, "Back to the start")
    assert step_of(page) == 0


def test_speeds_are_kept(page) -> None:
    """At four times the speed the 2 s are over in half a second, and at a quarter they are not."""
    page.locator(".bar select").select_option("4")
    press(page, "Play")
    wait_for(page, least=20)
    page.locator(".bar select").select_option("0.25")
    press(page, "Play")
    page.wait_for_timeout(400)
    assert step_of(page) <= 2
    press(page, "Pause")


def test_steps_and_keys(page) -> None:
    press(page, "One step on")
    press(page, "One step on")
    press(page, "One step back")
    assert step_of(page) == 1
    page.locator(".player").focus()
    for key, wanted in (
        *(("ArrowRight", 2), ("Shift+ArrowRight", 12), ("ArrowLeft", 11), ("End", 20)),
        *(("Home", 0), ("n", 11), ("n", 16), ("n", 11)),
    ):
        page.keyboard.press(key)
        assert step_of(page) == wanted, key
    page.keyboard.press("Space")
    wait_for(page, least=13)
    page.keyboard.press("Space")


def test_the_scrubber_seeks(page) -> None:
    scrub = page.get_by_label("Step", exact=True)
    scrub.fill("7")
    assert step_of(page) == 7
    plot = page.locator("canvas.plot")
    box = plot.bounding_box()
    plot.click(position={"x": box["width"] - 10, "y": 60})
    assert step_of(page) == 20


def test_incidents_are_jumped_to_and_told(page) -> None:
    press(page, "Go to the next incident")
    assert step_of(page) == 11
    assert page.locator("figure .status").first.inner_text() == "front collision"
    press(page, "Go to the next incident")
    assert step_of(page) == 16
    assert "offroad" in page.locator("figure .status").first.inner_text()


def test_where_two_drives_part_is_shown(page) -> None:
    """The first one drifts by 4 (t / 20)^2 m, the second by 0.5 (t / 20)^2: 5 cm apart at 2.4."""
    press(page, "Go to where the rollouts begin to differ")
    assert step_of(page) == 3


def test_zoom_pan_and_follow(page) -> None:
    still = pixels(page)
    press(page, "Zoom in")
    assert pixels(page) != still
    press(page, "Zoom out")
    assert pixels(page) == still
    canvas = page.locator("figure canvas").first
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.wheel(0, -300)
    page.mouse.move(box["x"] - 5, y)
    page.wait_for_timeout(50)
    assert pixels(page) != still
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 90, y + 40, steps=3)
    page.mouse.up()
    follow = page.get_by_role("button", name="Follow the ego")
    assert follow.get_attribute("aria-pressed") == "false"
    canvas.dblclick()
    assert follow.get_attribute("aria-pressed") == "true"
    page.mouse.move(box["x"] - 5, y)
    page.wait_for_timeout(50)
    assert pixels(page) == still


def test_overlay_lays_one_over_the_other(page) -> None:
    assert page.locator("figure:visible").count() == 2
    press(page, "Lay the rollouts over each other")
    assert page.locator("figure:visible").count() == 1
    press(page, "Lay the rollouts over each other")
    assert page.locator("figure:visible").count() == 2


def test_every_layer_can_be_hidden_and_shown(page) -> None:
    page.get_by_label("Step", exact=True).fill("16")
    page.locator("details.layers summary").click()
    boxes = page.locator("details.layers input")
    assert boxes.count() == 12
    boxes.first.click()  # what is drawn anew is drawn about the middle of now
    boxes.first.click()
    for k in range(boxes.count()):
        before = pixels(page)
        boxes.nth(k).click()
        assert pixels(page) != before, page.locator("details.layers label").nth(k).inner_text()
        boxes.nth(k).click()
        assert pixels(page) == before
    page.locator("details.layers summary").click()
    assert not boxes.first.is_visible()


def test_pointing_at_an_agent_reads_it(page) -> None:
    canvas = page.locator("figure canvas").first
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = page.locator("figure .tip").first
    assert tip.is_visible()
    assert tip.inner_text().splitlines()[0] == f"ego, vehicle {2**60}"
    assert tip.inner_text().splitlines()[1].startswith("8.0 m/s, heading ")
    page.mouse.move(box["x"] + 4, box["y"] + 4)
    assert not tip.is_visible()


def test_quantities_are_plotted(page) -> None:
    plot = page.locator("canvas.plot")
    seen = {plot.screenshot()}
    for name in ("reward progress", "reward offroad", "speed"):
        page.locator(".plot-head select").select_option(name)
        seen.add(plot.screenshot())
    assert len(seen) == 3


def test_dark_and_light_differ(browser, tmp_path) -> None:
    path = write_html([make_rollout(make_scenario(), fails=False)], tmp_path / "replay.html")
    shots = []
    for scheme in ("light", "dark"):
        with opened(browser, path, color_scheme=scheme) as page:
            shots.append(pixels(page))
            assert page.get_by_role("button", name="Lay the rollouts over").count() == 0
    assert shots[0] != shots[1]


def test_hostile_names_stay_text(browser, tmp_path) -> None:
    name = "</script><img src=x onerror=alert(1)>\"'`${alert(2)}"
    scenario = make_scenario(name, kind=name, license=name, notes=[name])
    rollout = make_rollout(scenario, fails=True, label=name)
    rollout.metrics = {name: 1.0}
    path = write_html([rollout], tmp_path / "replay.html")
    with opened(browser, path) as page:
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        assert page.locator("img").count() == 0
        assert page.locator("h1").inner_text() == name
        press(page, "Go to the next incident")


def large_rollout() -> Rollout:
    """20 s of 128 agents on a map of 40,000 points."""
    scenario = make_scenario("large", agents=128, steps=200)
    along = np.linspace(0.0, 400.0, 400)
    elements = []
    for k in range(100):
        bend = 40.0 * np.sin(along / 60.0 + k)
        kind = (MapType.LANE, MapType.ROAD_LINE, MapType.ROAD_EDGE)[k % 3]
        elements.append((kind, np.stack([along - 50.0, 3.7 * (k - 50) / 2 + bend], axis=1)))
    scenario.map = unlinked_map(elements)
    return make_rollout(scenario, fails=False)


COUNT_ROADS = """
  const stroke = CanvasRenderingContext2D.prototype.stroke;
  window.roads = 0;
  CanvasRenderingContext2D.prototype.stroke = function (...given) {
    if (Math.abs(this.lineWidth - 3.7) < 1e-3) window.roads += 1;
    return stroke.apply(this, given);
  };
"""
"""Lanes are as wide as that."""


def test_a_large_scene_draws_its_roads_once_while_the_camera_is_near(browser, tmp_path) -> None:
    rollout = large_rollout()
    assert len(rollout.scenario.map.points) == 40_000
    path = write_html([rollout], tmp_path / "large.html")
    with opened(browser, path) as page:
        page.add_init_script(COUNT_ROADS)
        page.reload()
        press(page, "Play")
        page.evaluate(
            """() => new Promise((done) => {
              let count = 0;
              const began = performance.now();
              const tick = (now) => {
                count += 1;
                if (now - began < 3000) requestAnimationFrame(tick);
                else { window.rate = (1000 * count) / (now - began); done(); }
              };
              requestAnimationFrame(tick);
            })"""
        )
        print(f"{page.evaluate('window.rate'):.1f} frames/s")
        assert step_of(page) > 5
        assert 1 <= page.evaluate("window.roads") <= 4  # 24 m, and a screen shows 90 m
