"""Pictures of rollouts from above, of any moment, for stills and videos.

Roads are drawn once, in tiles, where the camera passes; agents in every picture. A pixel is
`1 / scale` meters wide, and the camera moves by whole pixels. Everything is drawn larger by `FINER`
and reduced, against jagged edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alpagym.render.replay import Rollout, incidents
from alpagym.scenarios.scenario import AgentType, LightState, MapType, Scenario

GROUND, INK, MUTED, EGO = "#ffffff", "#16181d", "#656b76", "#0072b2"
ROUTE, LOG, WARN, PLAN = "#cfe3f3", "#3c4250", "#f0e442", "#7fb8dc"
"""Colors of the replay player in light mode, told apart by color-blind people."""
AGENT_COLORS = {
    AgentType.VEHICLE: "#7d8694",
    AgentType.PEDESTRIAN: "#e69f00",
    AgentType.CYCLIST: "#009e73",
}
OTHER_COLOR = "#b0669a"
LANE_WIDTH, LANE, MIDDLE, CROSSWALK = 3.7, "#eceef1", "#dbdee3", "#dfe3ea"
LINES = {
    MapType.ROAD_LINE: ("#a9afb9", 0.15),
    MapType.ROAD_EDGE: ("#5b6270", 0.25),
    MapType.SPEED_BUMP: ("#a9afb9", 0.15),
    MapType.DRIVEWAY: ("#a9afb9", 0.15),
}
"""Color and width [m]."""
LIGHTS = {
    LightState.UNKNOWN: ("#ffffff", 24),
    LightState.RED: ("#d55e00", 4),
    LightState.FLASHING_RED: ("#d55e00", 4),
    LightState.YELLOW: ("#f0e442", 3),
    LightState.FLASHING_YELLOW: ("#f0e442", 3),
    LightState.GREEN: ("#009e73", 24),
}
"""Color and number of corners: shape repeats what color says."""
FINER = 2
TILE = 256
"""Pixels to a side."""


class Camera:
    """Draws moments of rollouts of one scenario, `size` pixels to a side and `radius` meters far.

    Args:
        scenario: whose roads are drawn.
        ego: whose route is.
        size: of the square picture [pixels].
        radius: from its middle to each side [m].
    """

    def __init__(self, scenario: Scenario, ego: int, size: int, radius: float) -> None:
        self.size = size
        self._scenario = scenario
        self._scale = FINER * size / (2 * radius)  # of what is drawn before it is reduced
        routes = scenario.routes
        route = routes.points[routes.offsets[ego] : routes.offsets[ego + 1], :2]
        self._roads = [
            (kind, self._fine(scenario.map.polyline(i)[:, :2]))
            for kind, i in sorted(
                (MapType(int(t)), i) for i, t in enumerate(scenario.map.type.tolist())
            )
        ]
        self._route = self._fine(route)
        self._tile = lru_cache(maxsize=64)(self._draw_tile)

    def draw(self, rollout: Rollout, t: int, title: str = "") -> Image.Image:
        """State t, the ego in the middle; a state after the end shows the last one.

        Args:
            rollout: of the scenario.
            t: state, from 0 on.
            title: written above it.

        Raises:
            ValueError: t is negative.
        """
        if t < 0:
            raise ValueError(f"t: expected a state from 0 on, got {t}")
        t = min(t, rollout.num_steps)
        side = FINER * self.size
        corner = np.round(self._fine(_middle(rollout, t)) / FINER) * FINER - side // 2
        picture = self._scenery(corner.astype(np.int64)).resize(
            (side, side), Image.Resampling.NEAREST
        )
        pen = _Pen(ImageDraw.Draw(picture), self._scale, corner)
        self._draw_paths(pen, rollout, t)
        self._draw_agents(pen, rollout, t)
        self._draw_lights(pen, rollout, t)
        for incident in incidents(rollout):
            state = incident.step + 1
            if state <= t and rollout.valid[state, rollout.ego]:
                pen.warn(incident.kind, _position(rollout, state, rollout.ego))
        picture = picture.reduce(FINER)
        return picture if not title else _titled(picture, title)

    def _fine(self, points: np.ndarray) -> np.ndarray:
        """Places [m] in pixels of what is drawn, y downwards."""
        return np.asarray(points, np.float64) * [self._scale, -self._scale]

    def _scenery(self, corner: np.ndarray) -> Image.Image:
        """Roads in the window whose upper left corner this is, reduced."""
        left, top = (int(v) // FINER for v in corner)
        picture = Image.new("RGB", (self.size, self.size), GROUND)
        for column in range(left // TILE, (left + self.size - 1) // TILE + 1):
            for row in range(top // TILE, (top + self.size - 1) // TILE + 1):
                picture.paste(self._tile(column, row), (column * TILE - left, row * TILE - top))
        return picture

    def _draw_tile(self, column: int, row: int) -> Image.Image:
        side = FINER * TILE
        picture = Image.new("RGB", (side, side), GROUND)
        pen = _Pen(ImageDraw.Draw(picture), self._scale, np.array([column, row]) * side)
        near = [road for road in self._roads if pen.reaches(road[1], side, LANE_WIDTH)]
        for kind, points in near:
            if kind is MapType.LANE:
                pen.line(points, LANE, LANE_WIDTH)
        for kind, points in near:
            if kind is MapType.LANE:
                pen.line(points, MIDDLE, 0.1)
            elif kind is MapType.CROSSWALK and len(points) > 2:
                pen.fill(points, CROSSWALK)
            elif kind is MapType.STOP_SIGN:
                pen.regular(points[0] / [self._scale, -self._scale], 0.7, 8, "#d55e00")
            elif kind in LINES:
                pen.line(points, *LINES[kind])
        if pen.reaches(self._route, side, 1.0):
            pen.line(self._route, ROUTE, 0.6)
        return picture.reduce(FINER)

    def _draw_paths(self, pen: _Pen, rollout: Rollout, t: int) -> None:
        """What the ego has driven and plans, and the record of it."""
        tracks, ego = self._scenario.tracks, rollout.ego
        frames = slice(rollout.start_frame, rollout.start_frame + rollout.num_steps + 1)
        there = tracks.valid[ego, frames]
        pen.dashes(self._fine(tracks.xyz[ego, frames, :2][there]), LOG, 0.15)
        seen = rollout.valid[: t + 1, ego].astype(bool)
        driven = np.stack([rollout.x[: t + 1, ego], rollout.y[: t + 1, ego]], axis=1)[seen]
        pen.line(self._fine(driven), EGO, 0.3)
        plan = rollout.plan(min(t, rollout.num_steps - 1))
        pen.line(self._fine(plan), PLAN, 0.5)
        frame = min(rollout.start_frame + t, tracks.num_frames - 1)
        if tracks.valid[ego, frame]:
            x, y = tracks.xyz[ego, frame, :2]
            pen.outline(_box(x, y, tracks.yaw[ego, frame], tracks.size[ego]), LOG)

    def _draw_agents(self, pen: _Pen, rollout: Rollout, t: int) -> None:
        tracks = self._scenario.tracks
        seen = np.flatnonzero(rollout.valid[t, : tracks.num_agents]).tolist()
        for a in sorted(seen, key=lambda a: a == rollout.ego):  # the ego above all others
            x, y = _position(rollout, t, a)
            yaw, size = rollout.yaw[t, a], tracks.size[a]
            kind = AgentType(int(tracks.type[a]))
            color = EGO if a == rollout.ego else AGENT_COLORS.get(kind, OTHER_COLOR)
            pen.agent(x, y, yaw, size, color)

    def _draw_lights(self, pen: _Pen, rollout: Rollout, t: int) -> None:
        lights = self._scenario.lights
        frame = min(rollout.start_frame + t, lights.state.shape[1] - 1)
        for place, state in zip(lights.xy, lights.state[:, frame].tolist(), strict=True):
            if state != LightState.ABSENT:
                color, corners = LIGHTS[LightState(state)]
                pen.regular(place, 0.8, corners, color)


class _Pen:
    """Draws in meters, or in pixels of what is drawn, into a window of it."""

    def __init__(self, draw: ImageDraw.ImageDraw, scale: float, corner: np.ndarray) -> None:
        self._draw, self._scale, self._corner = draw, scale, corner

    def reaches(self, points: np.ndarray, side: int, width: float) -> bool:
        """Whether a line [n, 2] comes near to the window."""
        if not len(points):
            return False
        margin = width * self._scale
        low, high = points.min(0) - self._corner, points.max(0) - self._corner
        return bool((low <= side + margin).all() and (high >= -margin).all())

    def line(self, points: np.ndarray, color: str, width: float) -> None:
        """A line [n, 2] in pixels, `width` in meters, with round corners where it is wide."""
        pixels = max(round(width * self._scale), 1)
        own = points - self._corner
        if len(own) > 1:
            self._draw.line(own.ravel().tolist(), fill=color, width=pixels)
        if pixels > 4:
            half = pixels / 2 - 0.5
            for x, y in own.tolist():
                self._draw.ellipse((x - half, y - half, x + half, y + half), fill=color)

    def dashes(self, points: np.ndarray, color: str, width: float) -> None:
        """Every other step of a line [n, 2] in pixels."""
        pixels = max(round(width * self._scale), 1)
        own = points - self._corner
        for a, b in zip(own[:-1:2].tolist(), own[1::2].tolist(), strict=False):
            self._draw.line((*a, *b), fill=color, width=pixels)

    def fill(self, points: np.ndarray, color: str) -> None:
        self._draw.polygon((points - self._corner).ravel().tolist(), fill=color)

    def outline(self, corners: np.ndarray, color: str) -> None:
        """A polygon [n, 2] in meters."""
        self._draw.line(self._pixels([*corners, corners[0]]), fill=color, width=FINER)

    def agent(self, x: float, y: float, yaw: float, size: np.ndarray, color: str) -> None:
        """A box with a mark that points along its heading."""
        margin = 2 * FINER / self._scale
        # one polygon on another: an outline that is wide takes Pillow a picture of its own
        self._draw.polygon(self._pixels(_box(x, y, yaw, size + margin)), fill=GROUND)
        self._draw.polygon(self._pixels(_box(x, y, yaw, size)), fill=color)
        self._draw.polygon(self._pixels(_notch(x, y, yaw, size)), fill=GROUND)

    def regular(self, place: np.ndarray, radius: float, corners: int, color: str) -> None:
        """A regular polygon about a place [m], a side or corner of which lies on top."""
        turn = math.pi / 2 if corners == 3 else math.pi / corners
        angle = turn + 2 * np.pi * np.arange(corners) / corners
        ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        self._draw.polygon(self._pixels(place + radius * ring), fill=INK)
        inner = radius - 1.5 * FINER / self._scale
        self._draw.polygon(self._pixels(place + inner * ring), fill=color)

    def warn(self, kind: str, place: np.ndarray) -> None:
        """A mark where something went wrong: a cross, or a triangle where the road was left."""
        self.regular(place, 1.4, 3 if kind == "offroad" else 24, WARN)
        if kind != "offroad":
            for way in (1, -1):
                ends = np.array([[-0.6, -0.6 * way], [0.6, 0.6 * way]]) + place
                self._draw.line(self._pixels(ends), fill=INK, width=2 * FINER)

    def _pixels(self, points: np.ndarray | list[np.ndarray]) -> list[float]:
        fine = np.asarray(points, np.float64) * [self._scale, -self._scale] - self._corner
        return list(fine.ravel().tolist())


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one height side by side."""
    if len(pictures) == 1:
        return pictures[0]
    gap = 8
    width = sum(p.width for p in pictures) + gap * (len(pictures) - 1)
    whole = Image.new("RGB", (width, pictures[0].height), GROUND)
    left = 0
    for picture in pictures:
        whole.paste(picture, (left, 0))
        left += picture.width + gap
    return whole


