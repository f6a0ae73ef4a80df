"""Which machine this is, and how fast it computes and copies: measured, not looked up."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from time import perf_counter

import torch

from benchmarks.backends import float32_products
from fno_runner.provenance import device_name, kernel_says, provenance
from fno_runner.score.timing import synchronise

BF16_UNITS = ("amx_bf16", "avx512_bf16", "bf16")
"""What /proc/cpuinfo calls units that multiply bfloat16 (the last one on ARM)."""
TRIES_S = 1.0
"""How long each rate is tried for the best of it: a busy machine needs more than one try."""


@dataclass(frozen=True)
class Rates:
    """operations: floating-point [1/s] by precision. bytes: of a large copy [1/s]."""

    operations: dict[str, float]
    bytes: float


def measure_rates(device: torch.device, precisions: tuple[str, ...]) -> Rates:
    """The best of a second of tries each.

    Operations are those of a large matrix product or a large 3×3 convolution, whichever library
    does better.
    """
    side, length, images = (8192, 2**28, 1024) if device.type == "cuda" else (2048, 2**26, 16)
    channels, size = 128, 32
    operations = {}
    for precision in precisions:
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        x = torch.randn(images, channels, size, size, device=device).to(kind)
        w = torch.randn(channels, channels, 3, 3, device=device).to(kind)
        x, w = (t.contiguous(memory_format=torch.channels_last) for t in (x, w))
        with float32_products(precision):
            product = 2 * side**3 / _best(partial(torch.matmul, a, b), device)
            convolved = 2 * images * size**2 * channels**2 * 9
            convolution = convolved / _best(partial(torch.conv2d, x, w, padding=1), device)
        operations[precision] = max(product, convolution)
    source = torch.zeros(length, device=device)
    target = torch.empty_like(source)
    moved = 2 * source.numel() * source.element_size()  # read and written
    return Rates(operations, moved / _best(lambda: target.copy_(source), device))


def describe(device: torch.device, rates: Rates, load: float) -> dict[str, str]:
    """The machine in words, a line each. `load`: of other programs, before any measurement."""
    facts = provenance(device)
    flags = kernel_says("cpuinfo", "flags") or kernel_says("cpuinfo", "Features") or ""
    units = sorted(set(flags.split()) & set(BF16_UNITS))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    speed = ", ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in rates.operations.items())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "host": str(facts["host"]),
        "processor": device_name(torch.device("cpu")),
        "cores": f"{cores}, threads {facts['threads']}, load {load:.1f} at the start",
        "bf16 units": ", ".join(units) or "none",
        "device": "CPU" if device.type == "cpu" else device_name(device),
        "arithmetic": f"{speed} GFLOP/s (measured)",
        "copy": f"{rates.bytes / 1e9:,.0f} GB/s, read and written (measured)",
        "torch": f"{facts['torch']}, Python {facts['python']}",
        "commit": f"{facts['git_commit']}{' with changes' if facts['git_dirty'] else ''}",
    }


def _best(work: Callable[[], object], device: torch.device) -> float:
    """The shortest wall time [s] of many, after one that does not count."""
    work()
    times: list[float] = []
    while sum(times) < TRIES_S:
        synchronise(device)
        start = perf_counter()
        work()
        synchronise(device)
        times.append(perf_counter() - start)
    return min(times)
