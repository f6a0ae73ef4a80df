"""Whose fault it is that a run cannot use its input: its point's, or that of the data here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.bench import SWEEP, Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_points_that_cannot_be_run_fail_and_the_grid_comes_to_its_end(bench: Bench) -> None:
    """Three in a row, such as of too many modes for the data, do not stop the slot."""
    assert bench.run(w8="2", w16="2", w24="2") == 1
    assert bench.statuses() == {8: "failed", 16: "failed", 24: "failed", 32: "finished"}
    error = bench.records()[8].error
    assert error is not None and "exit status 2" in error.message
    assert len(bench.starts()) == 4
    assert bench.run("--retry-failed") == 0


def test_points_of_other_data_go_on_where_those_of_one_file_vanish(
    bench: Bench, tiny_npz: tuple[Path, Path]
) -> None:
    lost = bench.folder / "lost.npz"
    of_both = f"  train_npz: {{values: [{lost}, {tiny_npz[0]}]}}\n"
    shutil.copy(tiny_npz[1], lost)
    bench.write(SWEEP + of_both + f"  test_npz: {{value: {tiny_npz[1]}}}\n")
    gone = dict.fromkeys(("w8", "w16", "w24", "w32"), "data gone")
    assert bench.run(**gone) == 3
    assert bench.statuses() == dict.fromkeys((8, 16, 24, 32), "finished")
    assert {record.config["train_npz"] for record in bench.records().values()} == {str(tiny_npz[0])}


def test_data_that_vanish_in_mid_sweep_cost_no_point(
    bench: Bench, tiny_npz: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    train = bench.folder / "lost.npz"
    shutil.copy(tiny_npz[0], train)
    bench.write(SWEEP + f"  train_npz: {{value: {train}}}\n  test_npz: {{value: {tiny_npz[1]}}}\n")
    gone = dict.fromkeys(("w16", "w24", "w32"), "data gone")
    assert bench.run(**gone) == 3
    assert bench.statuses() == {8: "finished"}
    assert len(bench.starts()) == 2  # one point finds it out for all
    assert "a point has lost its data" in capsys.readouterr().err
    shutil.copy(tiny_npz[0], train)
    assert bench.run() == 0
    assert bench.statuses() == dict.fromkeys((8, 16, 24, 32), "finished")
