"""Peak memory of one training, as a process of its own: what `python -m benchmarks` starts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import psutil
import torch

from benchmarks.plan import Network, noise
from benchmarks.training import training
from fno_runner.provenance import peak_memory_bytes


def main() -> None:
    """Print, as JSON, the most memory [MiB] that training took beyond what was there before.

    On a GPU all that was allocated there counts, the patterns too.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side")
    parser.add_argument("architecture", choices=["fno", "hybrid"])
    for name in ("width", "modes", "batch", "patterns"):
        parser.add_argument(name, type=int)
    parser.add_argument("device", type=torch.device)
    given = parser.parse_args()
    network = Network(given.architecture, given.width, given.modes, given.batch)
    data = noise(given.patterns, 1)
    train = training(given.side, network.config(given.side, epochs=2), data, given.device)
    before = psutil.Process().memory_info().rss if given.device.type == "cpu" else 0
    train(lambda _: None)
    print(json.dumps({"peak_mib": (_peak_bytes(given.device) - before) / 2**20}))


def _peak_bytes(device: torch.device) -> int:
    status = Path("/proc/self/status")
    if device.type == "cpu" and status.exists():
        # Linux lets a process inherit the `ru_maxrss` of the one that started it; this is its own.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return peak_memory_bytes(device)


if __name__ == "__main__":
    main()
