"""Records are believed only when everything about them fits, and become rows without loss."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scheduling.grid import statuses
from agent.study.records import COLUMNS, one_line, read_records, row, table
from fno_runner.config import RunConfig
from fno_runner.errors import UserError
from fno_runner.result import MAX_BYTES, ErrorInfo, RunResult, run_folder, write_result


def make(number: int = 1, **changes: Any) -> RunResult:
    """A finished run whose values are all different, so that a swap shows."""
    values: dict[str, Any] = {
        "run_id": f"{number:012x}",
        "status": "finished",
        "config": RunConfig(architecture="hybrid", modes=24, width=48, seed=3).model_dump(),
        "metrics": {"ssim": (0.8, 0.7), "psnr": (20.5, 25.5), "mae": (0.1, 0.05)},
        "metrics_against": "truth",
        "floors": {"flat_phase": {"ssim": (0.4, 0.02)}},
        "model_params": 12,
        "inference_time_s": 0.25,
        "timing": {"train_time_s": 60.5},
        "provenance": {"git_commit": "abc", "git_dirty": False},
    }
    return RunResult(**(values | changes))


def text(result: RunResult, **changes: Any) -> str:
    """The record's JSON with top-level keys replaced, or left out where `changes` says None."""
    content = json.loads(result.to_json()) | changes
    return json.dumps({key: value for key, value in content.items() if value is not None})


def put(study: Path, folder: str, content: str | bytes) -> Path:
    path = study / "runs" / folder / "result.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_records_come_in_the_order_of_their_names_whoever_wrote_first(tmp_path: Path) -> None:
    for number in (3, 1, 2):
        write_result(make(number), run_folder(tmp_path, f"{number:012x}"))
    records = read_records(tmp_path)
    assert records.results == [make(1), make(2), make(3)]
    assert records.rejected == []


def test_a_study_without_runs_is_empty(tmp_path: Path) -> None:
    assert read_records(tmp_path).results == []


def test_runs_in_progress_and_folders_without_a_record_are_passed_over(tmp_path: Path) -> None:
    for folder in (".tmp", "00000000000a.host-7.partial"):
        put(tmp_path, folder, "{")
    (tmp_path / "runs" / "00000000000b").mkdir()
    (tmp_path / "runs" / "notes.txt").write_text("mine")
    records = read_records(tmp_path)
    assert (records.results, records.rejected) == ([], [])


NAME = "000000000001"
UNBELIEVABLE: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "empty"),
    "blank": (" \n", "empty"),
    "torn": (make().to_json()[:200], "Invalid JSON"),
    "binary": (b"\x80\x02\xff\x00", "Invalid JSON"),
    "deep": ("[" * 100_000, "recursion"),
    "list": ("[]", "object"),
    "foreign": ('{"loss": 1}', "run_id"),
    "future": (
        text(make(), schema_version=4, verdict="good"),
        "schema_version is 4; known are 1, 2, 3",
    ),
    "unversioned": (text(make(), schema_version=None), "has no schema_version"),
    "someone else's": (text(make(), run_id="00000000000f"), "its folder says " + NAME),
    "unknown status": (text(make(), status="great"), "status"),
    "number as text": (text(make(), inference_time_s="0.25"), "inference_time_s"),
    "NaN": (make().to_json().replace("0.25", "NaN"), "not finite"),
    "infinite": (make().to_json().replace("0.25", "1e999"), "not finite"),
    "negative time": (make().to_json().replace("0.25", "-0.25"), "not positive"),
    "no parameters": (text(make(), model_params=0), "model_params"),
    "huge count": (text(make(), model_params=10**400), "model_params"),
    "three parts": (text(make(), metrics={"ssim": [1, 2, 3]}), "metrics.ssim"),
    "unknown knob": (
        text(make(), config=RunConfig().model_dump() | {"modez": 3}),
        "config: unknown key 'modez'",
    ),
    "impossible knob": (text(make(), config={"modes": 0}), "config: modes=0"),
}


@pytest.mark.parametrize(("content", "reason"), UNBELIEVABLE.values(), ids=list(UNBELIEVABLE))
def test_an_unbelievable_record_is_named_and_left_out(
    tmp_path: Path, content: str | bytes, reason: str
) -> None:
    path = put(tmp_path, NAME, content)
    write_result(make(2), run_folder(tmp_path, "000000000002"))
    records = read_records(tmp_path)
    assert records.results == [make(2)]
    assert [rejected.path for rejected in records.rejected] == [path]
    assert reason in records.rejected[0].reason
    assert records.rejected[0].reason == one_line(records.rejected[0].reason)


def test_a_record_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = put(tmp_path, NAME, "")
    os.truncate(path, MAX_BYTES + 1)  # sparse: takes no disk
    assert f"at most {MAX_BYTES}" in read_records(tmp_path).rejected[0].reason


