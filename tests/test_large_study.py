"""Ten thousand records: half a minute and one GiB, report and all."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from agent.report.terminal import CONFIGS, CSV, RECOMMENDATION
from agent.report.write import PAGE, PLOT
from fno_runner.config import load_config
from fno_runner.result import RunResult, run_folder

SEEDS = 3
GRID = list(itertools.product(("fno", "hybrid"), ("none", "log1p", "sqrt"), range(4, 28),
                              range(8, 32)))[:3334]  # fmt: skip
RECORDS = 10_000


def write_records(study: Path) -> None:
    """`RECORDS` finished runs, three seeds a configuration, their numbers made up."""
    rng = np.random.default_rng(0)
    for number in range(RECORDS):
        a, t, m, w = GRID[number // SEEDS]
        quality = 0.3 + 0.1 * (a == "hybrid") + 0.002 * (m + w) + 0.01 * rng.normal()
        names = ("ssim", "ms_ssim", "psnr", "mae", "mse", "frc50", "pearson", "std_ratio")
        metrics = dict.fromkeys(names, (0.5, quality))
        result = RunResult(
            run_id=f"{number:012x}",
            status="finished",
            config=load_config(
                {
                    "architecture": a,
                    "input_transform": t,
                    "modes": m,
                    "width": w,
                    "seed": number % SEEDS,
                }
            ).model_dump(),
            metrics={**metrics},
            validation={**metrics},
            metrics_against="truth",
            floors={"flat_phase": {"ssim": (0.1, 0.02), "psnr": (9.0, 14.0)}},
            model_params=500 * m * m * w,
            inference_time_s=0.01 * w * (1 + 0.05 * rng.random()),
            timing={"train_time_s": 60.0 + rng.random(), "flops_per_pattern": 1000 * m * w * w},
            history=[{"epoch": n, "train_loss": 1 / n, "val_loss": 1 / n} for n in range(1, 21)],
            provenance={"device_name": "made up", "dataset": "noise", "code": "0" * 12},
        )
        folder = run_folder(study, result.run_id)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(result.to_json())  # unsynced: ten thousand of them


def written(study: Path) -> dict[str, bytes]:
    """What an export wrote; of the page all but when."""
    files = {
        name: (study / name).read_bytes() for name in (CSV, CONFIGS, RECOMMENDATION, PLOT, PAGE)
    }
    return files | {PAGE: re.sub(rb"<time.*?</time>", b"", files[PAGE])}


@pytest.mark.slow
def test_ten_thousand_records(tmp_path: Path) -> None:
    write_records(tmp_path)
    begun = perf_counter()
    exporting = subprocess.Popen([sys.executable, "-m", "agent.export", str(tmp_path)])
    # Of this process alone: the usage of all children would have that of other tests' in it.
    _, status, usage = os.wait4(exporting.pid, 0)
    exporting.returncode = os.waitstatus_to_exitcode(status)
    seconds, gib = perf_counter() - begun, usage.ru_maxrss / 2**20
    assert exporting.returncode == 0
    print(f"{RECORDS} records: {seconds:.1f} s, {gib:.2f} GiB")
    first = written(tmp_path)
    assert seconds <= 30 and gib <= 1
    subprocess.run([sys.executable, "-m", "agent.export", str(tmp_path)], check=True)
    assert written(tmp_path) == first
