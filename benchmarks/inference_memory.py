"""Peak memory of inference against the number of test patterns.

    python -m benchmarks.inference_memory

Each count in a process of its own: resident memory before, and its peak during, a pass of
`predict`. Subtracting the predictions themselves (complex64), what is left must not grow.
"""

from __future__ import annotations

import json
import subprocess
import sys

from fno_runner.cli import Parser, command

COUNTS = (1089, 5000)
INFER_BATCH_SIZE = 128


def measure(count: int) -> dict[str, float]:
    """MiB: the predictions, and the peak above what was resident before the pass."""
    import numpy as np
    import psutil
    import torch

    from fno_runner.config import RunConfig, centre
    from fno_runner.data.dataset import Patterns
    from fno_runner.data.probe import zone_plate_probe
    from fno_runner.provenance import peak_memory_bytes
    from fno_runner.reconstruct.inference import predict
    from fno_runner.reconstructor import Reconstructor

    config, cpu = RunConfig(width=32, modes=12), torch.device("cpu")
    size = config.size
    amplitude = np.random.default_rng(0).random((count, size, size), np.float32)
    positions = np.full((count, 2), centre(size), np.float32)
    patterns = Patterns(amplitude, positions, zone_plate_probe(config))
    model = Reconstructor(config)
    before = psutil.Process().memory_info().rss
    patches = predict(model, patterns, 1.0, cpu, INFER_BATCH_SIZE)
    return {
        "predictions": patches.nbytes / 2**20,
        "peak": (peak_memory_bytes(cpu) - before) / 2**20,
    }


@command
def main() -> int:
    parser = Parser("python -m benchmarks.inference_memory", __doc__)
    parser.add_argument("count", nargs="?", type=int, help="measure this count only, as JSON")
    if (count := parser.parse_args().count) is not None:
        print(json.dumps(measure(count)))
        return 0
    print(f"width 32, modes 12, slices of {INFER_BATCH_SIZE}")
    print("| patterns | predictions [MiB] | peak [MiB] | peak less predictions [MiB] |")
    print("| --- | --- | --- | --- |")
    for count in COUNTS:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.inference_memory", str(count)],
            check=True,
            capture_output=True,
            text=True,
        )
        m = json.loads(done.stdout)
        rest = m["peak"] - m["predictions"]
        print(f"| {count} | {m['predictions']:.0f} | {m['peak']:.0f} | {rest:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
