"""What a faster precision costs in quality: the same runs in each, over several seeds.

    python -m benchmarks.precision [fno] [hybrid]

Trains small networks of both architectures on simulated grid lines, in float32 and in every other
precision of this machine, and prints the phase's Pearson correlation as a Markdown table. About
twelve minutes on two cores. The exit status is 1 where a mean is further than 0.01 from float32's.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from statistics import mean

from benchmarks.plan import precisions
from fno_runner.cli import Parser, command
from fno_runner.config import load_config
from fno_runner.device import pick_device
from fno_runner.runner import run

ARCHITECTURES = ("fno", "hybrid")
ALLOWED = 0.01
SEEDS = 3
SIZES = {"width": 16, "modes": 12, "epochs": 1, "train_patterns": 8000, "infer_batch_size": 32}
GENTLE = 2e-3
"""The learning rate: with the default one a short run of `hybrid` may end in a flat phase, and with
this one and half the patterns a seed may lag behind in any precision."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status."""
    parser = Parser("python -m benchmarks.precision", __doc__)
    parser.add_argument(
        "architectures",
        nargs="*",
        default=ARCHITECTURES,
        metavar="fno|hybrid",
        help="(default: both)",
    )
    architectures = parser.parse_args(argv).architectures
    if unknown := set(architectures) - set(ARCHITECTURES):
        parser.error(f"{', '.join(sorted(unknown))}: allowed are {', '.join(ARCHITECTURES)}")
    worst = 0.0
    print("| network | precision | phase Pearson by seed | mean | from float32 | training |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for architecture in architectures:
        reference = None
        for precision in precisions(pick_device("auto")):
            values, seconds = _pearson(architecture, precision)
            reference = mean(values) if reference is None else reference
            off = mean(values) - reference
            worst = max(worst, abs(off))
            label = f"{architecture} {SIZES['width']}/{SIZES['modes']}"
            each = ", ".join(f"{value:.4f}" for value in values)
            row = (label, precision, each, f"{mean(values):.4f}", f"{off:+.4f}", f"{seconds:.0f} s")
            print("| " + " | ".join(row) + " |", flush=True)
    return 0 if worst <= ALLOWED else 1


def _pearson(architecture: str, precision: str) -> tuple[list[float], float]:
    """The phase's correlation with the truth of each seed, and the time [s] to train them all."""
    with tempfile.TemporaryDirectory() as scratch:
        config = load_config(
            {
                **SIZES,
                "learning_rate": GENTLE,
                "architecture": architecture,
                "precision": precision,
                "replicates": SEEDS,
                "output_dir": scratch,
            }
        )
        result = run(config).result
    values = []
    for seed in result.seeds:
        pearson = seed.metrics.pairs["pearson"][1]
        assert pearson is not None
        values.append(pearson)
    return values, float(result.timing["train_time_s"] or 0)


if __name__ == "__main__":
    sys.exit(main())
