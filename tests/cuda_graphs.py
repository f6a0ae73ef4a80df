"""A stand-in for CUDA graphs and streams on a CPU, for the code that only a GPU would run.

What PyTorch executes while a graph is captured is recorded, operation by operation, with the very
tensors it was done on; a replay does the same operations on the same tensors. So a number of the
host that a graph would have baked in is baked in here as well, and a recording changes nothing, as
it computes nothing on a GPU. Not shown is a tensor that is freed before a replay uses it, and of
streams that do not wait for each other only what `streams_joined` and copies tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Graph:
    """As `torch.cuda.CUDAGraph`; counts its replays."""

    made: list[Graph]

    def __init__(self) -> None:
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.replays = 0
        Graph.made.append(self)

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, recorded in self.operations:
                result = func(*args, **kwargs)
                for old, new in zip(tree_leaves(recorded), tree_leaves(result), strict=True):
                    if isinstance(old, Tensor) and not _same_place(old, new):
                        old.copy_(new)


class _Recorder(TorchDispatchMode):
    """Notes every operation; keeps what was there before it is overwritten."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = graph
        self._made: set[int] = set()
        self._older: set[int] = set()
        self._before: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        kwargs = kwargs or {}
        if func.namespace == "profiler":
            return func(*args, **kwargs)
        given = {_address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        self._older |= given - self._made
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tree_leaves(value):
                    self._keep(tensor)
        result = func(*args, **kwargs)
        self._graph.operations.append((func, args, kwargs, result))
        made = {_address(leaf) for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        self._made |= made - self._older
        return result

    def _keep(self, tensor: Tensor) -> None:
        key = (_address(tensor), int(tensor.storage_offset()))
        if key[0] in self._older and key not in self._before:
            self._before[key] = (tensor, tensor.clone())

    def take_back(self) -> None:
        with torch.no_grad():
            for tensor, before in self._before.values():
                tensor.detach().copy_(before)


class _Capture:
    """As `torch.cuda.graph`."""

    failure: Exception | None = None
    """What a recording ends in, if anything."""
    underway: set[tuple[int, int]]
    """The pools of memory whose recordings have not ended, as the allocator believes."""

    def __init__(
        self, graph: Graph, pool: tuple[int, int], capture_error_mode: str = "global"
    ) -> None:
        assert capture_error_mode == "thread_local"
        self._recorder, self._pool = _Recorder(graph), pool
        self._waits = len(_Stream.waits)

    def __enter__(self) -> None:
        assert not _Capture.underway, "captures_underway.empty() INTERNAL ASSERT FAILED"
        _Capture.underway.add(self._pool)
        self._recorder.__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        self._recorder.__exit__(*error)  # type: ignore[no-untyped-call]
        self._recorder.take_back()
        if self.failure is not None:
            raise self.failure
        if not _joined(_Stream.waits[self._waits :]):
            raise RuntimeError("CUDA error: capturing stream has unjoined work")
        _Capture.underway.remove(self._pool)

    @staticmethod
    def end(device: int, pool: tuple[int, int]) -> None:
        """As the allocator's `endAllocateToPool`."""
        if pool not in _Capture.underway:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        _Capture.underway.remove(pool)


class _Stream:
    """As `torch.cuda.Stream`.

    Copies that nobody need wait for are left undone until somebody waits for the stream: whoever
    forgets to finds the old numbers there.
    """

    waits: list[tuple[_Stream, _Stream]]

    def __init__(self) -> None:
        self.undone: list[Callable[[], object]] = []

    def wait_stream(self, other: _Stream) -> None:
        _Stream.waits.append((self, other))
        other.synchronize()

    def synchronize(self) -> None:
        undone, self.undone = self.undone, []
        for copy in undone:
            copy()


class _Leaving(TorchDispatchMode):
    """Leaves copies that need not be waited for to a stream."""

    def __init__(self, stream: _Stream) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stream = stream

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        if func is torch.ops.aten.copy_.default and args[2:] == (True,):
            self._stream.undone.append(partial(func, *args))
            return args[0]
        return func(*args, **(kwargs or {}))


class _On:
    """As `torch.cuda.stream`."""

    current: list[_Stream]

    def __init__(self, stream: _Stream) -> None:
        self._stream, self._mode = stream, _Leaving(stream)

    def __enter__(self) -> None:
        _On.current.append(self._stream)
        if self._stream is not _On.current[0]:
            self._mode.__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        if self._stream is not _On.current[0]:
            self._mode.__exit__(*error)  # type: ignore[no-untyped-call]
        _On.current.pop()


class _Event:
    """As `torch.cuda.Event`; between any two of them a millisecond passes."""

    def __init__(self, enable_timing: bool = False) -> None:
        self._stream, self._timed = _Stream(), enable_timing

    def record(self) -> None:
        self._stream = _On.current[-1]

    def synchronize(self) -> None:
        self._stream.synchronize()

    def elapsed_time(self, later: _Event) -> float:
        assert self._timed and later._timed
        return 1.0


class StandIn:
    """What a test may ask of it, once it is in place.

    released: the pools of memory that were given back beside their graphs.
    """

    released: list[tuple[int, int]]

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Graph.made, _Stream.waits, _On.current = [], [], [_Stream()]
        _Capture.underway, self.released = set(), []
        self._monkeypatch = monkeypatch
        pools = count(1)
        replaced: dict[str, Callable[..., Any]] = {
            "CUDAGraph": Graph,
            "graph": _Capture,
            "Stream": _Stream,
            "stream": _On,
            "current_stream": lambda: _On.current[-1],
            "Event": _Event,
            "graph_pool_handle": lambda: (0, next(pools)),
            "current_device": lambda: 0,
        }
        for name, value in replaced.items():
            monkeypatch.setattr(torch.cuda, name, value)
        of_allocator: dict[str, Callable[[int, tuple[int, int]], None]] = {
            "_cuda_endAllocateToPool": _Capture.end,
            "_cuda_releasePool": lambda _, pool: self.released.append(pool),
        }
        for name, call in of_allocator.items():
            monkeypatch.setattr(torch._C, name, call, raising=False)

    @property
    def replays(self) -> list[int]:
        """Of each graph that was captured whole, in the order of capture."""
        return [graph.replays for graph in Graph.made]

    @property
    def streams_joined(self) -> bool:
        """Whether every stream that went its own way was waited for."""
        return _joined(_Stream.waits)

    @property
    def underway(self) -> set[tuple[int, int]]:
        """The pools whose recordings the allocator believes to go on."""
        return _Capture.underway

    def fail(self, error: Exception) -> None:
        """Let every capture from now on end in this error."""
        self._monkeypatch.setattr(_Capture, "failure", error)


def _joined(waits: Sequence[tuple[_Stream, _Stream]]) -> bool:
    begun = {mine for mine, other in waits if other is _On.current[0]}
    return begun <= {other for _, other in waits}


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _same_place(a: Tensor, b: Tensor) -> bool:
    return _address(a) == _address(b) and a.storage_offset() == b.storage_offset()
