"""Freed memory is taken again without page faults, or goes back, as one says."""

from __future__ import annotations

import json
import platform
import resource

import numpy as np
import pytest

from fno_runner.device import keep_freed_memory, keeps_freed_memory
from tests.commands import python_m

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
    """In a process of its own: what other tests kept lies in this one's heap, whatever is said."""
    done = python_m("tests.test_heap")
    assert done.returncode == 0, done.stderr
    kept, given_back = json.loads(done.stdout)
    assert kept == [True, 0]
    assert given_back[0] is False and given_back[1] >= FEW


def main() -> None:
    """Print, for memory that is kept and that is not, whether it is said to be, and its faults."""
    seen = []
    for keep in (True, False):
        keep_freed_memory(keep)
        seen.append((keeps_freed_memory(), faults()))
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
