"""How far a growing object is behind the frames that arrive, and whether any is lost.

    python -m benchmarks.watch MODEL SCAN.npz [--rate 100]

A process writes the scan (raw layout) frame by frame in HDF5's SWMR mode, another watches it, and
this one looks how many frames object.npz holds. A frame's age is the time from its write to the
first look at an object that has it. Prints Markdown.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep

import numpy as np

from fno_runner.cli import Parser, command
from fno_runner.data.npz import read_array
from fno_runner.errors import UserError

LOOK_S, IDLE_S = 0.02, 5
"""How often the object is looked at; without a frame for so long, the watch ends [s]."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status, 1 where a frame was lost."""
    parser = Parser("python -m benchmarks.watch", __doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--rate", type=float, default=100.0, help="frames a second (default: 100)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        written, seen = _measured(args.model, args.scan, Path(folder), args.rate)
    lost = len(written) - len(seen)
    ages = np.array([when - written[number] for number, when in enumerate(seen)])
    rate = (len(written) - 1) / (written[-1] - written[0])
    print("| frames | arrived [1/s] | lost | age p50 [s] | p99 [s] | largest [s] |")
    print("| --- | --- | --- | --- | --- | --- |")
    middle, late = np.quantile(ages, [0.5, 0.99])
    print(
        f"| {len(written)} | {rate:.0f} | {lost} | {middle:.2f} | {late:.2f} | {ages.max():.2f} |"
    )
    return 1 if lost else 0


def _measured(
    model: Path, scan: Path, folder: Path, rate: float
) -> tuple[list[float], list[float]]:
    """When each frame was written, and when the object was first seen to have it [s]."""
    target, out, log = folder / "scan.h5", folder / "out", folder / "written.txt"
    python = [sys.executable, "-m"]
    watch = [*python, "fno_runner.reconstruct", str(model), str(target), "--watch", "-o", str(out)]
    write = [*python, "tests.writers", "swmr", str(scan), str(target), str(rate)]
    seen: list[float] = []
    with subprocess.Popen([*watch, f"--idle={IDLE_S}"]) as watching, log.open("w") as stream:
        while not out.exists() and watching.poll() is None:  # it listens
            sleep(LOOK_S)
        with subprocess.Popen(write, stdout=stream):
            state = 0
            while watching.poll() is None:
                sleep(LOOK_S)
                path = out / "object.npz"
                if path.exists() and (changed := path.stat().st_mtime_ns) != state:
                    state = changed
                    frames = len(read_array(path, "xcoords"))
                    seen += [monotonic()] * (frames - len(seen))
        if watching.returncode:
            raise UserError(f"the watch ended with status {watching.returncode}")
    return [float(line.split()[1]) for line in log.read_text().splitlines()], seen


if __name__ == "__main__":
    sys.exit(main())
