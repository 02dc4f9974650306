"""All drives of a store, by what is known of them, and banks of any of them.

Only what tells them apart is in memory: ids, licenses, sizes. Everything else is read from packed
shards when a bank is filled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from alpagym.config import SimConfig
from alpagym.pools import dropping, processes
from alpagym.scenarios.bank import BANK_BYTES, FACTS, PARTS, POOLS, Bank, bank_bytes
from alpagym.scenarios.egos import drives_of
from alpagym.scenarios.load import files_of
from alpagym.scenarios.scenario import EGO_MARK, Scenario, ScenarioError, recording_of
from alpagym.scenarios.step_length import fits
from alpagym.store import container
from alpagym.store.packed import (
    DRIVE_FACTS,
    FOLDER,
    MAX_DRIVES,
    NEAR,
    Blocks,
    list_near,
    near_limits,
    open_near,
    open_packed,
    pack_shard,
)
from alpagym.store.packed_checks import check_bank
from alpagym.store.shard import SUFFIX, Shard

Progress = Callable[[str, int, int], None]
"""Called with what is made, how many are done, of how many."""
_NEAR = [POOLS.index(part.pool) for part in PARTS if part.near]


def _unheard(what: str, done: int, total: int) -> None:
    pass


def shards_of(path: Path) -> list[Path]:
    """Every shard in a folder and its subfolders, or the one that this is.

    Raises:
        ScenarioError: there is none, or something else lies there, too.
    """
    found: list[Path] = []
    others: list[Path] = []
    for file in files_of(path):
        with file.open("rb") as opened:
            (found if container.is_ours(opened.read(64)) else others).append(file)
    others = [file for file in others if file.suffix != ".json"]  # the report beside shards
    if not found or others:
        what = f"{others[0]} is none" if others else "it holds none"
        raise ScenarioError(
            f"{path}: streaming needs shards alone, and {what}: alpagym convert {path} out=FOLDER "
            "makes them"
        )
    return found


def prepare(
    shards: Sequence[Path],
    *,
    near: SimConfig | None = None,
    workers: int = 1,
    progress: Progress = _unheard,
) -> None:
    """Pack shards that are not yet, and with `near` list what is near each place of their maps.

    Args:
        shards: each is packed by one process.
        near: the observations that lists shall serve.
        workers: processes; 0 for all cores.
        progress: of what takes time.

    Raises:
        ScenarioError: a shard is damaged, or there is no writing beside it.
    """
    try:
        unpacked = [shard for shard in shards if open_packed(shard) is None]
        _make("packing", pack_shard, unpacked, workers, progress)
        if near is not None:
            unlisted = [shard for shard in shards if open_near(shard, near) is None]
            _make("listing", partial(list_near, config=near), unlisted, workers, progress)
    except OSError as error:
        name = error.filename or shards[0]
        raise ScenarioError(
            f"{name}: packed scenarios cannot be read or written there ({error.strerror})"
        ) from error


def take_away_stale(folder: Path) -> None:
    """Remove packed shards whose shard is gone."""
    for packed in (folder / FOLDER).glob(f"*{SUFFIX}"):
        name = packed.name.removesuffix(SUFFIX).partition(NEAR)[0]
        if not (folder / f"{name}{SUFFIX}").is_file():
            packed.unlink()


def _make(
    what: str,
    make: Callable[[Path], None],
    shards: Sequence[Path],
    workers: int,
    progress: Progress,
) -> None:
    workers = workers or os.cpu_count() or 1
    if workers == 1 or len(shards) < 2:
        for done, shard in enumerate(shards):
            progress(what, done, len(shards))
            make(shard)
    else:
        with dropping(processes(workers, len(shards))) as pool:
            for done, _ in enumerate(pool.map(make, shards)):
                progress(what, done, len(shards))
    if shards:
        progress(what, len(shards), len(shards))


class Library:
    """Drives of shards, N of them: each scenario's own, and those of other vehicles in it.

    Attributes:
        ids: of each drive.
        recordings: of which each is one.
        licenses: tag of each.
        shard: index of the shard it lies in, int64 [N].
        datasets: data set of each.
        num_agents: int64 [N].
        num_steps: that an episode lasts, int64 [N].
        difficulty: as of `scenarios.difficulty`, float32 [N].
        key: of random numbers, int64 [N].
        num_bytes: that each takes in a bank, int64 [N].
    """

    def __init__(
        self, shards: Sequence[Path], *, drives: int = 1, near: SimConfig | None = None
    ) -> None:
        """Open packed shards.

        Args:
            shards: that `prepare` has seen.
            drives: at most this many of each scenario.
            near: the observations that lists serve; without it banks have none.

        Raises:
            ScenarioError: a packed shard is damaged or missing; one sentence.
            ValueError: more drives than are kept.
        """
        if drives > MAX_DRIVES:
            raise ValueError(
                f"data.egos_per_scenario: expected at most {MAX_DRIVES} to stream, got {drives}"
            )
        self.shards = list(shards)
        self.near = near
        self._packed = [self._opened(shard, open_packed(shard)) for shard in self.shards]
        self._listed = (
            [self._opened(shard, open_near(shard, near)) for shard in self.shards] if near else []
        )
        self._sizes = np.concatenate([self._sizes_of(f) for f in range(len(self.shards))])
        self._facts = {name: self._joined(name) for name in FACTS}
        self._first = np.cumsum([0, *(len(blocks.begin) for blocks in self._packed)])
        self._index(drives)

    @staticmethod
    def _opened(shard: Path, blocks: Blocks | None) -> Blocks:
        if blocks is None:
            raise ScenarioError(f"{shard}: not packed")
        return blocks

    def _joined(self, name: str) -> np.ndarray:
        return np.concatenate([blocks.arrays[name] for blocks in self._packed])

    def _sizes_of(self, f: int) -> np.ndarray:
        sizes = self._packed[f].arrays["sizes"].astype(np.int64)
        sizes[:, _NEAR] = 0
        if self._listed:
            listed = self._listed[f].arrays["sizes"]
            cells = 4 * sizes[:, POOLS.index("grid_cells")]
            if len(listed) != len(sizes) or (listed[:, POOLS.index("small_cells")] != cells).any():
                raise ScenarioError(f"{self._listed[f].path}: sizes: those of other maps")
            sizes[:, _NEAR] = listed[:, _NEAR]
        return sizes

    def _index(self, drives: int) -> None:
        kept = self._joined("drives").astype(np.int64)
        taken = np.minimum(kept, drives)
        self._scenario = np.repeat(np.arange(len(kept)), taken)
        self._drive = np.arange(len(self._scenario)) - np.repeat(np.cumsum(taken) - taken, taken)
        row = (np.cumsum(kept) - kept)[self._scenario] + self._drive
        facts = {name: self._joined(name)[row] for name in DRIVE_FACTS}
        told = [told for blocks in self._packed for told in blocks.header["scenarios"]]
        of = [told[s] for s in self._scenario]
        self.shard = np.searchsorted(self._first, self._scenario, side="right") - 1
        self.ids = [
            f"{t['id']}{EGO_MARK}{track}" if drive else t["id"]
            for t, drive, track in zip(of, self._drive, facts["drive_track"], strict=True)
        ]
        self.recordings = [recording_of(t["id"]) for t in of]
        self.licenses = [t["license"] for t in of]
        self.datasets = [t["dataset"] for t in of]
        self.sources = [t["source"] for t in of]
        self.difficulty, self.key = facts["difficulty"], facts["drive_key"]
        self._num_egos, self._ego = facts["drive_num_egos"], facts["drive_ego"]
        self.num_agents = self._sizes[self._scenario, POOLS.index("agents")]
        last = self._facts["num_frames"].astype(np.int64) - 1 - self._facts["start_frame"]
        self.num_steps = last[self._scenario]
        self.dt = self._joined("dt")[self._scenario]
        self.num_bytes = bank_bytes(self._sizes)[self._scenario]

    def __len__(self) -> int:
        return len(self.ids)

    def usable(
        self, *, dt: float, min_steps: int = 0, max_agents: int = 0
    ) -> tuple[np.ndarray, list[str]]:
        """Drives that can be driven in steps of `dt` [s], and why others cannot, a line each."""
        reasons = []
        chosen = np.ones(len(self), bool)
        for i in range(len(self)):
            told = None
            if max_agents and self.num_agents[i] > max_agents:
                told = f"has {self.num_agents[i]} agents, more than max_agents={max_agents}"
            elif self.num_steps[i] < min_steps:
                told = f"lasts {self.num_steps[i]} steps, fewer than {min_steps}"
            elif not fits(float(self.dt[i]), dt):
                told = f"recorded every {self.dt[i]:.3g} s, not sim.dt={dt:g}"
            if told is not None:
                chosen[i] = False
                if self._drive[i] == 0:
                    reasons.append(f"{self.sources[i]}: {told}")
        return np.flatnonzero(chosen), reasons

    def fill(self, drives: np.ndarray, *, lanes: bool = True, memory: Tensor | None = None) -> Bank:
        """A bank of these drives on the host, read from packed shards and checked.

        Args:
            drives: indices, int [n].
            lanes: whether the lane graph is taken, as in `batch`.
            memory: as of `Bank`.

        Raises:
            ScenarioError: something was changed or is missing; one sentence.
        """
        scenario = self._scenario[drives]
        facts = {name: values[scenario] for name, values in self._facts.items()}
        facts |= {"key": self.key[drives], "num_egos": self._num_egos[drives]}
        bank = Bank(
            self._sizes[scenario],
            facts,
            lanes=lanes,
            drive=self._drive[drives],
            near_limits=near_limits(self.near).tolist() if self.near else None,
            memory=memory,
        )
        file = self.shard[drives]
        row = scenario - self._first[file]
        order = np.lexsort((row, file))
        try:
            self._copy(bank, order, file, row, self._packed, near=False)
            if self.near:
                self._copy(bank, order, file, row, self._listed, near=True)
        except OSError as error:
            name = error.filename or self.shards[0].parent
            raise ScenarioError(f"{name}: cannot be read ({error.strerror})") from error
        bank.finish()
        check_bank(bank, lambda k: f"{self._packed[file[k]].path}: scenario {self.ids[drives[k]]}")
        return bank

    @staticmethod
    def _copy(
        bank: Bank,
        order: np.ndarray,
        file: np.ndarray,
        row: np.ndarray,
        files: Sequence[Blocks],
        *,
        near: bool,
    ) -> None:
        longest = max(int(files[f].length[r]) for f, r in zip(file, row, strict=True))
        scratch = np.empty(longest, np.uint8)
        for part in np.split(order, np.flatnonzero(np.diff(file[order])) + 1):
            blocks = files[file[part[0]]].read(row[part].tolist(), scratch)
            for k, block in zip(part.tolist(), blocks, strict=True):
                bank.put(k, block, near=near)

    def capacity(self, count: int, drives: np.ndarray) -> int:
        """Memory that `count` of these drives take in a bank at most [bytes]."""
        return int(np.sort(self.num_bytes[drives])[-count:].sum()) + BANK_BYTES

    def scenarios(self, drives: Sequence[int]) -> list[Scenario]:
        """The drives as scenarios on the host, in this order."""
        shard_of = self.shard[drives]
        opened = {f: Shard(self.shards[f]) for f in sorted(set(shard_of.tolist()))}
        found = []
        for i, f in zip(drives, shard_of.tolist(), strict=True):
            scenario = opened[f].scenario(int(self._scenario[i] - self._first[f]))
            found.append(drives_of(scenario, int(self._drive[i]) + 1)[-1])
        return found
