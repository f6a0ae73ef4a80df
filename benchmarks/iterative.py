"""A trained network's speed beside that of a reconstruction without one, on one scan.

    python -m benchmarks.iterative SCAN.npz STUDY [--fit FILE] [--start ARRAY] [--modes M]

Fits object and probe to the frames of SCAN.npz, or of the FILE that it was made from, with more and
more passes, and times the inference of the study's networks that were trained on SCAN.npz, before
the fits and after them. A fit has converged where four times its passes bring R down by less than
`CONVERGED` of it. Prints Markdown.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from agent.retime import retime
from agent.study.records import read_records
from fno_runner.cli import Parser, command, count_of
from fno_runner.data.formats import read_scan
from fno_runner.data.scan import load_scan
from fno_runner.data.source import Hints
from fno_runner.device import pick_device
from fno_runner.errors import UserError
from fno_runner.scan.iterative import reconstruct, residual

PASSES = (20, 80, 320, 1280)
CONVERGED = 1e-3
"""Of R."""


def measure_fits(scan_file: Path, start: str | None, modes: int) -> dict[int, tuple[float, float]]:
    """Passes -> (R on the frames it was fitted to, patterns a second of the whole fit)."""
    scan = read_scan(scan_file, Hints(probe=start))
    found = {}
    for passes in PASSES:
        fit = reconstruct(scan, modes=modes, iterations=passes)
        found[passes] = residual(fit, scan), len(scan) / fit.seconds
        print(f"fit of {passes} passes: {fit.seconds:.1f} s", file=sys.stderr)
    return found


def converged(r_of: dict[int, float]) -> int:
    """The fewest passes that four times as many improve by less than `CONVERGED`, or the most."""
    for passes, r in r_of.items():
        if 4 * passes in r_of and r - r_of[4 * passes] < CONVERGED * r:
            return passes
    return max(r_of)


def measure_networks(scan_file: Path, study: Path) -> dict[str, tuple[str, float, float]]:
    """run_id -> (configuration, R on training frames, patterns/s) of networks of this scan.

    Raises:
        UserError: the study has none.
    """
    fingerprint = load_scan(scan_file, 0).fingerprint
    records = read_records(study).results
    ours = {r.run_id: r for r in records if r.provenance.get("dataset") == fingerprint}
    if not ours:
        raise UserError(f"{study}: no run of {scan_file}")
    retiming, _ = retime(study, pick_device("cpu"), 1, Console(stderr=True))
    told = {}
    for name, result in ours.items():
        config = result.config
        keys = ("architecture", "input_transform", "modes", "width", "precision")
        words = " ".join(str(config[key]) for key in keys)
        r = result.metrics.scan["r_factor"]
        assert r["train"] is not None
        told[name] = words, r["train"], retiming.models[name].times.inference_patterns_per_s
    return told


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status."""
    parser = Parser("python -m benchmarks.iterative", __doc__)
    parser.add_argument("scan", type=Path, help="the scan that the networks were trained on")
    parser.add_argument("study", type=Path, help="the study's folder")
    parser.add_argument("--fit", type=Path, help="another file to fit (default: SCAN.npz)")
    parser.add_argument("--start", help="the array of it that is the probe to begin with")
    parser.add_argument("--modes", type=count_of(16), default=1, help="of the probe (default: 1)")
    args = parser.parse_args(argv)
    before = measure_networks(args.scan, args.study)
    fits = measure_fits(args.fit or args.scan, args.start, args.modes)
    after = measure_networks(args.scan, args.study)
    enough = converged({passes: r for passes, (r, _) in fits.items()})
    print("| what | R | patterns/s | of the converged fit's |")
    print("| --- | --- | --- | --- |")
    for passes, (r, rate) in fits.items():
        note = ", converged" if passes == enough else ""
        ratio = rate / fits[enough][1]
        print(f"| fit, {passes} passes{note} | {r:.4f} | {rate:.1f} | {ratio:.2f}× |")
    for name, (words, r, rate) in before.items():
        middle = (rate + after[name][2]) / 2
        print(f"| {words} | {r:.4f} | {middle:.0f} | {middle / fits[enough][1]:.0f}× |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
