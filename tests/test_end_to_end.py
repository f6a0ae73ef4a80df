"""The path a user walks: a sweep file, real runs in processes of their own, the export."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import yaml

from agent import export, local
from agent.scheduling import child
from agent.study.records import COLUMNS
from agent.study.sweepfile import points, read_sweep
from fno_runner.config import load_config
from tests.bench import SWEEP, stand_in_for
from tests.commands import python_m

SHIPPED = Path(__file__).resolve().parents[1]


def test_two_points_and_the_export(
    tiny_npz: tuple[Path, Path],
    data_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two architectures on tiny data, then again with nothing left to do, then the table."""
    train, test = tiny_npz
    fixed = {
        "width": 4, "modes": 6, "blocks": 2, "epochs": 6, "batch_size": 4, "learning_rate": 0.01,
        "train_npz": str(train), "test_npz": str(test), "data_dir": str(data_dir),
    }  # fmt: skip
    sweep = {
        "name": "walk",
        "method": "grid",
        "metric": {"name": "ssim_phase", "goal": "maximize"},
        "parameters": {
            "architecture": {"values": ["fno", "hybrid"]},
            **{key: {"value": value} for key, value in fixed.items()},
        },
    }
    (tmp_path / "walk.yaml").write_text(yaml.safe_dump(sweep))
    study = tmp_path / "study"

    cleared = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    ran = python_m("agent.local", "walk.yaml", "--study", str(study), env=cleared, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    records = sorted(study.glob("runs/*/result.json"))
    assert len(records) == 2
    assert len(list(study.glob("wandb/offline-run-*"))) == 2
    written = [path.stat().st_mtime_ns for path in records]

    assert local.main([str(tmp_path / "walk.yaml"), f"--study={study}"]) == 0
    assert [path.stat().st_mtime_ns for path in records] == written  # nothing ran twice

    out = tmp_path / "out"
    assert export.main([str(study), f"--output-dir={out}"]) == 0
    said = capsys.readouterr().out
    assert "study_results.csv" in said and "pareto_plot.png" in said
    assert (out / "pareto_plot.png").stat().st_size > 10_000
    with (out / "study_results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["status"] for row in rows] == ["finished", "finished"]
    for row in rows:
        metrics = json.loads((study / "runs" / row["run_id"] / "result.json").read_text())
        assert float(row["ssim_phase"]) == metrics["metrics"]["ssim"][1]
        assert float(row["ssim_amp"]) == metrics["metrics"]["ssim"][0]


def test_a_failing_point_is_a_row_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-in runs through the driver and the export: four points, one of which breaks."""
    monkeypatch.setattr(child, "start_point", stand_in_for({"16": "fail"}))
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("METHOD", "grid"))
    study = tmp_path / "study"
    assert local.main([str(tmp_path / "sweep.yaml"), f"--study={study}"]) == 1
    assert export.main([str(study)]) == 0
    with (study / "study_results.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == 4
    assert list(table[0])[: len(COLUMNS)] == list(COLUMNS)
    by_width = {row["width"]: row for row in table}
    assert by_width["16"]["status"] == "failed"
    assert by_width["16"]["ssim_phase"] == "NaN"
    assert by_width["16"]["error"] == "it broke"
    assert {row["ssim_phase"] for w, row in by_width.items() if w != "16"} == {
        "0.08", "0.24", "0.32"
    }  # fmt: skip


def test_the_study_is_the_one_that_was_asked_for() -> None:
    """sweep.yaml: 54 points over four keys, amplitude only, 20 epochs; its twin: projection."""
    files = {"sweep.yaml": "amplitude", "sweeps/projection.yaml": "projection"}
    for file, conditioning in files.items():
        grid = points(read_sweep(SHIPPED / file))
        assert len(grid) == 54
        assert {p["conditioning"] for p in grid} == {conditioning}
        assert {p["epochs"] for p in grid} == {20}
        assert len({tuple(sorted(p.items())) for p in grid}) == 54
        for point in grid:
            load_config(point)
