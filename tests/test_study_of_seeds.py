"""From seeds in a sweep file to intervals; devices apart; metrics that some runs lack."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from agent.export import export, main
from agent.report.terminal import CONFIGS
from agent.study.folder import open_study
from agent.study.sweepfile import parse_sweep, points
from fno_runner.config import RunConfig, load_config
from fno_runner.result import Metrics, SeedResult
from tests.test_export import make, put, rows

TABLES_ONLY = pytest.mark.usefixtures("tables_only")


def seeded(number: int, seed: int, ssim: float, device: str = "box", **changes: Any) -> Any:
    return make(
        10 * number + seed,
        config=RunConfig(width=8 + number, seed=seed).model_dump(),
        metrics={"ssim": (0.8, ssim), "psnr": (20.0, 25.0 + ssim)},
        model_params=1000 * number,
        inference_time_s=(0.1 if device == "box" else 0.01) * (number + seed / 10),
        provenance={"device_name": device},
        **changes,
    )


@TABLES_ONLY
def test_a_list_of_seeds_is_all_a_sweep_file_needs(tmp_path: Path) -> None:
    mapping = {
        "method": "grid",
        "parameters": {"width": {"values": [8, 16]}, "seed": {"values": [0, 1, 2]}},
    }
    sweep = parse_sweep(mapping, "test")
    runs = [
        make(n, config=load_config(point).model_dump(), metrics={"ssim": (0.8, 0.6 + n / 100)})
        for n, point in enumerate(points(sweep), 1)
    ]
    assert len(runs) == 6
    open_study(tmp_path, sweep)
    export(put(tmp_path, runs))
    written = rows(tmp_path / CONFIGS)
    assert [row["configuration"][-7:] for row in written] == ["width 8", "idth 16"]
    for row in written:
        assert (row["n_seeds"], row["seeds"]) == ("3", "0 1 2")
        mean, low, high = (float(row[f"ssim_phase_{s}"]) for s in ("mean", "low", "high"))
        assert low < mean < high


def test_two_devices_never_share_a_time(tmp_path: Path) -> None:
    runs = [seeded(n, s, 0.6 + n / 50 + s / 100) for n in (1, 2) for s in (0, 1)]
    runs += [seeded(n, 2, 0.6 + n / 50, "H100") for n in (1, 2)]
    (compared,) = export(put(tmp_path, runs)).series
    assert compared.configs["time_device"].tolist() == ["box", "box"]
    assert compared.configs["n_timed"].tolist() == [2, 2]
    # Quality is over all seeds, a time over those of one device.
    assert compared.configs["n_seeds"].tolist() == [3, 3]
    assert compared.configs["inference_time_s_mean"].tolist() == pytest.approx([0.105, 0.205])
    timed = {front.device: front for front in compared.fronts if front.device is not None}
    assert set(timed) == {"box", "H100"}
    assert timed["H100"].cost.mean.tolist() == pytest.approx([0.012, 0.022])


@TABLES_ONLY
def test_a_metric_that_half_of_the_runs_lack(tmp_path: Path) -> None:
    runs = [seeded(n, s, 0.6 + n / 50 + s / 100) for n in (1, 2) for s in (0, 1)]
    runs[0].metrics.pairs["psnr"] = (None, None)
    runs[2].metrics.pairs["psnr"] = (None, None)
    (compared,) = export(put(tmp_path, runs)).series
    assert compared.configs["psnr_phase_n"].tolist() == [1, 1]
    assert compared.configs["ssim_phase_n"].tolist() == [2, 2]
    assert compared.configs["psnr_phase_mean"].tolist() == pytest.approx([25.63, 25.65])
    assert all(math.isnan(low) for low in compared.configs["psnr_phase_low"])


@TABLES_ONLY
def test_what_collapsed_or_diverged_is_counted_and_in_no_mean(tmp_path: Path) -> None:
    bad = Metrics({"ssim": (0.1, 0.02)})
    runs = [
        *(seeded(1, s, 0.6 + s / 100) for s in (0, 1)),
        seeded(1, 2, 0.02).model_copy(update={"status": "collapsed", "metrics": bad}),
        seeded(1, 3, 0.9).model_copy(update={"status": "diverged", "metrics": Metrics()}),
    ]
    (compared,) = export(put(tmp_path, runs)).series
    counts = compared.configs[["n_runs", "n_seeds", "n_collapsed", "n_diverged", "n_failed"]]
    assert counts.to_numpy().tolist() == [[4, 2, 1, 1, 0]]
    assert compared.configs["ssim_phase_mean"].tolist() == pytest.approx([0.605])


def test_a_study_without_a_finished_run_has_tables_reasons_and_status_1(tmp_path: Path) -> None:
    diverged = seeded(1, 0, 0.5).model_copy(update={"status": "diverged", "metrics": Metrics()})
    assert main([str(put(tmp_path, [diverged]))]) == 1
    (row,) = rows(tmp_path / CONFIGS)
    assert (row["n_seeds"], row["n_diverged"], row["recommended"]) == ("0", "1", "False")
    assert (tmp_path / "recommendation.json").exists() and (tmp_path / "report.html").exists()


@TABLES_ONLY
def test_replicates_count_as_seeds_and_share_one_clock(tmp_path: Path) -> None:
    config = RunConfig(width=9, replicates=3).model_dump()
    run = make(1, config=config, timing={"train_time_s": 30.0, "train_time_per_seed_s": 10.0})
    run.seeds = [
        SeedResult(seed=s, status="finished", metrics={"ssim": (0.8, 0.6 + s / 100)})
        for s in range(3)
    ]
    (compared,) = export(put(tmp_path, [run])).series
    row = compared.configs.iloc[0]
    assert (row["n_seeds"], row["n_timed"]) == (3, 1)
    assert row["train_time_s_mean"] == 10.0 and math.isnan(row["inference_time_s_low"])
