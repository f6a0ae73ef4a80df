"""Doing a batch's work in smaller batches where memory does not suffice."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

log = logging.getLogger("fno_runner")

T = TypeVar("T")

ON_CPU = ("can't allocate memory", "could not create a primitive")
"""What PyTorch's allocator says on a CPU; and oneDNN, of which a convolution needs memory, too."""


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
