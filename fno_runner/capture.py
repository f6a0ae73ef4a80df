"""Work recorded once as a CUDA graph, and replayed: one launch instead of some hundred."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fno_runner.device import is_out_of_memory

log = logging.getLogger("fno_runner")

WARM_UP = 3
"""Calls before a recording: what a library does only once must not be recorded."""

Work = Callable[..., Tensor]
"""From tensors on a GPU to a tensor there. It reads no number back and branches on no data, and a
number of the host stays what it was at the recording."""


@dataclass
class _Recording:
    """What is known of the calls with inputs of one shape."""

    calls: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    inputs: tuple[Tensor, ...] = ()
    output: Tensor = field(default_factory=lambda: torch.empty(0))


class Captured:
    """Work on a GPU that is recorded at each of its inputs' shapes, and replayed from then on.

    Where recording fails the work is done the plain way, call by call, and a line of the log says
    so once.
    """

    def __init__(self, work: Work, *, plain_if_full: bool = False) -> None:
        """
        Args:
            plain_if_full: whether to go the plain way, too, where the memory does not suffice for a
                recording. By default that error is the caller's, who has smaller batches.
        """
        self._work = work
        self._plain_if_full = plain_if_full
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}
        self._failed = False
        self._side: torch.cuda.Stream | None = None

    @property
    def captured(self) -> bool | None:
        """Whether work is replayed; False where recording failed, None where it was not tried."""
        if self._failed:
            return False
        return True if any(known.graph for known in self._recordings.values()) else None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """As the work; the output is overwritten by the next call with inputs of this shape."""
        if self._failed:
            return self._work(*inputs)
        known = self._recordings.setdefault(tuple(x.shape for x in inputs), _Recording())
        if known.graph is None:
            known.calls += 1
            if known.calls <= WARM_UP:
                return self._warm_up(inputs)
            if not self._record(known, inputs):
                return self._work(*inputs)
        assert known.graph is not None
        for kept, given in zip(known.inputs, inputs, strict=True):
            kept.copy_(given)
        known.graph.replay()
        return known.output

    def _warm_up(self, inputs: tuple[Tensor, ...]) -> Tensor:
        # On a stream of its own, as the recording itself will be. The same one each time: cuBLAS
        # keeps 32 MiB for every stream that it has seen.
        side = self._side = self._side or torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            output = self._work(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        return output

    def _record(self, known: _Recording, inputs: tuple[Tensor, ...]) -> bool:
        """Record the work, which computes nothing: no pattern is trained on twice.

        Returns:
            whether that went well.
        """
        known.inputs = tuple(x.clone() for x in inputs)
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        try:
            # The outer one brings the stream back where the end of a recording fails, too. Other
            # threads may do meanwhile what they like: a benchmark's other sides, a client's.
            with (
                torch.cuda.stream(torch.cuda.current_stream()),
                torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"),
            ):
                known.output = self._work(*known.inputs)
        except RuntimeError as error:
            if _ended_late(pool):
                _kept.append(graph)
            if is_out_of_memory(error) and not self._plain_if_full:
                raise
            reason = str(error).partition("\n")[0]
            log.warning("no CUDA graph of it could be made (%s): slower, step by step", reason)
            self._failed = True
            self._recordings.clear()
            return False
        known.graph = graph
        return True


_kept: list[torch.cuda.CUDAGraph] = []
"""Graphs that broke off: PyTorch's allocator of pinned memory goes on asking what they record."""


def _ended_late(pool: tuple[int, int]) -> bool:
    """Tell PyTorch's allocator that a recording is over, if it has not heard.

    It hears of an end that went well only (`CUDAGraph::capture_end`). Otherwise it keeps the
    recording's memory, frees no other where memory runs out, and refuses to empty its cache.
    """
    device = torch.cuda.current_device()
    end = getattr(torch._C, "_cuda_endAllocateToPool", None)
    release = getattr(torch._C, "_cuda_releasePool", None)
    if end is None or release is None:  # PyTorch before 2.8 has no such name
        return False
    try:
        end(device, pool)
    except RuntimeError:
        return False  # only the work failed
    release(device, pool)
    return True
