"""Quality and time of single runs on data that nobody here wrote.

    python -m benchmarks.reconstruction [--data FOLDER] [NAME …]

FOLDER holds peer_gridlines_{train1600,test}.npz, made by PtychoPINN's generator, and
aps_siemens_n64.npz, an experimental scan. Prints a Markdown table; each row is one process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from fno_runner.cli import Parser, command

PEER = [
    "--train_npz={data}/peer_gridlines_train1600.npz",
    "--test_npz={data}/peer_gridlines_test.npz",
]
RUNS: dict[str, list[str]] = {
    # 5 epochs of 95 steps of 16
    "peer-projection": [*PEER, "--architecture=fno", "--width=16", "--modes=12", "--epochs=5"],
    "peer-hybrid": [*PEER, "--architecture=hybrid", "--width=16", "--modes=12", "--epochs=4"],
    # 10 epochs of 95 steps of 16
    "peer-amplitude": [
        *PEER, "--architecture=fno", "--width=32", "--modes=12", "--conditioning=amplitude",
        "--input_transform=log1p", "--learning_rate=0.003", "--epochs=10",
    ],
    "scan": [
        "--scan={data}/aps_siemens_n64.npz", "--architecture=fno", "--width=16", "--modes=12",
        "--input_transform=sqrt", "--epochs=20",
    ],
}  # fmt: skip
COLUMNS = (
    "run", "phase Pearson", "phase SSIM", "phase PSNR [dB]", "phase MAE [rad]", "amplitude SSIM",
    "R held-out", "training [s]", "wall [s]",
)  # fmt: skip


def measure(name: str, data: Path, output: Path) -> list[str]:
    """Run one configuration in a process of its own; the cells of its row."""
    options = [option.format(data=data) for option in RUNS[name]]
    folder = output / name
    start = perf_counter()
    subprocess.run(
        [sys.executable, "-m", "fno_runner", *options, f"--output_dir={folder}"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wall = perf_counter() - start
    record = json.loads(next(folder.glob("runs/*/result.json")).read_text())
    metrics: dict[str, Any] = record["metrics"]
    r = metrics.get("r_factor")
    return [
        name,
        *(f"{metrics[key][1]:.3f}" for key in ("pearson", "ssim", "psnr", "mae")),
        f"{metrics['ssim'][0]:.3f}",
        "–" if r is None else f"{r['held_out']:.4f}",
        f"{record['timing']['train_time_s']:.0f}",
        f"{wall:.0f}",
    ]


@command
def main() -> int:
    parser = Parser("python -m benchmarks.reconstruction", __doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(RUNS)} (default: all)"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, help="keep the runs' folders here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS), flush=True)
        for name in given.names or RUNS:
            cells = measure(name, given.data, given.output or Path(scratch))
            print("| " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