def test_a_record_that_is_a_pipe_does_not_hang(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / NAME
    folder.mkdir(parents=True)
    os.mkfifo(folder / "result.json")
    assert read_records(tmp_path).rejected[0].reason == "not a regular file"


def test_runs_that_cannot_be_listed_are_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="cannot list"):
        read_records(tmp_path)


def test_a_row_has_the_contract_first_and_then_the_rest() -> None:
    cells = row(make())
    assert tuple(cells)[: len(COLUMNS)] == COLUMNS
    assert tuple(cells.values())[: len(COLUMNS)] == (
        *("000000000001", "hybrid", "sqrt", 24, 48, 3, 20, 12, 0.25),
        *(0.7, 25.5, 0.05, 0.8, 20.5, 0.1, "finished", ""),
    )
    assert cells["metrics_against"] == "truth"
    assert (cells["ssim_phase_flat"], cells["ssim_amp_flat"]) == (0.02, 0.4)
    assert (cells["train_time_s"], cells["conditioning"]) == (60.5, "projection")
    assert (cells["git_commit"], cells["git_dirty"]) == ("abc", False)


def test_r_of_a_scan_is_a_column_for_each_kind_of_frames() -> None:
    scan = make(metrics={"r_factor": {"train": 0.08, "held_out": 0.09}}, metrics_against=None)
    cells = row(scan)
    assert (cells["r_train"], cells["r_held_out"]) == (0.08, 0.09)
    assert (cells["ssim_phase"], cells["metrics_against"]) == (None, None)


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_a_run_without_a_result_has_no_metrics_but_its_message(status: str) -> None:
    error = ErrorInfo(type="ValueError", message="first line\nsecond\tline\r\n", traceback="…")
    cells = row(make(status=status, error=error))
    assert cells["error"] == "first line second line"
    assert [cells[key] for key in COLUMNS[9:15]] == [None] * 6
    assert cells["modes"] == 24


def test_a_collapsed_run_shows_what_it_measured() -> None:
    assert row(make(status="collapsed"))["ssim_phase"] == 0.7


def test_a_name_used_twice_is_kept_if_it_says_something_else() -> None:
    config = RunConfig(device="auto", infer_batch_size=64).model_dump()
    cells = row(
        make(
            config=config,
            timing={"infer_batch_size": 64, "modes": 7},
            provenance={"device": "cuda:0", "status": "finished"},
        )
    )
    assert (cells["infer_batch_size"], cells["device"]) == (64, "auto")
    assert (cells["provenance_device"], cells["timing_modes"]) == ("cuda:0", 7)
    assert "config_infer_batch_size" not in cells and "provenance_status" not in cells


def test_a_table_does_not_depend_on_the_order_of_its_runs() -> None:
    runs = [
        make(1, status="failed", metrics={}, timing={}),
        make(2),
        make(3, provenance={"host": "far"}),
    ]
    forth, back = table(runs), table(reversed(runs))
    pd.testing.assert_frame_equal(forth, back)
    assert forth["run_id"].tolist() == [run.run_id for run in runs]
    # A failed first run must not push the metrics' columns behind the others.
    names = list(forth)
    assert names.index("metrics_against") < names.index("train_time_s") < names.index("blocks")


def test_an_empty_table_has_the_contracts_columns() -> None:
    assert tuple(table([])) == COLUMNS


@given(st.text())
def test_any_text_becomes_one_printable_line_that_csv_keeps(message: str) -> None:
    line = one_line(message)
    assert line.isprintable() and line == one_line(line)
    written = pd.DataFrame([[1, line]], columns=["n", "error"]).to_csv(index=False)
    assert list(csv.reader(io.StringIO(written)))[1] == ["1", line]


def test_one_line_shows_what_it_cannot_print() -> None:
    assert one_line(" a\n b\x1b[31m\ud800 ") == "a b\\x1b[31m\\ud800"


def test_a_record_is_read_again_for_its_status_only_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver with an idle slot looks every few seconds: not at thousands of whole records."""
    for number in (1, 2, 3):
        write_result(make(number), run_folder(tmp_path, f"{number:012x}"))
    put(tmp_path, "f" * 12, "torn {")
    opened: list[Path] = []
    read = Path.read_bytes

    def noted(path: Path) -> bytes:
        opened.append(path)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    names = [f"{number:012x}" for number in (1, 2, 3)]
    assert statuses(tmp_path) == dict.fromkeys(names, "finished")
    assert len(opened) == 4
    assert statuses(tmp_path) == dict.fromkeys(names, "finished")
    assert len(opened) == 4
    write_result(make(2, status="stopped"), run_folder(tmp_path, names[1]))
    (run_folder(tmp_path, names[2]) / "result.json").unlink()
    assert statuses(tmp_path) == {names[0]: "finished", names[1]: "stopped"}
    assert len(opened) == 5
