"""Draw the pictures of the README: procedural scenarios, driven by their logs.

python scripts/readme_images.py [--folder docs/images]
"""

from __future__ import annotations

import argparse
import io
from dataclasses import replace
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from alpagym.config import SimConfig
from alpagym.evaluation import evaluate
from alpagym.render.frames import draw_frame
from alpagym.scenarios.procedural import generate

ROOT = Path(__file__).resolve().parents[1]
PANELS = (
    ("signal", 3),
    ("roundabout", 1),
    ("merge", 2),
    ("street", 4),
)
"""Kind and seed of each panel."""
STEP = 45
RADIUS = 42.0
INCHES = 2.6


def scenes() -> Figure:
    """A row of top-down views, the ego in blue, its route and what it has driven."""
    scenarios = [generate(kind, seed) for kind, seed in PANELS]
    _, rollouts = evaluate("log", scenarios, replace(SimConfig(), end_on=()), record="log")
    figure = Figure(figsize=(INCHES * len(PANELS), INCHES + 0.3), dpi=120, facecolor="white")
    for i, rollout in enumerate(rollouts):
        axes = figure.add_subplot(1, len(PANELS), i + 1)
        png = draw_frame(rollout, STEP, radius=RADIUS, inches=INCHES, dpi=160)
        axes.imshow(imread(io.BytesIO(png)))
        axes.set_title(rollout.scenario.kind.replace("_", " "), fontsize=9)
        axes.axis("off")
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.9, wspace=0.03)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "images")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scenes.png"
    FigureCanvasAgg(scenes()).print_png(path)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
