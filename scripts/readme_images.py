"""Draw the pictures of the README: procedural scenarios, driven by their logs.

python scripts/readme_images.py [--folder docs/images]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from PIL import Image

from alpagym.config import SimConfig
from alpagym.evaluation import evaluate
from alpagym.render.raster import Camera, beside
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
RADIUS, SIZE = 42.0, 400


def scenes() -> Image.Image:
    """A row of top-down views, the ego in blue, its route and what it has driven."""
    scenarios = [generate(kind, seed) for kind, seed in PANELS]
    _, rollouts = evaluate("log", scenarios, replace(SimConfig(), end_on=()), record="log")
    return beside(
        [
            Camera(r.scenario, r.ego, SIZE, RADIUS).draw(r, STEP, r.scenario.kind.replace("_", " "))
            for r in rollouts
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "images")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scenes.png"
    scenes().save(path)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
