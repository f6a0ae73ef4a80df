"""Recordings on a card that break off: what comes after them has the card as before."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fno_runner.capture import WARM_UP, Captured
from fno_runner.train.streams import OnStreams


def assert_usable(x: Tensor) -> None:
    """Another recording is made and replayed, and the allocator empties its cache.

    It refuses to where it believes that a recording goes on.
    """
    torch.cuda.empty_cache()
    twice = Captured(lambda x: 2 * x)
    for _ in range(WARM_UP + 2):
        assert twice(x).tolist() == [2.0] * len(x)
    assert twice.captured is True


def test_work_that_reads_back_goes_on_plainly(card: torch.device) -> None:
    x = torch.ones(4, device=card)
    scaled = Captured(lambda x: x * float(x.sum()))
    for _ in range(WARM_UP + 2):
        assert scaled(x).tolist() == [4.0] * 4
    assert scaled.captured is False
    assert_usable(x)


def test_memory_that_runs_out_on_one_of_several_streams_is_what_the_caller_hears(
    card: torch.device,
) -> None:
    def full(rows: Tensor) -> Tensor:
        if torch.cuda.is_current_stream_capturing():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rows.sum()

    at_once = Captured(OnStreams([torch.sum, full, torch.sum]))
    rows = torch.ones(3, 4, device=card)
    for _ in range(WARM_UP):
        assert at_once(rows).tolist() == [4.0] * 3
    with pytest.raises(torch.OutOfMemoryError):
        at_once(rows)
    assert_usable(rows[0])
