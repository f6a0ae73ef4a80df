"""How many points at a time a GPU of this box has room for: `--per-gpu auto`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence

from agent.scheduling.mps import ANSWER_S, CONTROL, Say
from agent.scheduling.slots import cores
from agent.study.sweepfile import Sweep, points
from fno_runner.config import load_config

MOST = 8
"""More at a time than this were never tried."""
QUERY = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
"""Free memory [MiB]: it takes no part of the card's memory for itself, as a CUDA context does."""


def points_per_gpu(sweep: Sweep, gpus: Sequence[str], given: Mapping[str, str], say: Say) -> int:
    """As many as the card's free memory, this box's cores and `MOST` allow; says why so many.

    One where points would take turns for want of MPS, or where nobody can say what they need.

    Args:
        gpus: as CUDA_VISIBLE_DEVICES takes them.
    """
    if shutil.which(CONTROL, path=given.get("PATH")) is None:
        say(f"1 point at a time on each GPU: no {CONTROL} here, without which they take turns")
        return 1
    free = min(_free_bytes(gpus, given), default=None)
    if free is None or sweep.method != "grid":
        why = "the points are not known before" if free else f"{QUERY[0]} tells no free memory"
        say(f"1 point at a time on each GPU: {why} (--per-gpu K asks for K)")
        return 1
    from fno_runner.footprint import data_bytes_of, largest, memory_need  # PyTorch takes seconds

    need = max(
        memory_need(config, data_bytes_of(config))
        for config in largest(map(load_config, points(sweep)))
    )
    share = cores() // len(gpus)
    count = max(1, min(free // need, share, MOST))
    say(
        f"{count} point{'s' if count > 1 else ''} at a time on each GPU: one needs at most about "
        f"{need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free, {share} cores a GPU"
    )
    return count


def _free_bytes(gpus: Iterable[str], given: Mapping[str, str]) -> list[int]:
    """The free memory of each card, or nothing where it is not known."""
    try:
        done = subprocess.run(
            [*QUERY, "-i", ",".join(gpus)], capture_output=True, text=True, timeout=ANSWER_S,
            check=True, env=given,
        )  # fmt: skip
        return [int(line) * 2**20 for line in done.stdout.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
