"""Formats that rollouts are written in, by the suffix of the file."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpagym.atomic import write_atomically
from alpagym.render.page import build_page, escape
from alpagym.render.replay import Rollout, first_incident, incidents, replay_json, together

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE, RADIUS = 640, 40.0
"""Of a picture [pixels], and from its middle to each side [m]."""
HOLD = 1.0
"""For how long a video stays on the last state [s]."""
CODECS = {
    ".mp4": ("mp4", "libx264", {"crf": "20", "preset": "veryfast"}),
    ".webm": (
        "webm",
        "libvpx-vp9",
        {"crf": "34", "b": "0", "deadline": "realtime", "cpu-used": "8"},
    ),
}
"""Container, codec and its options."""

Write = Callable[[Sequence[Rollout]], Path]


def is_page(path: Path) -> bool:
    """Whether a file shows as many scenarios as there are; all others show one."""
    return path.suffix.lower() in (".html", ".htm")


def writer_of(path: Path, at: float = -1.0) -> Write:
    """What writes rollouts to `path`.

    Args:
        path: its suffix says how.
        at: moment of a picture, from the rollouts' begin [s]; negative for the first failure, or
            the end.

    Raises:
        ValueError: a suffix of no format, or one whose library is not installed.
    """
    suffix = path.suffix.lower()
    if is_page(path):
        return lambda rollouts: write_html(rollouts, path)
    if suffix == ".png":
        return lambda rollouts: _write_picture(_alone(rollouts, path), path, at)
    if suffix == ".gif":
        return lambda rollouts: _write_gif(_alone(rollouts, path), path)
    if suffix in CODECS:
        av = _needed("av", "video", path)
        return lambda rollouts: _write_video(av, _alone(rollouts, path), path)
    if suffix == ".rrd":
        rerun = _needed("rerun", "rerun", path)
        from alpagym.render.rerun_log import write_log

        return lambda rollouts: write_log(rerun, _alone(rollouts, path), path)
    known = ", ".join([".html", ".png", ".gif", *CODECS, ".rrd"])
    raise ValueError(f"out={path}: expected a file that ends in one of {known}")


def write_html(rollouts: Sequence[Rollout], path: str | Path) -> Path:
    """Write a page that plays rollouts offline; those of one scenario play side by side.

    Raises:
        ValueError: no rollouts, or rollouts of one scenario that do not fit together.
    """
    if not rollouts:
        raise ValueError("write_html: expected at least one rollout, got none")
    groups = together(rollouts)
    sections = [
        f'<h1>{escape(group[0].scenario.id)}</h1><section data-player="{i}"></section>'
        for i, group in enumerate(groups)
    ]
    page = build_page(
        title="AlpaGym replay",
        body=f"<main>{''.join(sections)}</main>",
        replays=[replay_json(group) for group in groups],
        scripts=("scene.js", "backdrop.js", "plot.js", "player.js"),
        styles=("player.css",),
    )
    return write_atomically(Path(path), lambda to: to.write_text(page, encoding="utf-8"))


def _needed(module: str, extra: str, path: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"out={path}: {path.suffix} needs {module}: pip install 'alpagym[{extra}]'"
        ) from error


def _alone(rollouts: Sequence[Rollout], path: Path) -> Sequence[Rollout]:
    """The rollouts, if they begin in the same moment of one scenario.

    Raises:
        ValueError: they do not.
    """
    count = len(together(rollouts))
    if count != 1:
        raise ValueError(
            f"out={path}: {path.suffix} shows one scenario, got {count}: choose one by count=1 or "
            "data.select=ID, or write .html"
        )
    return [rollout.validate() for rollout in rollouts]


def moments(rollouts: Sequence[Rollout], states: Sequence[int]) -> Iterator[Image]:
    """Pictures of rollouts of one scenario side by side, at these states."""
    from alpagym.render.raster import Camera, beside

    first = rollouts[0]
    camera = Camera(first.scenario, first.ego, SIZE, RADIUS)
    for t in states:
        yield beside([camera.draw(rollout, t, _title(rollout, t)) for rollout in rollouts])


def _title(rollout: Rollout, t: int) -> str:
    now = min(t, rollout.num_steps)
    happened = [i.name for i in incidents(rollout) if i.step < now]
    ended = ["ended"] if rollout.done_step is not None and now == rollout.num_steps else []
    time = f"{now * rollout.scenario.dt:.1f} s"
    return "  ·  ".join([rollout.label or rollout.scenario.id, time, *happened, *ended])


def _write_picture(rollouts: Sequence[Rollout], path: Path, at: float) -> Path:
    if at < 0.0:
        found = [i.step + 1 for i in map(first_incident, rollouts) if i is not None]
        state = min(found, default=max(r.num_steps for r in rollouts))
    else:
        state = round(at / rollouts[0].scenario.dt)
    picture = next(moments(rollouts, [state]))
    return write_atomically(path, lambda to: picture.save(to, "PNG"))


def _write_gif(rollouts: Sequence[Rollout], path: Path) -> Path:
    from PIL.Image import Quantize

    dt = rollouts[0].scenario.dt
    first, *rest = (
        picture.quantize(64, Quantize.FASTOCTREE)
        for picture in moments(rollouts, range(_last(rollouts) + 1))
    )
    durations = [round(1e3 * dt)] * len(rest) + [round(1e3 * HOLD)]
    return write_atomically(
        path,
        lambda to: first.save(
            to, "GIF", save_all=True, append_images=rest, duration=durations, loop=0
        ),
    )


def _write_video(av: Any, rollouts: Sequence[Rollout], path: Path) -> Path:
    """As many pictures a second as steps."""
    container, codec, options = CODECS[path.suffix.lower()]
    dt, last = rollouts[0].scenario.dt, _last(rollouts)
    states = [*range(last + 1), *[last] * round(HOLD / dt)]

    def write(to: Path) -> None:
        with av.open(str(to), "w", format=container) as file:
            stream = None
            for picture in moments(rollouts, states):
                if stream is None:
                    stream = file.add_stream(codec, rate=Fraction(1 / dt).limit_denominator(1000))
                    stream.width, stream.height = (v // 2 * 2 for v in picture.size)
                    stream.pix_fmt, stream.options = "yuv420p", options
                frame = av.VideoFrame.from_image(picture.crop((0, 0, stream.width, stream.height)))
                file.mux(stream.encode(frame))
            assert stream is not None
            file.mux(stream.encode())

    return write_atomically(path, write)


def _last(rollouts: Sequence[Rollout]) -> int:
    return max(r.num_steps for r in rollouts)
