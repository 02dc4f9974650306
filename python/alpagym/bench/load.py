"""`alpagym bench load`: scenarios from files, or from the generator, to the device."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from alpagym.bench import sources
from alpagym.bench.cases import LoadCase
from alpagym.bench.context import Context, Line
from alpagym.bench.timing import Measurement, measure
from alpagym.scenarios.batch import batch


def run(case: LoadCase, context: Context) -> Iterator[Line]:
    """Scenarios a second: read or generated, packed, and on a GPU uploaded."""
    count = 8 if context.quick else case.scenarios
    repeats, host = context.repeats_or(3), torch.device("cpu")
    hosts = sources.kept(case.source, count, context.data).hosts
    is_read = case.source.startswith("womd")
    made = measure(
        lambda: sources.scenarios(case.source, count, context.data),
        host,
        repeats=repeats,
        warm_up=0 if context.quick else 1,
    )
    made_as = "read" if is_read else "generate"
    yield f"{case.name}.{made_as}_scenarios_per_s", made.wall.inverse(len(hosts))
    packing = measure(lambda: batch(hosts, host), host, repeats=repeats, warm_up=1)
    yield f"{case.name}.pack_scenarios_per_s", packing.wall.inverse(len(hosts))
    packed = batch(hosts, host)
    size = sum(tensor.nbytes for tensor in packed.tensors().values())
    yield f"{case.name}.packed_bytes_per_scenario", Measurement(size / len(hosts))
    if context.device.type == "cuda":
        upload = measure(lambda: packed.to(context.device), context.device, repeats=repeats)
        yield f"{case.name}.upload_scenarios_per_s", upload.wall.inverse(len(hosts))
