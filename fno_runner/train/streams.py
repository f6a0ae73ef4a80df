"""Several networks at once on a GPU: each one's work on a stream of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class OnStreams:
    """The same work of K networks, begun together and done when all are.

    No number of one network meets a number of another: each is what it would be alone. Recorded
    (`fno_runner.capture`) the streams are branches of one graph, whose kernels share the card.
    """

    def __init__(self, works: Sequence[Callable[[Tensor], Tensor]]) -> None:
        """`works`: from row numbers, int64 (B,), to a number on the device, float32 ()."""
        self._works = tuple(works)
        self._streams = [torch.cuda.Stream() for _ in works]

    def __call__(self, rows: Tensor) -> Tensor:
        """From each network's row numbers, int64 (K, B), to their numbers, float32 (K,)."""
        begun_from = torch.cuda.current_stream()
        begun: list[torch.cuda.Stream] = []
        results = []
        try:
            for work, stream, its_rows in zip(self._works, self._streams, rows, strict=True):
                stream.wait_stream(begun_from)
                begun.append(stream)
                with torch.cuda.stream(stream):
                    results.append(work(its_rows))
        finally:
            # Also where memory runs out: a recording can only be ended where its streams have met,
            # and one that has not ended keeps its memory. A stream that was not begun is not in it.
            for stream in begun:
                begun_from.wait_stream(stream)
        return torch.stack(results)
