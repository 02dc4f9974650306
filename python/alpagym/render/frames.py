"""Rollouts to look at: a still picture of one moment, and a page that plays them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alpagym.atomic import write_atomically
from alpagym.render.page import build_page, escape
from alpagym.render.replay import Rollout, incidents, replay_json
from alpagym.scenarios.scenario import AgentType, LightState, MapType

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EGO_COLOR = "#0072b2"
AGENT_COLORS = {
    AgentType.VEHICLE: "#7d8694",
    AgentType.PEDESTRIAN: "#e69f00",
    AgentType.CYCLIST: "#009e73",
}
OTHER_COLOR = "#b0669a"
# Color, line width [pt], line style.
MAP_STYLES = {
    MapType.ROAD_LINE: ("#a9afb9", 0.8, "-"),
    MapType.ROAD_EDGE: ("#5b6270", 1.4, "-"),
    MapType.SPEED_BUMP: ("#a9afb9", 0.8, ":"),
    MapType.DRIVEWAY: ("#a9afb9", 0.8, "-"),
}
# Color and marker: shape repeats what color says.
LIGHT_STYLES = {
    LightState.UNKNOWN: ("#ffffff", "o"),
    LightState.RED: ("#d55e00", "s"),
    LightState.FLASHING_RED: ("#d55e00", "s"),
    LightState.YELLOW: ("#f0e442", "^"),
    LightState.FLASHING_YELLOW: ("#f0e442", "^"),
    LightState.GREEN: ("#009e73", "o"),
}
LANE_WIDTH = 3.7


def draw_frame(
    rollout: Rollout, t: int, *, radius: float = 40.0, inches: float = 5.0, dpi: int = 120
) -> bytes:
    """Top-down picture of state t with the ego in the middle, as PNG.

    Args:
        rollout: What to draw.
        t: State, 0 to T; a state after the end shows the last one.
        radius: From the middle to each side [m].
        inches: Side of the square picture.
        dpi: Pixels per inch.

    Raises:
        ValueError: t is negative, or the rollout has wrong shapes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rollout.validate()
    if t < 0:
        raise ValueError(f"draw_frame: t: expected a state from 0 on, got {t}")
    t = min(t, rollout.num_steps)
    figure = Figure(figsize=(inches, inches), dpi=dpi, facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    center = _center(rollout, t)
    axes.set_xlim(center[0] - radius, center[0] + radius)
    axes.set_ylim(center[1] - radius, center[1] + radius)
    axes.set_aspect("equal")
    axes.axis("off")
    _draw_map(axes, rollout, points_per_meter=inches * 72 / (2 * radius))
    _draw_lights(axes, rollout, t)
    _draw_agents(axes, rollout, t)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def write_html(rollouts: Sequence[Rollout], path: str | Path) -> Path:
    """Write a page that plays rollouts offline; those of one scenario play side by side.

    Raises:
        ValueError: no rollouts, or rollouts of one scenario that do not fit together.
    """
    if not rollouts:
        raise ValueError("write_html: expected at least one rollout, got none")
    by_scenario: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        by_scenario.setdefault(rollout.scenario.id, []).append(rollout)
    sections = [
        f'<h1>{escape(name)}</h1><section data-player="{i}"></section>'
        for i, name in enumerate(by_scenario)
    ]
    page = build_page(
        title="AlpaGym replay",
        body=f"<main>{''.join(sections)}</main>",
        replays=[replay_json(group) for group in by_scenario.values()],
        scripts=("scene.js", "plot.js", "player.js"),
        styles=("player.css",),
    )
    return write_atomically(Path(path), lambda to: to.write_text(page, encoding="utf-8"))


def _center(rollout: Rollout, t: int) -> tuple[float, float]:
    seen = np.flatnonzero(rollout.valid[: t + 1, rollout.ego])
    if not len(seen):
        return 0.0, 0.0
    return float(rollout.x[seen[-1], rollout.ego]), float(rollout.y[seen[-1], rollout.ego])


def _draw_map(axes: Axes, rollout: Rollout, points_per_meter: float) -> None:
    roads, routes = rollout.scenario.map, rollout.scenario.routes
    for element in range(roads.num_elements):
        x, y = roads.polyline(element)[:, :2].T
        kind = MapType(int(roads.type[element]))
        if kind is MapType.LANE:
            width = LANE_WIDTH * points_per_meter
            axes.plot(x, y, color="#eceef1", linewidth=width, solid_capstyle="round", zorder=0)
            axes.plot(x, y, color="#c9cdd4", linewidth=0.5, alpha=0.6, zorder=1)
        elif kind is MapType.CROSSWALK:
            axes.fill(x, y, color="#dfe3ea", zorder=1)
        elif kind is MapType.STOP_SIGN:
            axes.plot(x, y, marker="8", color="#d55e00", markersize=7, zorder=3)
        else:
            color, width, style = MAP_STYLES[kind]
            axes.plot(x, y, color=color, linewidth=width, linestyle=style, zorder=2)
    route = routes.points[routes.offsets[rollout.ego] : routes.offsets[rollout.ego + 1]]
    axes.plot(
        route[:, 0], route[:, 1], color="#cfe3f3", linewidth=4, solid_capstyle="round", zorder=2
    )


def _draw_lights(axes: Axes, rollout: Rollout, t: int) -> None:
    lights = rollout.scenario.lights
    frame = min(rollout.start_frame + t, lights.state.shape[1] - 1)
    for (x, y), state in zip(lights.xy, lights.state[:, frame], strict=True):
        if state != LightState.ABSENT:
            color, marker = LIGHT_STYLES[LightState(int(state))]
            axes.plot(
                x, y, marker=marker, color=color, markeredgecolor="#16181d", markersize=7, zorder=6
            )


def _draw_agents(axes: Axes, rollout: Rollout, t: int) -> None:
    tracks = rollout.scenario.tracks
    seen = rollout.valid[: t + 1, rollout.ego].astype(bool)
    x, y = rollout.x[: t + 1, rollout.ego], rollout.y[: t + 1, rollout.ego]
    axes.plot(
        np.where(seen, x, np.nan),
        np.where(seen, y, np.nan),
        color=EGO_COLOR,
        linewidth=1.6,
        zorder=3,
    )
    for a in range(tracks.num_agents):
        if not rollout.valid[t, a]:
            continue
        kind = AgentType(int(tracks.type[a]))
        color = EGO_COLOR if a == rollout.ego else AGENT_COLORS.get(kind, OTHER_COLOR)
        box, notch = _outline(rollout, t, a)
        axes.fill(*box.T, facecolor=color, edgecolor="white", linewidth=0.8, zorder=4)
        axes.fill(*notch.T, color="white", zorder=5)
    for incident in incidents(rollout):
        state = incident.step + 1
        if state <= t and rollout.valid[state, rollout.ego]:
            marker = "^" if incident.kind == "offroad" else "X"
            at = float(rollout.x[state, rollout.ego]), float(rollout.y[state, rollout.ego])
            axes.plot(
                *at,
                marker=marker,
                color="#f0e442",
                markeredgecolor="#16181d",
                markersize=13,
                zorder=7,
            )


def _outline(rollout: Rollout, t: int, a: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners of an agent's box and of the mark that points along its heading [n, 2]."""
    length, width = rollout.scenario.tracks.size[a, :2]
    cos, sin = np.cos(rollout.yaw[t, a]), np.sin(rollout.yaw[t, a])
    turn = np.array([[cos, sin], [-sin, cos]])
    center = np.array([rollout.x[t, a], rollout.y[t, a]])
    box = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * [length / 2, width / 2]
    tip = length * 0.44
    notch = np.array(
        [[tip, 0], [tip - width * 0.45, width * 0.34], [tip - width * 0.45, -width * 0.34]]
    )
    return box @ turn + center, notch @ turn + center
