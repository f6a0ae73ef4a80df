"""Where a box works at a time: one slot a GPU, or several; CPU slots where there is no GPU."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fno_runner.cli import count_of
from fno_runner.errors import MachineError, UserError
from fno_runner.gpus import VISIBLE, count_gpus, given_gpus
from fno_runner.result import BESIDE

ALL, NONE, AUTO = "all", "none", "auto"
MAX_PER_GPU, MAX_WORKERS = 64, 256
ORDER = "CUDA_DEVICE_ORDER"
MAX_UNFIT = 3
"""A slot stops after so many runs in a row that found their machine or its data unfit."""
MAX_BREAKS = 3
"""A point has failed that made a card fail so often, if other points finish in the same slot."""


@dataclass(frozen=True)
class Slot:
    """A place for one agent, or one run.

    name: gpu0; gpu0.1, where a GPU has several; cpu1; worker2.
    variables: what the environment there has beside or instead of the caller's.
    """

    name: str
    variables: Mapping[str, str]


def plan_slots(
    wanted: str, per_gpu: int, gpus: Sequence[str], given: Mapping[str, str]
) -> list[Slot]:
    """The slots of this box.

    Args:
        wanted: `all`, `none`, or places in `gpus`, such as `0,2`.
        per_gpu: slots a GPU; where no GPU is used, slots in all.
        gpus: the names that CUDA_VISIBLE_DEVICES takes, of the GPUs that may be used.
        given: the caller's environment.

    Raises:
        UserError: `wanted` is none of these.
        MachineError: it asks for a GPU that is not there.
    """
    places = _places(wanted, len(gpus))
    share = _threads(max(1, len(places)) * per_gpu, given)
    share |= _beside(per_gpu)
    if not places:
        return [Slot(f"cpu{k}", {**share, VISIBLE: ""}) for k in range(per_gpu)]
    if VISIBLE not in given and ORDER not in given:
        share[ORDER] = "PCI_BUS_ID"  # the numbers of nvidia-smi; CUDA's own begin with the fastest
    return [
        Slot(f"gpu{place}" + (f".{k}" if per_gpu > 1 else ""), {**share, VISIBLE: gpus[place]})
        for k in range(per_gpu)  # every GPU has its first before one has its second
        for place in places
    ]


def shared_slots(count: int, given: Mapping[str, str]) -> list[Slot]:
    """So many slots that share the cores, and whatever GPU the caller's environment gives."""
    share = _threads(count, given) | _beside(count)
    return [Slot(f"worker{k}", share) for k in range(count)]


def _threads(workers: int, given: Mapping[str, str]) -> dict[str, str]:
    """The variables that share the cores out among the workers, unless `given` has its own."""
    if "OMP_NUM_THREADS" in given:
        return {}
    share = str(max(1, cores() // workers))
    return {"MKL_NUM_THREADS": given.get("MKL_NUM_THREADS", share), "OMP_NUM_THREADS": share}


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _beside(slots: int) -> dict[str, str]:
    """What tells a run that its times are taken beside those of other slots."""
    return {BESIDE: str(slots - 1)} if slots > 1 else {}


def add_slot_options(parser: argparse.ArgumentParser) -> None:
    """--workers and --per-gpu, of a command that runs points on this box."""
    at_a_time = parser.add_mutually_exclusive_group()
    at_a_time.add_argument("--workers", type=count_of(MAX_WORKERS), metavar="N",
        help="points at a time, all on the first GPU if any (default without one: 1)")  # fmt: skip
    at_a_time.add_argument("--per-gpu", type=count_or_auto, metavar="K|auto",
        help="points at a time on every GPU, under CUDA MPS; where there is none, on the CPU "
        "(default with a GPU: auto, by free memory, need and cores)")  # fmt: skip


def count_or_auto(text: str) -> int | str:
    """The type of --per-gpu."""
    if text == AUTO:
        return text
    try:
        return count_of(MAX_PER_GPU)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or {AUTO}") from None


def slot_words(args: argparse.Namespace) -> list[str]:
    """These options as they are written, for another such command."""
    options = {"--workers": args.workers, "--per-gpu": args.per_gpu}
    return [f"{option}={value}" for option, value in options.items() if value is not None]


def asked_slots(
    args: argparse.Namespace, given: Mapping[str, str], auto: Callable[[Sequence[str]], int]
) -> list[Slot]:
    """The slots that these options ask for.

    Args:
        auto: how many slots each of these GPUs is to have where nobody said how many.

    Raises:
        MachineError: CUDA_VISIBLE_DEVICES names a GPU that PyTorch does not find.
    """
    if args.workers is not None:
        return shared_slots(args.workers, given)
    gpus, per_gpu = usable_gpus(given), args.per_gpu
    if per_gpu in (None, AUTO):
        if not gpus:
            return shared_slots(1, given)
        per_gpu = auto(gpus)
    return plan_slots(ALL, per_gpu, gpus, given)


def usable_gpus(given: Mapping[str, str] = os.environ) -> list[str]:
    """The names that CUDA_VISIBLE_DEVICES takes, of the GPUs that this process may use.

    Raises:
        MachineError: that variable names a GPU that PyTorch does not find.
    """
    names = given_gpus(given)
    if names is not None and not names:
        return []
    count = count_gpus()
    if names is None:
        return [str(number) for number in range(count)]
    if count == 0:
        raise MachineError(f"{VISIBLE}={','.join(names)} asks for a GPU and PyTorch finds none")
    if names[0].startswith("MIG-"):
        return list(names)  # CUDA shows a process one part of a partitioned GPU only
    if count < len(names):
        # CUDA takes no notice of what stands behind the first name that is wrong.
        raise MachineError(
            f"{VISIBLE}={','.join(names)}: PyTorch finds no GPU {names[count]}, only "
            f"{','.join(names[:count])}"
        )
    return list(names)


def _places(wanted: str, count: int) -> list[int]:
    if wanted == NONE:
        return []
    if wanted == ALL:
        return list(range(count))
    if not re.fullmatch(r"\d{1,4}(,\d{1,4})*", wanted):
        raise UserError(f"--gpus {wanted}: allowed is all, none, or numbers such as 0,2")
    places = [int(number) for number in wanted.split(",")]
    if len(set(places)) < len(places):
        raise UserError(f"--gpus {wanted}: a GPU is listed twice (--per-gpu 2 gives it two agents)")
    if missing := [place for place in places if place >= count]:
        there = ", ".join(map(str, range(count)))
        has = f"those that may be used here are {there}" if count else "PyTorch finds no GPU here"
        raise MachineError(f"--gpus {wanted}: there is no GPU {missing[0]}; {has}")
    return places
