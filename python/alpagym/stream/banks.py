"""Two banks on the device: one that worlds drive in, and the next, which is filled meanwhile."""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from alpagym.scenarios.bank import BANK_BYTES, host_memory
from alpagym.scenarios.scenario import ScenarioError
from alpagym.store.library import Library
from alpagym.stream.curriculum import Curriculum
from alpagym.types import Scenarios


def _step_back() -> None:
    """Let the simulator go first on a CPU that both want: this thread has time."""
    if hasattr(os, "setpriority") and sys.platform == "linux":  # elsewhere it is the process's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


@dataclass
class Filled:
    """A bank on the device."""

    scenarios: Scenarios
    drives: np.ndarray
    """Which of the curriculum's scenarios they are, int64 [B]."""
    uploaded: torch.cuda.Event | None = None
    """Recorded when a GPU has everything."""


class Stream:
    """Scenarios for one rollout after the other, of a store that need not fit into memory.

    A bank holds scenarios for some rollouts. While worlds drive in one, a thread fills the other;
    they change places between two rollouts. What a bank holds is drawn when the one before it
    comes into use: it follows from the seed and from what was reported by then, never from how fast
    anything is.

    Memory for both banks is taken once: on a CPU for two banks; on a GPU for two, and on the host,
    pinned, for one more, from which a stream of its own copies while the simulator works.

    Attributes:
        scenarios: of the bank in use.
        names: ids of its scenarios.
        max_agents: of any scenario of the store.
        num_steps: that the longest episode lasts.
        waited_s: time that `draw` has waited for a bank so far.
        num_banks: that have been in use.
    """

    def __init__(
        self,
        library: Library,
        drives: np.ndarray,
        curriculum: Curriculum,
        *,
        scenarios: int,
        per_rollout: int,
        max_bytes: int,
        lanes: bool,
        device: str | torch.device = "cpu",
    ) -> None:
        """Draw and fill the first bank, and begin with the second.

        Args:
            library: where scenarios come from.
            drives: that `curriculum` draws of, as indices into `library`, int [N].
            curriculum: of N scenarios.
            scenarios: that a bank holds at most.
            per_rollout: that `draw` gives at a time; banks hold a multiple of it, where they can.
            max_bytes: of memory for both banks; a bank holds fewer scenarios where its half is
                full.
            lanes: whether traffic drives along the lane graph.
            device: where banks lie.

        Raises:
            ScenarioError: a scenario that does not fit into half of `max_bytes`, or a damaged
                store.
        """
        self._library, self._drives, self._curriculum = library, np.asarray(drives), curriculum
        self._count, self._per_rollout, self._lanes = scenarios, per_rollout, lanes
        self._device = torch.device(device)
        self.max_agents = int(library.num_agents[drives].max())
        self.num_steps = int(library.num_steps[drives].max())
        largest = int(library.num_bytes[drives].max()) + BANK_BYTES
        if largest > max_bytes // 2:
            name = library.ids[int(drives[np.argmax(library.num_bytes[drives])])]
            raise ScenarioError(
                f"stream.max_mib: expected room for two banks of at least one scenario, "
                f"{2 * largest / 2**20:.1f} MiB for {name}, got {max_bytes / 2**20:.0f}"
            )
        size = min(max_bytes // 2, library.capacity(scenarios, self._drives))
        cuda = self._device.type == "cuda"
        self._memory = [
            torch.empty(size, dtype=torch.uint8, device=device) if cuda else host_memory(size)
            for _ in range(2)
        ]
        self._pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True) if cuda else None
        self._side = torch.cuda.Stream(self._device) if cuda else None
        self._unused: list[torch.cuda.Event | None] = [None, None]
        self._thread = ThreadPoolExecutor(1, "bank", _step_back)
        self.waited_s, self.num_banks = 0.0, 0
        self._turn = 1
        self._next = self._begin(self._draw())
        self._taken = 0
        self._swap(None)

    @property
    def memory_bytes(self) -> int:
        """Of both banks."""
        return sum(len(memory) for memory in self._memory)

    def draw(self) -> Tensor:
        """Scenarios of the next rollout, as indices into `scenarios`, int32 on the host.

        Changes banks when the one in use has too few left. None comes twice, unless a bank holds
        fewer than a rollout takes.
        """
        count = self._per_rollout
        if self._taken and self._taken + count > len(self._now.drives):
            self.advance()
        index = self._taken + torch.arange(count, dtype=torch.int32)
        self._taken += count
        return index % len(self._now.drives)

    def advance(self) -> None:
        """Take the next bank into use, whatever is left of this one."""
        self._swap(None)

    def report(self, scenario: Tensor, failing: Tensor, dead: Tensor) -> None:
        """Tell the curriculum of groups: as `Curriculum.report`, by indices that `draw` gave."""
        index = self._now.drives[scenario.numpy()]
        self._curriculum.report(index, failing.double().numpy(), dead.numpy())

    def wait(self) -> None:
        """Wait until the next bank is filled."""
        self._next.result()

    def close(self) -> None:
        """End the thread; what it fills is given up."""
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Everything that later draws depend on, but for the store, the seed and the options."""
        return {
            "now": torch.from_numpy(self._now.drives.copy()),
            "next": torch.from_numpy(self._pending.copy()),
            "taken": self._taken,
            "num_banks": self.num_banks,
            "curriculum": self._curriculum.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called: the same draws follow.

        Raises:
            ScenarioError: it is of another stream.
        """
        self._curriculum.load_state_dict(state["curriculum"])
        self._next.result()
        self._next = self._begin(state["now"].numpy())
        self._swap(state["next"].numpy())
        self._taken, self.num_banks = state["taken"], state["num_banks"]

    def _draw(self) -> np.ndarray:
        """What the next bank holds: as many as are due, and as fit."""
        due = self._curriculum.due(self._count)
        ends = np.cumsum(self._library.num_bytes[self._drives[due]]) + BANK_BYTES
        fit = int(np.searchsorted(ends, len(self._memory[0]), side="right"))
        if fit > self._per_rollout:
            fit -= fit % self._per_rollout
        self._curriculum.take(due[:fit])
        return due[:fit]

    def _begin(self, drawn: np.ndarray) -> Future[Filled]:
        """Let the thread fill the bank that is not in use."""
        self._pending = drawn
        return self._thread.submit(self._fill, drawn, 1 - self._turn)

    def _swap(self, then: np.ndarray | None) -> None:
        """Take the next bank into use, and begin with the one after it, of `then` if given."""
        started = time.perf_counter()
        self._now = self._next.result()
        if self.num_banks:
            self.waited_s += time.perf_counter() - started
        if self._side is not None:
            current = torch.cuda.current_stream(self._device)
            if self._now.uploaded is not None:
                current.wait_event(self._now.uploaded)
            self._unused[self._turn] = current.record_event()
        self._turn = 1 - self._turn
        self._taken = 0
        self.num_banks += 1
        self.scenarios = self._now.scenarios
        self.names = [self._library.ids[i] for i in self._drives[self._now.drives]]
        self._next = self._begin(self._draw() if then is None else then)

    def _fill(self, drawn: np.ndarray, turn: int) -> Filled:
        """Fill a bank; runs in the thread."""
        memory = self._memory[turn]
        staging = memory if self._pinned is None else self._pinned
        bank = self._library.fill(self._drives[drawn], lanes=self._lanes, memory=staging)
        if self._side is None:
            return Filled(bank.tensors(memory), drawn)
        with torch.cuda.stream(self._side):
            unused = self._unused[turn]
            if unused is not None:
                self._side.wait_event(unused)
            used = slice(bank.num_bytes)
            memory[used].copy_(staging[used], non_blocking=True)
            uploaded = self._side.record_event()
        uploaded.synchronize()  # before the next bank is filled in the same pinned memory
        return Filled(bank.tensors(memory), drawn, uploaded)
