"""Time on either device: warm-up, state restored before each batch, median and spread."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch


@dataclass(frozen=True)
class Measurement:
    """One metric of a case."""

    value: float
    """Median of the repeats."""
    spread: float
    """Interquartile range of the repeats over the median."""
    repeats: int

    def scaled(self, factor: float) -> Measurement:
        return Measurement(self.value * factor, self.spread, self.repeats)

    def inverse(self, amount: float) -> Measurement:
        """`amount` over this time: a rate."""
        return Measurement(amount / self.value, self.spread, self.repeats)

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time of one call: by CUDA events on a GPU, by the clock on the CPU."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def measure(
    run: Callable[[], object],
    device: torch.device,
    *,
    restore: Callable[[], object] = lambda: None,
    repeats: int = 7,
    warm_up: int = 2,
) -> Measurement:
    """Seconds that `run` takes, each time from the state that `restore` gives."""
    times = []
    gc.collect()
    gc.disable()
    try:
        for i in range(warm_up + repeats):
            restore()
            elapsed = seconds(run, device)
            if i >= warm_up:
                times.append(elapsed)
    finally:
        gc.enable()
    median = statistics.median(times)
    quartiles = statistics.quantiles(times, n=4) if len(times) > 1 else [median] * 3
    return Measurement(median, (quartiles[2] - quartiles[0]) / median, len(times))
