"""Time on either device: warm-up, state restored before each batch, median and spread."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache

import torch

from alpagym.grpo.capture import cuda_graph


@dataclass(frozen=True)
class Measurement:
    """One metric of a case."""

    value: float
    """Median of the repeats."""
    spread: float = 0.0
    """Interquartile range of the repeats over the median; 0 for what is counted."""
    repeats: int = 1

    def scaled(self, factor: float) -> Measurement:
        return Measurement(self.value * factor, self.spread, self.repeats)

    def inverse(self, amount: float) -> Measurement:
        """`amount` over this time: a rate."""
        return Measurement(amount / self.value, self.spread, self.repeats)

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


@dataclass(frozen=True)
class Timing:
    """Seconds of one batch."""

    wall: Measurement
    """By the clock; between CUDA events on a GPU."""
    cost: Measurement
    """CPU time of all threads; on a GPU the same as `wall`."""


def median_of(times: list[float]) -> Measurement:
    """The median and how far the middle half of the repeats lies apart."""
    median = statistics.median(times)
    quartiles = statistics.quantiles(times, n=4) if len(times) > 1 else [median] * 3
    spread = (quartiles[2] - quartiles[0]) / median if median > 0.0 else 0.0
    return Measurement(median, spread, len(times))


@cache
def _larger_than_l2(device: torch.device) -> torch.Tensor:
    cached = torch.cuda.get_device_properties(device).L2_cache_size
    return torch.empty(max(4 * cached, 2**28), dtype=torch.uint8, device=device)


def _once(run: Callable[[], object], device: torch.device, by_host: bool) -> tuple[float, float]:
    """Seconds by the clock or by events, and of CPU time."""
    if device.type == "cuda":
        _larger_than_l2(device).zero_()  # so that nothing of the last repeat is left in L2
        torch.cuda.synchronize(device)
    if device.type == "cuda" and not by_host:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        elapsed = begin.elapsed_time(end) / 1e3
        return elapsed, elapsed
    busy, started = time.process_time(), time.perf_counter()
    run()
    return time.perf_counter() - started, time.process_time() - busy


def measure(
    run: Callable[[], object],
    device: torch.device,
    *,
    restore: Callable[[], object] = lambda: None,
    repeats: int = 7,
    warm_up: int = 2,
    by_host: bool = False,
) -> Timing:
    """Seconds that `run` takes, each time from the state that `restore` gives.

    With `by_host` a GPU is not waited for: what the calls cost before it works.
    """
    times = []
    gc.collect()
    gc.disable()
    try:
        for i in range(warm_up + repeats):
            restore()
            elapsed = _once(run, device, by_host)
            if i >= warm_up:
                times.append(elapsed)
    finally:
        gc.enable()
    wall, cost = (median_of(list(column)) for column in zip(*times, strict=True))
    return Timing(wall, cost)


def captured(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """A CUDA graph of `run`, which has run once, that replays.

    Raises:
        RuntimeError: `run` waits for the GPU or allocates, which cannot be captured.
    """
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream(device).wait_stream(side)
    return cuda_graph(run)


@cache
def copy_bytes_per_s(device: torch.device, threads: int, num_bytes: int) -> float:
    """Bytes read and written in a second by a plain copy, on as many threads as are set.

    `threads` only tells results apart.
    """
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    timing = measure(lambda: target.copy_(source), device)
    return 2 * num_bytes / timing.wall.value