def _titled(picture: Image.Image, title: str) -> Image.Image:
    """The picture under a line of text, which is cut where it does not fit."""
    height = 28
    whole = Image.new("RGB", (picture.width, picture.height + height), GROUND)
    whole.paste(picture, (0, height))
    font = ImageFont.load_default(15)
    while font.getlength(title) > picture.width - 16 and len(title) > 1:
        title = f"{title[:-2]}…"
    ImageDraw.Draw(whole).text((8, 6), title, fill=INK, font=font)
    return whole


def _position(rollout: Rollout, t: int, a: int) -> np.ndarray:
    return np.array([rollout.x[t, a], rollout.y[t, a]], np.float64)


def _middle(rollout: Rollout, t: int) -> np.ndarray:
    """Where the ego was seen last [m]."""
    seen = np.flatnonzero(rollout.valid[: t + 1, rollout.ego])
    return _position(rollout, int(seen[-1]), rollout.ego) if len(seen) else np.zeros(2)


def _turned(shape: np.ndarray, x: float, y: float, yaw: float) -> np.ndarray:
    cos, sin = math.cos(yaw), math.sin(yaw)
    return shape @ np.array([[cos, sin], [-sin, cos]]) + [x, y]


def _box(x: float, y: float, yaw: float, size: np.ndarray) -> np.ndarray:
    """Corners of a box [m], [4, 2]."""
    corners = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * size[:2] / 2
    return _turned(corners, x, y, yaw)


def _notch(x: float, y: float, yaw: float, size: np.ndarray) -> np.ndarray:
    """A mark that points along the heading [m], [3, 2]."""
    length, width = size[:2]
    tip = 0.44 * length
    back = tip - 0.45 * width
    corners = np.array([[tip, 0], [back, 0.34 * width], [back, -0.34 * width]])
    return _turned(corners, x, y, yaw)
