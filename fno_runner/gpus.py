"""Which GPUs a process was given: what CUDA_VISIBLE_DEVICES names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

VISIBLE = "CUDA_VISIBLE_DEVICES"
GPU_NAME = re.compile(r"\d+|(GPU|MIG)-\S+")


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
