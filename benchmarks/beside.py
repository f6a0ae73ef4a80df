"""Several processes that train on one GPU at once, with CUDA MPS and without.

As a program (`python -m benchmarks.beside`) it is one of these processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from time import monotonic

import torch

from agent.scheduling.mps import PIPES, shared_by_mps
from agent.scheduling.slots import plan_slots
from benchmarks.floor import floor, work
from benchmarks.machine import Rates
from benchmarks.measurement import Measurement
from benchmarks.plan import Network, Plan, burn_in, noise
from benchmarks.training import ENDLESS, leaving, training
from fno_runner.errors import MachineError
from fno_runner.gpus import given_gpus

COUNTS = (4, 8)
EPOCHS = 10
"""That each process trains; those count in which all were at work."""
SIDE = "bf16"

Span = tuple[float, float]
"""Begin and end of an epoch's steps, by the machine's clock [s]."""


def measure_beside(
    network: Network, device: torch.device, rates: Rates, plan: Plan
) -> list[Measurement]:
    """What a training step takes of a device, when several processes train on it.

    Where there is no MPS its numbers are left out.
    """
    least = floor(work(network.config(SIDE), network.batch, training=True), rates)
    measured = []
    for count in COUNTS:
        given = {name: value for name, value in os.environ.items() if name != PIPES}
        slots = plan_slots("0", count, given_gpus() or ("0",), given)
        for is_shared in (False, True):
            with ExitStack() as stack:
                if is_shared:
                    said: list[str] = []
                    slots, _ = stack.enter_context(shared_by_mps(slots, given, said.append))
                    if PIPES not in slots[0].variables:
                        continue
                places = [{**given, **slot.variables} for slot in slots]
                seconds = step_times(network, device, plan.steps, places)
            measured.append(
                Measurement(
                    f"training step, {count} processes at once, of each",
                    network.label,
                    f"{SIDE}, {'MPS' if is_shared else 'in turns'}",
                    "s",
                    tuple(seconds),
                    floor=least,
                )
            )
    return measured


def step_times(
    network: Network, device: torch.device, steps: int, places: Sequence[Mapping[str, str]]
) -> list[float]:
    """A model's step [s] where a process trains in each of these environments.

    Of each epoch in which all of them were at work: its steps' time over their number, and over the
    number of processes.

    Raises:
        MachineError: a process fails.
    """
    options = device.type, str(steps), network.as_json()
    command = [sys.executable, "-m", "benchmarks.beside", *options]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    command, env=dict(place), text=True, stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            for place in places
        ]  # fmt: skip
        try:
            for process in processes:
                assert process.stdout is not None
                if process.stdout.readline() != "ready\n":
                    raise MachineError("a process beside others ended before it was warm")
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            spans = [json.loads(process.communicate()[0]) for process in processes]
        except BaseException:
            for process in processes:
                process.kill()
            raise
    if any(process.returncode for process in processes):
        raise MachineError("a process beside others failed")
    return [(end - begin) / steps / len(places) for begin, end in in_common(spans)]


def in_common(spans: Sequence[Sequence[Span]]) -> list[Span]:
    """Of the epochs of several processes those in which none had ended or was still to begin."""
    begin = max(of_one[0][0] for of_one in spans)
    end = min(of_one[-1][1] for of_one in spans)
    return [span for of_one in spans for span in of_one if begin <= span[0] and span[1] <= end]


class _DoneError(Exception):
    """Ends the training from inside."""


def main() -> None:
    """Train until warm, say so, wait for the start, and print the spans of the epochs as JSON."""
    device, steps = torch.device(sys.argv[1]), int(sys.argv[2])
    network = Network(**json.loads(sys.argv[3]))
    to_come = burn_in(device)
    spans: list[Span] = []

    def on_epoch(seconds: float) -> None:
        nonlocal to_come
        to_come -= 1
        if to_come < 0:
            now = monotonic()
            spans.append((now - seconds, now))
        if to_come == 0:
            print("ready", flush=True)
            sys.stdin.readline()
        if len(spans) == EPOCHS:
            raise _DoneError

    config = network.config(SIDE, epochs=ENDLESS)
    data = noise(leaving(steps * network.batch), 1)
    try:
        training(SIDE, config, data, device)(on_epoch)
    except _DoneError:
        print(json.dumps(spans))


if __name__ == "__main__":
    main()
