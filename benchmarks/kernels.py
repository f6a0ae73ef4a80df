"""What a training step consists of: its kernels, how often each runs, how long it takes.

python -m benchmarks.kernels fno-32-12 hybrid-64-24 [--device cpu]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.plan import Network, network_named, noise
from benchmarks.training import ENDLESS, leaving
from fno_runner.device import pick_device
from fno_runner.train.training import REPORT_STEPS, train

SKIPPED, STEPS = 4 * REPORT_STEPS, 4 * REPORT_STEPS
"""Steps that are not counted, in which graphs are recorded, and those that are."""
MOST = 25
"""Kernels in the table: the longest."""


@dataclass(frozen=True)
class Kernel:
    """A kernel of a step: how often it runs there, and how long all of these runs take [s]."""

    name: str
    runs: float
    seconds: float


class _DoneError(Exception):
    """Ends the training from inside."""


def kernels(network: Network, device: torch.device) -> list[Kernel]:
    """The kernels of a bf16 training step, the longest first; on a CPU its operations."""
    on_gpu = device.type == "cuda"
    profiler = profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU])

    def on_step(done: int, steps: int, loss: float) -> None:
        if done == SKIPPED:
            profiler.start()
        elif done == SKIPPED + STEPS:
            profiler.stop()
            raise _DoneError

    data = noise(leaving((SKIPPED + STEPS) * network.batch), 1)
    config = network.config("bf16", epochs=ENDLESS)
    with suppress(_DoneError):
        # A training that never ends would pay for compiling its blocks; those of a study do not.
        train(config, data, device, compiled=False, on_step=on_step)
    found = [
        Kernel(
            event.key,
            event.count / STEPS,
            (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / STEPS / 1e6,
        )
        for event in profiler.key_averages()
        if event.device_type.name == device.type.upper()
    ]
    return sorted(found, key=lambda kernel: -kernel.seconds)


def table(network: Network, found: Sequence[Kernel]) -> Iterator[str]:
    """The lines of a Markdown table."""
    whole = sum(kernel.seconds for kernel in found)
    runs = sum(kernel.runs for kernel in found)
    yield f"\n{network.label}, bf16, a step: {runs:.0f} kernels, {whole * 1e3:.3g} ms\n"
    yield "| kernel | runs a step | ms a step | share |"
    yield "| --- | --- | --- | --- |"
    for kernel in found[:MOST]:
        share = kernel.seconds / whole
        ms = kernel.seconds * 1e3
        yield f"| {kernel.name[:90]} | {kernel.runs:.3g} | {ms:.3g} | {share:.0%} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("networks", nargs="+", type=network_named, metavar="NETWORK")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    args = parser.parse_args(argv)
    device = pick_device(args.device)
    for network in args.networks:
        print("\n".join(table(network, kernels(network, device))), flush=True)


if __name__ == "__main__":
    main()
