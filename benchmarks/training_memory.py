"""Peak memory of one training, as a process of its own: what `python -m benchmarks` starts."""

from __future__ import annotations

import json
import sys

import psutil
import torch

from benchmarks.plan import Network, noise
from benchmarks.training import training
from fno_runner.provenance import peak_memory_bytes


def main() -> None:
    """Print, as JSON, the most memory [MiB] that training took beyond what was there before.

    On a GPU all that was allocated there counts, the patterns too.
    """
    side, device, patterns = sys.argv[1], torch.device(sys.argv[2]), int(sys.argv[3])
    network = Network(**json.loads(sys.argv[4]))
    data = noise(patterns, 1)
    train = training(side, network.config(side, epochs=2), data, device)
    before = psutil.Process().memory_info().rss if device.type == "cpu" else 0
    train(lambda _: None)
    print(json.dumps({"peak_mib": (peak_memory_bytes(device) - before) / 2**20}))


if __name__ == "__main__":
    main()
