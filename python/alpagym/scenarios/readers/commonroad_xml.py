"""The values that elements of CommonRoad XML hold.

Times are steps of the file's `timeStepSize`, or seconds in files of before 2018b. Angles are in
radians, lengths in meters and speeds in m/s, as the format has them.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field

import numpy as np

from alpagym.scenarios.xml_files import Fault, to_number

MAX_COORDINATE = 1e8
"""Farther from the source's origin is a data fault; UTM reaches 1e7 [m]."""
CIRCLE_CORNERS = 16
"""A round goal region is treated as a polygon of so many corners."""
_ROOT = re.compile(rb"<commonRoad[\s>]")


class FarAway(Fault):
    """A point lies where nothing can be."""


def sniff_xml(head: bytes) -> bool:
    """Whether a file begins like a CommonRoad XML file."""
    return _ROOT.search(head) is not None


def to_id(element: ET.Element, attribute: str = "id") -> int:
    """The integer in an attribute."""
    text = element.get(attribute)
    try:
        number = int(text or "")
    except ValueError:
        number = 1 << 62
    if abs(number) >= 1 << 62:
        raise Fault(f"attribute {attribute} must be an integer, got '{(text or '')[:40]}'")
    return number


def references(element: ET.Element, tag: str) -> list[int]:
    """The ids that children with this tag refer to."""
    return [to_id(child, "ref") for child in element.findall(tag)]


def interval(element: ET.Element) -> tuple[float, float]:
    """Both ends of an interval; one value twice where the element is exact."""
    exact = element.find("exact")
    if exact is not None:
        value = to_number(exact.text, element.tag)
        return value, value
    low = to_number(element.findtext("intervalStart"), f"{element.tag} intervalStart")
    high = to_number(element.findtext("intervalEnd"), f"{element.tag} intervalEnd")
    return low, high


def value(element: ET.Element) -> float:
    """The exact value, or the middle of the interval."""
    low, high = interval(element)
    return 0.5 * (low + high)


def point(element: ET.Element | None, name: str) -> tuple[float, float]:
    """The x and y of an element that has them as children [m]."""
    if element is None:
        raise Fault(f"{name} is missing")
    x = to_number(element.findtext("x"), f"x of {name}")
    y = to_number(element.findtext("y"), f"y of {name}")
    if abs(x) > MAX_COORDINATE or abs(y) > MAX_COORDINATE:
        raise FarAway(f"{name} must lie within {MAX_COORDINATE:g} m, got {x:.6g}, {y:.6g}")
    return x, y


def point_list(element: ET.Element | None, name: str) -> np.ndarray:
    """The points that an element has as children [m], float64 [n, 2]."""
    if element is None:
        raise Fault(f"{name} is missing")
    return np.array([point(p, f"a point of {name}") for p in element.findall("point")]).reshape(
        -1, 2
    )


def _length(element: ET.Element, tag: str) -> float:
    number = to_number(element.findtext(tag), f"{tag} of {element.tag}")
    if not 0 < number < 1e6:
        raise Fault(f"{tag} of {element.tag} must be a positive length, got {number:g}")
    return number


@dataclass
class Box:
    """A rectangle around a shape, in the frame in which the shape is given."""

    center: np.ndarray
    """[m], [2]."""
    length: float
    width: float
    turn: float = 0.0
    """Heading of its length [rad]."""

    @property
    def corners(self) -> np.ndarray:
        """[m], [4, 2], counter-clockwise."""
        c, s = math.cos(self.turn), math.sin(self.turn)
        half = 0.5 * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * [self.length, self.width]
        return self.center + half @ np.array([[c, s], [-s, c]])


def shape_box(element: ET.Element, free: bool = False) -> Box | None:
    """The box around the shapes that an element has as children; None if it has none.

    A single rectangle or circle gives its own box. Around polygons and groups the box lies along
    the axes, or, if it is `free` to turn, along the edge that makes it smallest.
    """
    boxes, corners = [], []
    for child in element:
        if child.tag == "rectangle":
            boxes.append(_rectangle(child))
            corners.append(boxes[-1].corners)
        elif child.tag == "circle":
            side = 2 * _length(child, "radius")
            boxes.append(Box(_center(child), side, side))
            corners.append(boxes[-1].corners)
        elif child.tag == "polygon":
            corners.append(_polygon(child))
    if len(boxes) == 1 and len(corners) == 1:
        return boxes[0]
    if not corners:
        return None
    every = np.concatenate(corners)
    turns = [0.0]
    if free:
        step = np.diff(np.concatenate([every, every[:1]]), axis=0)
        turns += np.arctan2(step[:, 1], step[:, 0])[:64].tolist()
    return min((_box_around(every, turn) for turn in turns), key=lambda b: b.length * b.width)


def _box_around(points: np.ndarray, turn: float) -> Box:
    c, s = math.cos(turn), math.sin(turn)
    axes = np.array([[c, s], [-s, c]])
    along = points @ axes.T
    low, high = along.min(0), along.max(0)
    return Box(0.5 * (low + high) @ axes, float(high[0] - low[0]), float(high[1] - low[1]), turn)


def _rectangle(element: ET.Element) -> Box:
    turn = element.find("orientation")
    angle = 0.0
    if turn is not None:  # written as a number by most tools and as <exact> by some
        angle = value(turn) if len(turn) else to_number(turn.text, "orientation")
    return Box(_center(element), _length(element, "length"), _length(element, "width"), angle)


def _center(element: ET.Element) -> np.ndarray:
    center = element.find("center")
    return np.zeros(2) if center is None else np.array(point(center, f"center of {element.tag}"))


def _polygon(element: ET.Element) -> np.ndarray:
    corners = point_list(element, "polygon")
    if len(corners) < 3:
        raise Fault(f"a polygon needs 3 points or more, got {len(corners)}")
    return corners


@dataclass
class Region:
    """Where a planning problem's goal may lie: polygons and lanelets; anywhere if it has none."""

    polygons: list[np.ndarray] = field(default_factory=list)
    """Corners [m], [k, 2] each."""
    lanelets: list[int] = field(default_factory=list)


def region(element: ET.Element | None) -> Region:
    """The region that a position element describes."""
    found = Region()
    for child in () if element is None else element:
        if child.tag == "rectangle":
            found.polygons.append(_rectangle(child).corners)
        elif child.tag == "circle":
            angle = np.linspace(0, 2 * np.pi, CIRCLE_CORNERS, endpoint=False)
            ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
            found.polygons.append(_center(child) + _length(child, "radius") * ring)
        elif child.tag == "polygon":
            found.polygons.append(_polygon(child))
        elif child.tag == "lanelet":
            found.lanelets.append(to_id(child, "ref"))
    return found


def place(element: ET.Element | None) -> tuple[float, float]:
    """The point that a position element names, or the center of the shape there [m]."""
    if element is None:
        raise Fault("position is missing")
    exact = element.find("point")
    if exact is not None:
        return point(exact, "position")
    box = shape_box(element)
    if box is None:
        raise Fault("position must be a point or a shape")
    return float(box.center[0]), float(box.center[1])
