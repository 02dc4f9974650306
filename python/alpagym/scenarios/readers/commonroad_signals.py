"""CommonRoad traffic signs and lights: limits, stops, and what each light shows when."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alpagym.scenarios.assemble import RawLight
from alpagym.scenarios.readers.commonroad_map import Lanelet, plausible
from alpagym.scenarios.readers.commonroad_xml import to_id
from alpagym.scenarios.scenario import LightState, ScenarioError
from alpagym.scenarios.units import KMH, MPH
from alpagym.scenarios.xml_files import Fault, to_number

MAX_CYCLE = 20_000
"""Frames after which all light cycles must repeat together to be kept beyond the record."""
FASTEST_LIMIT = 45.0
"""A plain number above this on a speed limit sign is no value in m/s, as the format wants it."""
LIMIT_SIGNS = {"274", "274.1", "R2-1", "r301", "R301"}
STOP_SIGNS = {"206", "R1-1", "r2", "R2"}
_TURNS = {
    "left": {"Left"},
    "straight": {"Straight"},
    "right": {"Right"},
    "leftStraight": {"Left", "Straight"},
    "straightRight": {"Straight", "Right"},
    "leftRight": {"Left", "Right"},
}
_COLORS = {
    "red": LightState.RED,
    "redYellow": LightState.RED,  # still forbids to pass
    "yellow": LightState.YELLOW,
    "green": LightState.GREEN,
    "inactive": LightState.ABSENT,
}
_VALUE = re.compile(r"^\s*([0-9.,eE+-]+)\s*(km/?h|kph|mph|m/s)?\s*$", re.IGNORECASE)


@dataclass
class Sign:
    """What a traffic sign means for the lanelets that refer to it."""

    limit: float = math.nan
    """[m/s]."""
    stop: bool = False


def apply_signs(
    root: ET.Element, lanelets: dict[int, Lanelet], country: str, path: Path, notes: list[str]
) -> dict[int, Sign]:
    """The signs of a file by id; their speed limits go to the lanelets that refer to them."""
    signs: dict[int, Sign] = {}
    unreadable = converted = 0
    for element in root.findall("trafficSign"):
        sign = Sign()
        for part in element.findall("trafficSignElement"):
            number = (part.findtext("trafficSignID") or "").strip()
            sign.stop |= number in STOP_SIGNS
            if number in LIMIT_SIGNS:
                limit, was_converted = _limit(part.findtext("additionalValue") or "", country)
                converted += was_converted
                unreadable += math.isnan(limit)
                sign.limit = min(limit, sign.limit) if sign.limit == sign.limit else limit
        try:
            signs[to_id(element)] = sign
        except Fault as error:
            raise ScenarioError(f"{path}: trafficSign: {error}") from error
    for lanelet in lanelets.values():
        limits = [signs[s].limit for s in lanelet.signs if s in signs]
        known = [v for v in [*limits, lanelet.speed_limit] if not math.isnan(v)]
        lanelet.speed_limit = min(known, default=math.nan)
    if converted:
        notes.append(f"took the values of {converted} speed limit signs to be in the sign's unit")
    if unreadable:
        notes.append(f"left out {unreadable} speed limit signs without a usable value")
    return signs


def _limit(text: str, country: str) -> tuple[float, bool]:
    """The value of a speed limit sign [m/s], and whether it was given in another unit.

    The format wants m/s; a unit that is written down, or a number that cannot be in m/s, tells that
    the value is the one painted on the sign.
    """
    match = _VALUE.match(text)
    if match is None:
        return math.nan, False
    try:
        number = float(match[1].replace(",", "."))
    except ValueError:
        return math.nan, False
    unit = (match[2] or "").lower()
    factor = 1.0
    if unit == "mph" or (not unit and number > FASTEST_LIMIT and country in ("USA", "GBR")):
        factor = MPH
    elif unit.startswith("k") or (not unit and number > FASTEST_LIMIT):
        factor = KMH
    return plausible(number * factor), factor != 1.0


@dataclass
class Light:
    """A traffic light and the states through which it goes."""

    states: np.ndarray
    """`LightState` of each frame of one cycle, from the offset on, uint8 [P]."""
    offset: int
    """Frame at which a cycle begins."""
    turns: set[str]
    """Those of Left, Straight and Right that it is for; all if empty."""

    def at(self, frames: np.ndarray) -> np.ndarray:
        return self.states[(frames - self.offset) % len(self.states)]


def read_lights(root: ET.Element, path: Path, notes: list[str]) -> dict[int, Light]:
    """Traffic lights by id; those without a cycle are left out with a note."""
    lights: dict[int, Light] = {}
    without = 0
    for element in root.findall("trafficLight"):
        where = f"{path}: trafficLight {(element.get('id') or 'without id')[:20]}"
        try:
            number = to_id(element)
            states: list[int] = []
            for part in element.findall("cycle/cycleElement"):
                color = (part.findtext("color") or "").strip()
                duration = to_number(part.findtext("duration"), "duration")
                if not 0 <= duration <= MAX_CYCLE or len(states) > MAX_CYCLE:
                    raise Fault(f"a cycle must last at most {MAX_CYCLE} steps")
                states += [_COLORS.get(color, LightState.UNKNOWN)] * round(duration)
            offset = to_number(element.findtext("cycle/timeOffset") or "0", "timeOffset")
            if abs(offset) > 1e9:
                raise Fault(f"timeOffset must be a number of steps, got {offset:g}")
        except Fault as error:
            raise ScenarioError(f"{where}: {error}") from error
        if not states:
            without += 1
            continue
        if (element.findtext("active") or "true").strip().lower() in ("false", "0"):
            states = [LightState.ABSENT]
        turns = _TURNS.get((element.findtext("direction") or "").strip(), set())
        lights[number] = Light(np.array(states, np.uint8), round(offset), turns)
    if without:
        notes.append(f"left out {without} traffic lights without a cycle")
    return lights


def controlled_lanes(
    root: ET.Element, lanelets: dict[int, Lanelet], lights: dict[int, Light]
) -> list[tuple[Light, int, np.ndarray]]:
    """Each light with the id of a lane that begins behind its stop line, and the stop point [2].

    A light stands at the end of the lanelets that refer to it and controls those that follow them
    and turn the way it is for, as the file's intersections tell.
    """
    turn_of: dict[tuple[int, int], str] = {}
    for incoming in root.iter("incoming"):
        for turn in ("Left", "Straight", "Right"):
            for first in incoming.findall("incomingLanelet"):
                for second in incoming.findall(f"successors{turn}"):
                    key = _pair(first.get("ref"), second.get("ref"))
                    if key is not None:
                        turn_of[key] = turn
    found = []
    for lanelet in lanelets.values():
        # Of several lights for one way the one for the fewest ways is the most specific.
        own = [lights[i] for i in lanelet.lights if i in lights]
        own.sort(key=lambda light: len(light.turns) or 4)
        for after in lanelet.successors:
            way = turn_of.get((lanelet.id, after))
            light = next((x for x in own if not x.turns or way is None or way in x.turns), None)
            if light is not None and after in lanelets:
                found.append((light, after, lanelet.stop_point))
    return found


def _pair(first: str | None, second: str | None) -> tuple[int, int] | None:
    texts = (first or "", second or "")
    if all(t.isdecimal() and len(t) < 19 for t in texts):
        return int(texts[0]), int(texts[1])
    return None


def light_states(
    controlled: list[tuple[Light, int, np.ndarray]], num_frames: int
) -> tuple[list[RawLight], np.ndarray | None]:
    """Lights over the record, and what follows it and repeats, uint8 [K, P]; None if too long."""
    frames = np.arange(num_frames)
    raw = [RawLight(lane, xy, light.at(frames)) for light, lane, xy in controlled]
    period = 1
    for light, _, _ in controlled:
        period = math.lcm(period, len(light.states))
        if period > MAX_CYCLE:
            return raw, None
    after = num_frames + np.arange(period)
    return raw, np.array([light.at(after) for light, _, _ in controlled], np.uint8)
