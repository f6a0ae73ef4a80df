"""Freed memory is taken again without page faults, or goes back, as one says."""

from __future__ import annotations

import platform
import resource

import numpy as np
import pytest

from fno_runner.device import keep_freed_memory, keeps_freed_memory

SIZE = 96 * 2**20
FEW = 10 * SIZE // resource.getpagesize() // 512
"""A fault for every huge page, which numpy asks for."""


def faults() -> int:
    """Page faults of writing 96 MiB ten times, each time into a new array."""
    np.ones(SIZE, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(SIZE, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc's malloc")
def test_kept_memory_is_not_faulted_in_again() -> None:
    before = keeps_freed_memory()
    try:
        keep_freed_memory()
        assert (keeps_freed_memory(), faults()) == (True, 0)
        keep_freed_memory(False)
        assert not keeps_freed_memory() and faults() >= FEW
    finally:
        keep_freed_memory(before)
