"""Whether memory that a step frees stays in the process for the next step, or goes back."""

from __future__ import annotations

import ctypes
import platform

# Of <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
NEVER = 2**31 - 1
USUAL = 32 * 2**20
"""The largest array [bytes] that the C library comes to keep by itself (DEFAULT_MMAP_THRESHOLD_MAX)
once it has seen arrays of that size freed; it trims its heap at twice that."""

_keeps = False


def keep_freed_memory(keep: bool = True) -> None:
    """From now on, let freed arrays be taken again without asking the system (glibc only).

    By default large arrays go back to the system as soon as they are freed, and the next step gets
    them page by page, each cleared: a twentieth of a step on a CPU. The process's peak is the same.
    """
    global _keeps
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, NEVER if keep else USUAL)
    libc.mallopt(M_TRIM_THRESHOLD, NEVER if keep else 2 * USUAL)
    _keeps = keep


def keeps_freed_memory() -> bool:
    """What `keep_freed_memory` was last told."""
    return _keeps


def one_heap() -> None:
    """Let threads that start from now on share the main thread's heap (glibc only)."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
