"""What a larger pattern brings, and what it costs: 128 px beside 64.

    python -m benchmarks.patch_size simulated [--output FOLDER]
    python -m benchmarks.patch_size scan [--data FOLDER] [--output FOLDER]

`simulated` makes 2 + 1 + 1 objects of grid lines for N = 128 and trains on them. `scan` cuts
aps_siemens_n128.npz, which FOLDER holds, to 64 px and leaves it whole; for each it fits a probe and
trains. Both sizes see the same frames, and leave the same ones out. R is of frames left out, as
the object of the training frames predicts them: on all pixels, and on the 64 × 64 that both have.
Lengths are in pixels of the object of the 64 px frames. Every program is a process of its own;
times are wall times. FOLDER/patch_size.png, of --output, shows both objects.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from fno_runner.cli import Parser, command
from fno_runner.config import N, load_config
from fno_runner.data import load_dataset
from fno_runner.data.crop import window
from fno_runner.reconstruct.inference import predict
from fno_runner.reconstruct.weights import load_weights
from fno_runner.result import WEIGHTS, RunResult
from fno_runner.score.metrics import align, bounding_box, r_factor
from fno_runner.score.without_truth import from_object
from fno_runner.train.network import build_model

SLICE = 32
SIMULATED = ("--patch_size=128", "--architecture=fno", "--width=8", "--modes=24",
             "--train_patterns=3200", "--epochs=6", f"--infer_batch_size={SLICE}")  # fmt: skip
SCAN = ("--architecture=fno", "--width=16", "--input_transform=sqrt", "--learning_rate=0.005",
        "--epochs=16", f"--infer_batch_size={SLICE}")  # fmt: skip
MODES = {64: 12, 128: 24}
"""The same waves across the window, which is as wide in both."""


def simulated(output: Path) -> None:
    """Make the data, train, and print times and metrics."""
    data = output / "datasets"
    start = perf_counter()
    load_dataset(load_config({"patch_size": 128, "data_dir": str(data)}))
    made = perf_counter() - start
    seconds = run_program("-m", "fno_runner", *SIMULATED, f"--data_dir={data}",
                          f"--output_dir={output / 'simulated'}")  # fmt: skip
    record = record_of(output / "simulated")
    print(f"data made in {made:.1f} s, run in {seconds:.0f} s")
    for name in ("pearson", "ssim", "psnr"):
        amplitude, phase = record.metrics.pairs[name]
        print(f"{name}: amplitude {amplitude:.3f}, phase {phase:.3f}")


def scan(data: Path, output: Path) -> None:
    """Fit probes, train, and print a Markdown table."""
    print("| N | counts held | probe fit [s] | run [s] | R from the object, left out: all pixels "
          "| common 64×64 | resolution of halves [px of 64] |")  # fmt: skip
    print("|" + " --- |" * 7, flush=True)
    for size in MODES:
        cells = _of_size(size, data / "aps_siemens_n128.npz", output)
        print("| " + " | ".join(cells) + " |", flush=True)
    draw(output)


def _of_size(size: int, file: Path, output: Path) -> list[str]:
    fitted = output / f"star{size}.npz"
    fit = run_program("-m", "fno_runner.data", "probe", str(file), f"--patch-size={size}",
                      "--positions", f"--output={fitted}")  # fmt: skip
    folder = output / f"scan{size}"
    seconds = run_program("-m", "fno_runner", f"--scan={fitted}", f"--patch_size={size}", *SCAN,
                          f"--modes={MODES[size]}", f"--output_dir={folder}")  # fmt: skip
    record = record_of(folder)
    config = record.run_config
    dataset = load_dataset(config)
    model = build_model(config, dataset, torch.device("cpu"))
    scale = load_weights(folder / "runs" / record.run_id / WEIGHTS, model)
    patches = predict(model, dataset.test, scale, torch.device("cpu"), SLICE)
    assert dataset.region is not None
    train = ~(dataset.held_out | dataset.region)
    predicted, known = from_object(patches, dataset, train, SLICE)
    left_out = dataset.held_out & known
    middle = (size // 2, size // 2)
    common = [window(amplitude[left_out], middle, N)
              for amplitude in (predicted, dataset.test.amplitude)]  # fmt: skip
    r = record.metrics.scan["r_factor"]["held_out_from_object"]
    px = record.metrics.scan["resolution"]["px"]
    assert r is not None and px is not None
    return [
        str(size),
        f"{100 * float(record.provenance['counts_held'] or 0):.1f} %",
        f"{fit:.0f}",
        f"{seconds:.0f}",
        f"{r:.4f}",
        f"{r_factor(common[0], common[1]):.4f}",
        f"{px * N / size:.2f}",
    ]


def draw(output: Path) -> None:
    """patch_size.png: both stars' phases, whole and about the middle, one scale of colours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.4, 8.6), layout="constrained")
    axes = figure.subplots(2, len(MODES), squeeze=False)
    for column, size in enumerate(MODES):
        study = output / f"scan{size}"
        folder = study / "runs" / record_of(study).run_id
        with np.load(folder / "recon.npz") as arrays:
            obj, seen = arrays["object"][0], arrays["mask"][0]
        box = bounding_box(seen)
        (_, _), (phase, _) = align(obj[box], obj[box], seen[box])
        shown = np.where(seen[box], phase, np.nan)
        sides = [n * N / size for n in shown.shape]
        low, high = np.nanquantile(shown, [0.002, 0.998])
        for axis, part in zip(axes[:, column], ("whole", "middle"), strict=True):
            image = axis.imshow(shown, cmap="cividis", vmin=low, vmax=high,
                                extent=(0, sides[1], sides[0], 0))  # fmt: skip
            if part == "middle":
                axis.set(xlim=(0.35 * sides[1], 0.65 * sides[1]),
                         ylim=(0.65 * sides[0], 0.35 * sides[0]))  # fmt: skip
            axis.set(title=f"N = {size}, {part}", xlabel="x [px of N = 64]",
                     ylabel="y [px of N = 64]")  # fmt: skip
        figure.colorbar(image, ax=axes[:, column], label="phase [rad]", shrink=0.6)
    figure.savefig(output / "patch_size.png", dpi=110, metadata={"Software": None})


def run_program(*words: str) -> float:
    """The wall time of a Python program [s]."""
    start = perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - start


def record_of(study: Path) -> RunResult:
    """The record of a study's only run."""
    (path,) = study.glob("runs/*/result.json")
    return RunResult.model_validate_json(path.read_text())


@command
def main() -> int:
    parser = Parser("python -m benchmarks.patch_size", __doc__)
    parser.add_argument("what", choices=("simulated", "scan"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, help="keep files and runs here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        output = given.output or Path(scratch)
        output.mkdir(parents=True, exist_ok=True)
        if given.what == "simulated":
            simulated(output)
        else:
            scan(given.data, output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
