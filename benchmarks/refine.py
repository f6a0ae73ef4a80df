"""How many passes of the fit a network's object saves.

    python -m benchmarks.refine MODEL SCAN

Fits the scan's object with its probe held, from the network's object and from vacuum, with more and
more passes; R is that of all frames as the object predicts them. Prints Markdown.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from fno_runner.apply.assemble import assemble
from fno_runner.apply.model import find_model
from fno_runner.apply.prepared import prepare
from fno_runner.apply.stream import Stream
from fno_runner.cli import Parser, command
from fno_runner.data.formats import read_scan
from fno_runner.device import pick_device
from fno_runner.scan.iterative import reconstruct, residual

PASSES = (1, 2, 3, 4, 5, 7, 10, 15, 20, 40, 80)
NEAR = 1.02
"""Times the R of the most passes from vacuum."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status."""
    parser = Parser("python -m benchmarks.refine", __doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("scan", type=Path)
    args = parser.parse_args(argv)
    model = find_model(args.model)
    scan = read_scan(args.scan, size=model.config.size, binning=model.config.bin)
    prepared = prepare(model, Stream.of(scan), pick_device("cpu"))
    begin = perf_counter()
    made = assemble(prepared)
    seconds = perf_counter() - begin
    start = np.where(made.seen, made.obj, 0).astype(np.complex64)
    assert scan.probe is not None
    print(f"network alone: R {made.r:.4f}, {seconds:.2f} s", file=sys.stderr)
    r: dict[str, dict[int, float]] = {"network": {}, "vacuum": {}}
    took: dict[str, dict[int, float]] = {"network": {}, "vacuum": {}}
    for passes in PASSES:
        for name, first in (("network", start), ("vacuum", None)):
            fit = reconstruct(
                scan,
                modes=len(scan.probe),
                iterations=passes,
                fit_probe=False,
                first_object=first,
            )
            r[name][passes] = residual(fit, scan)
            took[name][passes] = fit.seconds + (seconds if first is not None else 0)
    print(f"network alone: R {made.r:.4f}, {seconds:.2f} s\n")
    print("| passes | R from the network | with the network [s] | R from vacuum | [s] |")
    print("| --- | --- | --- | --- | --- |")
    for passes in PASSES:
        cells = (f"{r[n][passes]:.4f} | {took[n][passes]:.2f}" for n in ("network", "vacuum"))
        print(f"| {passes} | {' | '.join(cells)} |")
    goal = NEAR * r["vacuum"][PASSES[-1]]
    print(f"\nto R {goal:.4f}, 2 % above {PASSES[-1]} passes from vacuum:")
    for name, of_passes in r.items():
        enough = next((passes for passes in PASSES if of_passes[passes] <= goal), None)
        words = "never" if enough is None else f"{enough} passes, {took[name][enough]:.2f} s"
        print(f"from {name}: {words}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
