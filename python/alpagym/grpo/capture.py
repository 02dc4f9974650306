"""A rollout as one CUDA graph: what a GPU was told once, it need not be told again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable
from itertools import chain

import torch
from torch import Tensor, nn

Run = Callable[[], None]


def cuda_graph(run: Callable[[], object]) -> Run:
    """A function that replays what `run` does on the current GPU.

    Raises:
        RuntimeError: `run` waits for the GPU, or does what a graph cannot hold.
    """
    torch.clear_autocast_cache()  # casts made before would be replayed from freed memory
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            run()
    finally:
        torch.clear_autocast_cache()  # those made inside belong to the graph
    return graph.replay


class Captured:
    """Repeats work on the same tensors: eager at first, then captured and replayed.

    The first run with a policy prepares what libraries set up on their first use; the second is
    captured. A policy that has changed in place is the same policy; one whose parameters lie
    elsewhere is not.
    """

    def __init__(self, capture: Callable[[Run], Run] = cuda_graph) -> None:
        self._capture = capture
        self._policy: nn.Module | None = None
        self._key: Hashable = None
        self._replay: Run | None = None
        self._refused = False

    def __call__(self, run: Run, policy: nn.Module, read: Iterable[Tensor] = ()) -> None:
        """Do what `run` does, which drives with `policy`.

        `read` are tensors that `run` reads and that others may take the place of.
        """
        key = (*_key(policy), *((t.data_ptr(), t.shape) for t in read))
        if policy is not self._policy or key != self._key:
            self._policy, self._key, self._replay, self._refused = policy, key, None, False
            run()
            return
        if self._replay is None and not self._refused:
            try:
                self._replay = self._capture(run)  # which does nothing yet
            except RuntimeError as error:
                self._refused = True
                reason = str(error).splitlines()[0]
                warnings.warn(
                    f"rollouts of {type(policy).__name__} run without a CUDA graph: {reason}",
                    stacklevel=2,
                )
        (self._replay or run)()


def _key(policy: nn.Module) -> tuple[Hashable, ...]:
    """What a capture holds on to: where weights lie, and how the policy computes with them."""
    device = next((p.device.type for p in policy.parameters()), "cpu")
    return (
        policy.training,
        torch.is_autocast_enabled(device),
        torch.get_autocast_dtype(device),
        *(t.data_ptr() for t in chain(policy.parameters(), policy.buffers())),
    )
