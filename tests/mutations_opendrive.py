"""OpenDRIVE files to be mutated, and ones that are valid and as intricate as a file may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mutations import draw
from opendrive_files import crossing, geometry, lane, road, section, straight

HEAD = '<?xml version="1.0"?><OpenDRIVE><header revMajor="1" revMinor="6"/>'


def intact(folder: Path) -> list[str]:
    """A crossing, a straight road, and a bend of all kinds of geometry with signs and links."""
    path = folder / "made.xodr"
    texts = [crossing(path).read_text(), straight(path, length=400.0).read_text(), bend()]
    path.unlink()
    return texts


def bend() -> str:
    """One road of five pieces, of two lane sections, and one that goes on from it."""
    cubic = 'aU="0" bU="1" cU="0" dU="0" aV="0" bV="0" cV="0.001" dV="0"'
    plan = (
        geometry(0, 0, 0, 0, 200, "<line/>")
        + geometry(200, 200, 0, 0, 30, '<spiral curvStart="0" curvEnd="0.01"/>')
        + geometry(230, 229.9, 1.5, 0.15, 30, '<arc curvature="0.01"/>')
        + geometry(260, 258.4, 10.4, 0.45, 20, '<poly3 a="0" b="0" c="0.001" d="0"/>')
        + geometry(280, 276.2, 19.4, 0.49, 20, f'<paramPoly3 pRange="arcLength" {cubic}/>')
    )
    on = '<successor id="-1"/>'
    lanes = section(lane(1), lane(-1, link=on)) + section(lane(1), lane(-1) + lane(-2), s=150)
    lanes = '<laneOffset s="0" a="0.2" b="0" c="0" d="0"/>' + lanes
    sign = '<signal id="1" s="290" t="-4" orientation="+" dynamic="no" type="206" subtype="-1"/>'
    link = '<successor elementType="road" elementId="2" contactPoint="start"/>'
    first = road(1, 300, plan, lanes, link=link, signals=sign)
    second = road(2, 300, geometry(0, 293.6, 29.1, 0.53, 300, "<line/>"), section("", lane(-1)))
    return f"{HEAD}{first}{second}</OpenDRIVE>"


def hostile(rng: np.random.Generator) -> bytes:
    """A valid file of absurd shapes: tangles, spirals, thousands of roads, lanes or pieces."""
    kind = int(rng.integers(8))
    pair = section(lane(1), lane(-1))
    if kind == 0:  # roads that all cross each other
        count = int(rng.choice([20, 100, 400]))
        length = min(800.0, 190_000.0 / count)
        angle = rng.uniform(0, 2 * np.pi, count)
        middle = rng.uniform(-20, 20, (count, 2))
        start = middle - 0.5 * length * np.stack([np.cos(angle), np.sin(angle)], 1)
        roads = [
            road(i, length, geometry(0, *start[i], angle[i], length, "<line/>"), pair)
            for i in range(count)
        ]
    elif kind == 1:  # one that runs in circles, or a spiral that winds up
        length = float(rng.choice([500, 20_000, 190_000]))
        curve = draw(rng, ['<arc curvature="0.03"/>', '<arc curvature="9999999"/>',
                           '<spiral curvStart="0" curvEnd="5"/>',
                           '<spiral curvStart="-0.02" curvEnd="0.02"/>',
                           '<spiral curvStart="1e7" curvEnd="-1e7"/>'])  # fmt: skip
        roads = [road(1, length, geometry(0, 0, 0, 0, length, curve), pair)]
    elif kind == 2:  # a road of very many lanes
        count = int(rng.choice([50, 300, 999]))
        wide = '<width sOffset="0" a="0.29" b="0" c="0" d="0"/>'
        right = "".join(lane(-i, width=wide) for i in range(1, count))
        plan = geometry(0, 0, 0, 0, 800, "<line/>")
        roads = [road(1, 800, plan, section("", right))]
    elif kind == 3:  # a lane of very many widths, or a road of many sections
        count = int(rng.choice([50, 2000]))
        starts = np.sort(rng.uniform(0, 400, count))
        if rng.random() < 0.5:
            widths = "".join(
                f'<width sOffset="{s}" a="{rng.uniform(0, 9)}" b="{rng.normal()}" c="0" d="0"/>'
                for s in starts
            )
            lanes = section("", lane(-1, width=widths))
        else:
            lanes = "".join(section(lane(1), lane(-1), s=s) for s in starts)
        roads = [road(1, 400, geometry(0, 0, 0, 0, 400, "<line/>"), lanes)]
    elif kind == 4:  # short roads by the thousand at one place
        count = int(rng.choice([300, 3000]))
        roads = [
            road(i, 60, geometry(0, *rng.uniform(-200, 200, 2), rng.uniform(0, 7), 60, "<line/>"),
                 pair)
            for i in range(count)
        ]  # fmt: skip
    elif kind == 5:  # a cubic that loops
        numbers = " ".join(f'{k}{a}="{rng.normal() * 10.0 ** rng.integers(-6, 2)}"'
                           for k in "abcd" for a in "UV")  # fmt: skip
        shape = draw(rng, [f'<paramPoly3 pRange="arcLength" {numbers}/>',
                           f"<paramPoly3 {numbers}/>",
                           '<poly3 a="0" b="1000" c="1e3" d="1e7"/>'])  # fmt: skip
        length = float(rng.choice([50, 3000]))
        roads = [road(1, length, geometry(0, 0, 0, 0, length, shape), pair)]
    elif kind == 6:  # pieces of a millimeter
        count = int(rng.choice([1000, 20_000]))
        plan = "".join(geometry(i * 0.02, i * 0.02, 0, 0, 0.02, "<line/>") for i in range(count))
        roads = [road(1, 0.02 * count, plan, pair)]
    else:  # links in circles, signals and connections by the thousand
        count = int(rng.choice([100, 5000]))
        links = "".join(f'<predecessor id="{k}"/><successor id="{k}"/>' for k in (-1,))
        sign = '<signal id="1" s="9" t="-4" orientation="none" dynamic="yes" type="1000001"/>'
        ends = "".join(
            f'<{which} elementType="road" elementId="1" contactPoint="{at}"/>'
            for which, at in (("predecessor", "end"), ("successor", "start"))
        )
        plan = geometry(0, 0, 0, 0, 2 * np.pi * 60, f'<arc curvature="{1 / 60}"/>')
        ring = road(1, 2 * np.pi * 60, plan, section("", lane(-1, link=links)), link=ends,
                    signals=sign * count)  # fmt: skip
        joined = (
            '<connection id="1" incomingRoad="1" connectingRoad="1" contactPoint="start">'
            '<laneLink from="-1" to="-1"/></connection>'
        )
        roads = [ring, f'<junction id="5">{joined * count}</junction>']
    return f"{HEAD}{''.join(roads)}</OpenDRIVE>".encode()
