"""The device that a run computes on, and its memory."""

from __future__ import annotations

import ctypes
import gc
import logging
import platform
import re
from collections.abc import Callable
from typing import TypeVar

import torch

from fno_runner.errors import GPU_FAILED, MachineError
from fno_runner.gpus import VISIBLE, given_gpus

log = logging.getLogger("fno_runner")

T = TypeVar("T")

OUT_OF_MEMORY = re.compile(
    r"out of memory"  # PyTorch's allocator of a GPU, the CUDA runtime, its driver
    r"|\w+_ALLOC(ATION)?_FAILED"  # cuBLAS, cuDNN, cuFFT, cuSOLVER
    r"|can't allocate memory|not enough memory"  # PyTorch's allocator of a CPU
    r"|could not create a primitive"  # oneDNN, of which a convolution needs memory, too
    r"|unable to find an engine"  # cuDNN, where each of its algorithms lacked its workspace
)
"""The words in which the libraries say that memory does not suffice."""
BROKEN_OFF = re.compile(r"due to a previous error during capture|stream has unjoined work")
"""What the end of a CUDA graph's capture says; the error that broke it off is its context."""
DEVICE_FAILURE = re.compile(
    r"CUDA (driver )?error(?!: CUBLAS)|No CUDA GPUs are available|CUDA call failed lazily"
    r"|(CUBLAS|CUDNN)_STATUS_(NOT_INITIALIZED|EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)"
    r"|CUFFT_(SETUP_FAILED|EXEC_FAILED|INTERNAL_ERROR)"
)
"""The words of a card that fails, as against an operation that a library does not have: busy or
unavailable, fallen off the bus, an ECC error, a failed launch, MPS without its daemon."""
CONTEXT_BYTES = 2**30
"""What a process may hold on a card beside PyTorch's memory: context, libraries, kernels. More than
this is other processes' memory."""
PLENTY_BYTES = 16 * 2**30
"""Enough for any network of sweep.yaml: what it needs takes up to a second to compute."""
PROBE_SIDE = 1024
"""Side of the matrices that `check_device` multiplies."""


# Of <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER = 2**31 - 1
USUAL = 32 * 2**20
"""The largest array [bytes] that the C library comes to keep by itself (DEFAULT_MMAP_THRESHOLD_MAX)
once it has seen arrays of that size freed; it trims its heap at twice that."""

_keeps = False


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


def halve_until_it_fits(
    work: Callable[[int], T], batch_size: int, what: str = "patterns a slice"
) -> tuple[T, int]:
    """`work(batch_size)`, with half the size each time that memory runs out, down to 1.

    Args:
        what: is halved; for the log.

    Returns:
        what `work` returned, and the size it succeeded with.

    Raises:
        RuntimeError, MemoryError: not even one at a time fits.
    """
    while True:
        try:
            return work(batch_size), batch_size
        except (RuntimeError, MemoryError) as error:
            if batch_size == 1 or not is_out_of_memory(error):
                raise
        # Only here has the failed attempt let go of its tensors: the error holds its frames. What
        # refers to itself, as captured work of an object does, goes with the next collection only.
        gc.collect()
        batch_size //= 2
        log.warning("out of memory: %d %s from here on", batch_size, what)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, on a GPU or on the CPU, in whichever library's words."""
    if BROKEN_OFF.search(str(error)) and error.__context__ is not None:
        return is_out_of_memory(error.__context__)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error)) is not None


def machine_failure(error: BaseException, device: torch.device) -> str | None:
    """Why an error on `device` is this machine's and not the point's, in a line; None if it is not.

    It is where the card fails, and where memory ran out of which other processes hold a part.
    """
    if device.type != "cuda":
        return None
    first_line = str(error).partition("\n")[0]
    if is_out_of_memory(error):
        others = _memory_of_others(device)
        if others == 0:
            return None
        whose = "" if others is None else f" (other processes hold {others / 2**30:.1f} GiB)"
        return f"{first_line}{whose}"
    is_failure = isinstance(error, torch.AcceleratorError | torch.cuda.DeferredCudaCallError) or (
        isinstance(error, RuntimeError) and DEVICE_FAILURE.search(str(error)) is not None
    )
    return f"{GPU_FAILED}: {first_line}" if is_failure else None


def _memory_of_others(device: torch.device) -> int | None:
    """How much of a card's memory other processes hold [bytes]; None where the card does not say.

    By cudaMemGetInfo, less what this process reserved and may have beside it (`CONTEXT_BYTES`).
    """
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError:
        return None
    return max(0, total - free - torch.cuda.memory_reserved(device) - CONTEXT_BYTES)


def check_device(device: torch.device) -> None:
    """Let a card compute something, before a point is spent on it; nothing on a CPU.

    Raises:
        MachineError: it is busy or broken, or computes nonsense.
    """
    if device.type != "cuda":
        return
    try:
        ones = torch.ones(PROBE_SIDE, PROBE_SIDE, device=device)
        is_right = bool((ones @ ones == PROBE_SIDE).all())  # integers, so exact in every precision
        torch.cuda.synchronize(device)
    except (RuntimeError, torch.cuda.DeferredCudaCallError) as error:
        reason = str(error).partition("\n")[0]
        raise MachineError(f"the GPU cannot be used: {reason}") from error
    if not is_right:
        raise MachineError("the GPU is broken: a product of matrices came out wrong")


def check_free_memory(device: torch.device, need: Callable[[], int]) -> None:
    """Refuse a card that has no room for a point; nothing on a CPU.

    Args:
        need: computes the memory that the point will take [bytes]; it is only asked where the card
            has less than `PLENTY_BYTES` free.

    Raises:
        MachineError: too little memory is free; says how much, and how much is needed.
    """
    if device.type != "cuda":
        return
    free, total = torch.cuda.mem_get_info(device)
    if free < PLENTY_BYTES and (needed := need()) > free:
        raise MachineError(
            f"the point needs about {needed / 2**30:.1f} GiB of the GPU, and {free / 2**30:.1f} of "
            f"{total / 2**30:.1f} GiB are free"
        )


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
