"""The device that a run computes on, and its memory."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from fno_runner.errors import MachineError

log = logging.getLogger("fno_runner")

T = TypeVar("T")

VISIBLE = "CUDA_VISIBLE_DEVICES"
GPU_NAME = re.compile(r"\d+|(GPU|MIG)-\S+")


ON_CPU = ("can't allocate memory", "could not create a primitive")
"""What PyTorch's allocator says on a CPU; and oneDNN, of which a convolution needs memory, too."""


# Of <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
NEVER = 2**31 - 1
USUAL = 32 * 2**20
"""The largest array [bytes] that the C library comes to keep by itself (DEFAULT_MMAP_THRESHOLD_MAX)
once it has seen arrays of that size freed; it trims its heap at twice that."""

_keeps = False


def given_gpus(variables: Mapping[str, str] = os.environ) -> tuple[str, ...] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names: numbers, or names that begin with GPU- or MIG-.

    What follows a word that is no such name does not count, as for CUDA: -1, or the NoDevFiles of
    schedulers, hides all. None where the variable is not set: every GPU there is.
    """
    if VISIBLE not in variables:
        return None
    names: list[str] = []
    for word in variables[VISIBLE].split(","):
        if not GPU_NAME.fullmatch(word.strip()):
            break
        names.append(word.strip())
    return tuple(names)


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is a CUDA device if there is one.

    Raises:
        MachineError: `cuda` was asked for and there is none; or `auto`, and CUDA_VISIBLE_DEVICES
            names a GPU that PyTorch does not find.
    """
    if name == "cpu" or torch.cuda.is_available():
        return torch.device("cpu" if name == "cpu" else "cuda")
    if name == "cuda":
        raise MachineError("device=cuda: this machine has no CUDA device that PyTorch can use")
    if gpus := given_gpus():
        # Days on a CPU are not what somebody wants who was given a GPU.
        raise MachineError(
            f"{VISIBLE}={','.join(gpus)} asks for a GPU and PyTorch finds none "
            f"(device=cpu does without)"
        )
    return torch.device("cpu")


def allow_tf32(allowed: bool) -> None:
    """Whether a GPU may round float32 factors to 10 bits: cuDNN does unless told not to."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def halve_until_it_fits(work: Callable[[int], T], batch_size: int) -> tuple[T, int]:
    """`work(batch_size)`, with half the size each time that memory runs out, down to 1.

    Returns:
        what `work` returned, and the size it succeeded with.

    Raises:
        RuntimeError: not even one at a time fits (torch.OutOfMemoryError on a GPU).
    """
    while True:
        try:
            return work(batch_size), batch_size
        except RuntimeError as error:
            if batch_size == 1 or not is_out_of_memory(error):
                raise
        # Only here has the failed attempt let go of its tensors: the error holds its frames.
        batch_size //= 2
        log.warning("out of memory: %d patterns a slice from here on", batch_size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch could not allocate, on a GPU or (a plain RuntimeError) on the CPU."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in ON_CPU)


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
