"""`alpagym bench load`: scenarios from files, shards or the generator, to the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from alpagym.bench import sources
from alpagym.bench.cases import LoadCase
from alpagym.bench.context import Context, Line
from alpagym.bench.timing import Measurement, measure
from alpagym.scenarios.batch import batch
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.scenario import Scenario
from alpagym.store.library import Library, prepare, shards_of
from alpagym.store.options import ConvertConfig
from alpagym.store.shard import SUFFIX, write_shard

SHARD = ConvertConfig().shard_scenarios


def run(case: LoadCase, context: Context) -> Iterator[Line]:
    """Scenarios a second: read or generated, packed, and on a GPU uploaded."""
    count = 8 if context.quick else case.scenarios
    repeats, host = context.repeats_or(3), torch.device("cpu")
    hosts = sources.kept(case.source, count, context.data).hosts
    if case.store:
        with TemporaryDirectory() as folder:
            yield from _from_shards(case, hosts, Path(folder), repeats, context.device)
    else:
        made = measure(
            lambda: sources.scenarios(case.source, count, context.data),
            host,
            repeats=repeats,
            warm_up=0 if context.quick else 1,
        )
        made_as = "read" if case.source.startswith("womd") else "generate"
        yield f"{case.name}.{made_as}_scenarios_per_s", made.wall.inverse(len(hosts))
    packing = measure(lambda: batch(hosts, host), host, repeats=repeats, warm_up=1)
    yield f"{case.name}.pack_scenarios_per_s", packing.wall.inverse(len(hosts))
    packed = batch(hosts, host)
    size = sum(tensor.nbytes for tensor in packed.tensors().values())
    yield f"{case.name}.packed_bytes_per_scenario", Measurement(size / len(hosts))
    if context.device.type == "cuda":
        upload = measure(lambda: packed.to(context.device), context.device, repeats=repeats)
        yield f"{case.name}.upload_scenarios_per_s", upload.wall.inverse(len(hosts))


def _from_shards(
    case: LoadCase,
    hosts: Sequence[Scenario],
    folder: Path,
    repeats: int,
    device: torch.device,
) -> Iterator[Line]:
    """How fast scenarios come out of a folder of shards, checks included, and what they take.

    To the host, as scenarios; from packed shards into a bank; and as a bank onto a GPU.
    """
    for first in range(0, len(hosts), SHARD):
        write_shard(folder / f"{first:06d}{SUFFIX}", hosts[first : first + SHARD])
    size = sum(file.stat().st_size for file in folder.iterdir())
    read = measure(
        lambda: load_scenarios(folder), torch.device("cpu"), repeats=max(repeats, 5), warm_up=1
    )
    yield f"{case.name}.read_scenarios_per_s", read.wall.inverse(len(hosts))
    yield f"{case.name}.stored_bytes_per_scenario", Measurement(size / len(hosts))
    shards = shards_of(folder)
    prepare(shards)
    library, every = Library(shards), np.arange(len(hosts))
    memory = torch.empty(library.capacity(len(hosts), every), dtype=torch.uint8)
    fill = measure(
        lambda: library.fill(every, memory=memory), torch.device("cpu"), repeats=max(repeats, 5)
    )
    yield f"{case.name}.assemble_scenarios_per_s", fill.wall.inverse(len(hosts))
    num_bytes = library.fill(every, memory=memory).num_bytes
    yield f"{case.name}.assemble_gb_per_s", fill.wall.inverse(num_bytes / 1e9)
    if device.type == "cuda":
        pinned, there = memory.pin_memory(), torch.empty_like(memory, device=device)
        upload = measure(
            lambda: there[:num_bytes].copy_(pinned[:num_bytes], non_blocking=True), device
        )
        yield f"{case.name}.bank_upload_scenarios_per_s", upload.wall.inverse(len(hosts))
        yield f"{case.name}.bank_upload_gb_per_s", upload.wall.inverse(num_bytes / 1e9)
    else:
        yield f"{case.name}: upload to a GPU: not measured, there is none"
