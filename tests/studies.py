"""A study's folder with made-up records: quick to make, with everything a report has to show."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.analysis.series import series
from agent.export import read_local
from agent.report.terminal import ExportResult
from fno_runner.config import RunConfig
from fno_runner.data.npz import write_npz
from fno_runner.identity import run_id
from fno_runner.result import ErrorInfo, Metrics, RingCurves, RunResult, run_folder, write_result

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>-->"
FLOORS = {
    "flat_phase": {"ssim": (0.1, 0.021), "psnr": (10.0, 14.1)},
    "projection_50": {"ssim": (0.8, 0.409), "psnr": (14.0, 19.3)},
}
SIDE = 48
"""Of the made-up objects [px]."""


def result(**changes: Any) -> RunResult:
    """A finished run, better with more width and modes; `changes` of its config or record."""
    config = RunConfig(
        **{key: changes.pop(key) for key in tuple(changes) if key in RunConfig.model_fields}
    )
    rng = np.random.default_rng([config.seed, config.modes, config.width])
    hybrid = config.architecture == "hybrid"
    size = config.width**2 * config.modes**2 * (6 if hybrid else 1)
    quality = 0.25 + 0.07 * np.log10(size) + 0.02 * hybrid + 0.008 * rng.normal()
    quality -= {"none": 0.08, "log1p": 0.01, "sqrt": 0.0}[config.input_transform]
    values: dict[str, Any] = {
        "run_id": run_id(config),
        "status": "finished",
        "config": config.model_dump(),
        "metrics": {
            "ssim": (quality + 0.1, quality),
            "psnr": (26.0, 10 + 24 * quality),
            "mae": (0.1, 0.12 - 0.1 * quality),
            "pearson": (0.97, 0.6 + 0.5 * quality),
            "std_ratio": (1.0, 0.9),
        },
        "metrics_against": "truth",
        "floors": FLOORS,
        "model_params": size,
        "inference_time_s": 1e-4 * size**0.6 * (1 + 0.03 * rng.random()),
        "timing": {"train_time_s": 0.1 * size**0.5, "infer_batch_size": 128},
        "history": [
            {"epoch": n, "train_loss": (1 - quality) / n, "val_loss": (1.1 - quality) / n}
            for n in range(1, 21)
        ],
        "provenance": {
            "device_name": "A made-up device",
            "torch": "2.13.0",
            "git_commit": "0123456789abcdef",
            "dataset": "feed",
            "started": "2026-01-01T00:00:00+00:00",
        },
        "curves": {"truth": ring_curves(0.1 + 0.3 * quality, rng)},
    }
    return RunResult(**(values | changes))


def ring_curves(end: float, rng: np.random.Generator) -> RingCurves:
    """Correlations that fall to one half at about `end` [1/px], with a dip before, and noise."""
    frequency = np.arange(1, SIDE // 2 + 1) / SIDE
    falling = 1 / (1 + np.exp((frequency - end) / 0.03))
    dip = 0.3 * np.exp(-np.square((frequency - 0.6 * end) / 0.02))
    noisy = falling - dip + 0.03 * rng.normal(size=(2, len(frequency)))
    amp, phase = noisy.clip(-1, 1).round(4).tolist()
    half_bit = (0.541 + 0.3 / np.arange(1, len(frequency) + 1)).round(4).tolist()
    return RingCurves(definition=2, step=1 / SIDE, amp=amp, phase=phase, half_bit=half_bit)


def grid(seeds: Sequence[int] = (0, 1, 2), **fixed: Any) -> list[RunResult]:
    """The 54 points of the paper's study, each with some seeds."""
    swept = {
        "architecture": ("fno", "hybrid"),
        "input_transform": ("none", "log1p", "sqrt"),
        "modes": (12, 16, 24),
        "width": (32, 48, 64),
        "seed": seeds,
    }
    return [
        result(**dict(zip(swept, values, strict=True)), **fixed)
        for values in itertools.product(*swept.values())
    ]


def with_losses(results: list[RunResult]) -> list[RunResult]:
    """The same with a collapsed, a diverged and two failed runs; one has a hostile message."""
    results[4].status = "collapsed"
    results[4].error = ErrorInfo(type="Collapsed", message="the phase recovered nothing")
    results[4].metrics.pairs |= {"ssim": (0.1, 0.02), "psnr": (9.0, 14.0)}
    for number, status, message in ((7, "diverged", "loss is nan in epoch 3"),
                                    (11, "failed", HOSTILE),
                                    (12, "failed", "CUDA out of memory")):  # fmt: skip
        changes = {"status": status, "error": ErrorInfo(type="RuntimeError", message=message),
                   "metrics": Metrics(), "floors": {}, "inference_time_s": None}  # fmt: skip
        results[number] = results[number].model_copy(update=changes)
    return results


def save(study: Path, results: Sequence[RunResult], pictures: bool = True) -> Path:
    """Write the runs' folders, finished and collapsed ones with the arrays of an object."""
    rows, cols = np.indices((SIDE, SIDE))
    phase = 0.5 * np.sin(rows / 3) * np.cos(cols / 5)
    reference = (2 * np.exp(1j * phase)).astype(np.complex64)[None]
    for record in results:
        folder = run_folder(study, record.run_id)
        folder.mkdir(parents=True)
        write_result(record, folder)
        if pictures and record.status in ("finished", "collapsed"):
            quality = record.metrics.pairs["ssim"][1] or 0
            noise = np.random.default_rng(0).normal(0, 1 - quality, reference.shape)
            arrays = {
                "object": (reference * np.exp(0.3j * noise)).astype(np.complex64),
                "mask": np.ones(reference.shape, bool),
            }
            if record.metrics_against is not None:
                arrays["reference"] = reference
            write_npz(folder / "recon.npz", arrays)
    return study


def found(study: Path) -> ExportResult:
    """What an export of a study finds, nothing written."""
    material = read_local(study)
    return ExportResult(material, series(material.counted), study, pictures=[], grid=None)
