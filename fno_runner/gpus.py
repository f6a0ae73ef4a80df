"""Which GPUs a process may use, asked without PyTorch where it can be: its import takes seconds."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
GPU_NAME = re.compile(r"\d+|(GPU|MIG)-\S+")
DRIVER, AMD_DEVICE = "libcuda.so.1", Path("/dev/kfd")


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


def count_gpus() -> int:
    """How many GPUs PyTorch finds, of those that CUDA_VISIBLE_DEVICES names."""
    if sys.platform == "linux" and not AMD_DEVICE.exists():
        try:
            ctypes.CDLL(DRIVER)
        except OSError:  # without the driver's library PyTorch finds none, and takes long to say so
            return 0
    import torch  # takes seconds

    return torch.cuda.device_count()  # by NVML, if it can: CUDA is not begun for it
