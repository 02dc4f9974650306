"""Small OpenDRIVE files that tests write."""

from __future__ import annotations

import math
from pathlib import Path

HALF = 12.0
"""From the middle of a crossing to where its arms begin [m]."""
ARM = 350.0
ANGLES = (0.0, 0.5 * math.pi, math.pi, 1.5 * math.pi)


def geometry(s: float, x: float, y: float, heading: float, length: float, shape: str) -> str:
    return f'<geometry s="{s}" x="{x}" y="{y}" hdg="{heading}" length="{length}">{shape}</geometry>'


def lane(number: int, *, kind: str = "driving", width: str = "", link: str = "", extra: str = ""):
    width = width or '<width sOffset="0" a="3.5" b="0" c="0" d="0"/>'
    links = f"<link>{link}</link>" if link else ""
    return f'<lane id="{number}" type="{kind}" level="false">{links}{width}{extra}</lane>'


def section(left: str = "", right: str = "", s: float = 0.0) -> str:
    return (
        f'<laneSection s="{s}"><left>{left}</left><center><lane id="0" type="none"/></center>'
        f"<right>{right}</right></laneSection>"
    )


def road(
    number: int,
    length: float,
    plan: str,
    lanes: str,
    *,
    junction: int = -1,
    link: str = "",
    signals: str = "",
    kind: str = "",
    rule: str = "",
) -> str:
    rule = f' rule="{rule}"' if rule else ""
    return (
        f'<road id="{number}" length="{length}" junction="{junction}"{rule}>'
        f"<link>{link}</link>{kind}<planView>{plan}</planView>"
        f"<lanes>{lanes}</lanes><signals>{signals}</signals></road>"
    )


def write(path: Path, *parts: str) -> Path:
    text = '<?xml version="1.0"?><OpenDRIVE><header revMajor="1" revMinor="6"/>'
    path.write_text(text + "".join(parts) + "</OpenDRIVE>")
    return path


def straight(path: Path, length: float = 800.0, **changes: str) -> Path:
    """One road along +x with two lanes each way, 100 km/h."""
    sides = {"left": lane(2) + lane(1), "right": lane(-1) + lane(-2)}
    lanes = section(**sides)
    speed = '<type s="0" type="rural"><speed max="50" unit="km/h"/></type>'
    plan = geometry(0, 0, 0, 0, length, "<line/>")
    return write(path, road(1, length, plan, lanes, kind=speed, **changes))


def crossing(path: Path, signal: str = "light") -> Path:
    """Four arms of one lane each way, arm k + 1 at angle 90 k; roads inside for all ways through.

    Arms run outward from the middle: lane 1 comes in, lane -1 goes out.
    """
    types = {
        "light": 'dynamic="yes" type="1000001" subtype="-1"',
        "stop": 'dynamic="no" type="206" subtype="-1"',
        "none": 'dynamic="no" type="274" subtype="50"',
    }
    sign = f'<signal id="9" s="2" t="5" orientation="-" {types[signal]}/>'
    link = '<predecessor elementType="junction" elementId="100"/>'
    parts = []
    for k, angle in enumerate(ANGLES):
        x, y = HALF * math.cos(angle), HALF * math.sin(angle)
        plan = geometry(0, x, y, angle, ARM, "<line/>")
        lanes = section(lane(1), lane(-1))
        speed = '<type s="0" type="town"><speed max="13.9"/></type>'
        parts.append(road(k + 1, ARM, plan, lanes, link=link, signals=sign, kind=speed))
    connections, number = "", 10
    for a, angle in enumerate(ANGLES):
        for turn in (1, 2, 3):  # 1 right, 2 straight, 3 left, of those who come in
            b = (a + turn) % 4
            heading = angle + math.pi
            x, y = HALF * math.cos(angle), HALF * math.sin(angle)
            if turn == 2:
                length, shape = 2 * HALF, "<line/>"
            else:
                sign_of = 1 if turn == 3 else -1
                length, shape = 0.5 * math.pi * HALF, f'<arc curvature="{sign_of / HALF}"/>'
            plan = geometry(0, x, y, heading, length, shape)
            ends = (
                f'<predecessor elementType="road" elementId="{a + 1}" contactPoint="start"/>'
                f'<successor elementType="road" elementId="{b + 1}" contactPoint="start"/>'
            )
            inner = lane(-1, link='<predecessor id="1"/><successor id="-1"/>')
            parts.append(road(number, length, plan, section("", inner), junction=100, link=ends))
            connections += (
                f'<connection id="{number}" incomingRoad="{a + 1}" connectingRoad="{number}" '
                f'contactPoint="start"><laneLink from="1" to="-1"/></connection>'
            )
            number += 1
    return write(path, *parts, f'<junction id="100" name="x">{connections}</junction>')
