"""A study becomes a table, a picture and words; failures stay visible, bad input writes nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from agent.export import export, main
from agent.report.terminal import CONFIGS, CSV, RECOMMENDATION
from agent.report.words import advice
from agent.report.write import EFFECTS, LADDER, PAGE, PAPER, PLOT
from agent.study.csv_files import read_csv
from agent.study.records import COLUMNS
from agent.study.sweepfile import parse_sweep
from fno_runner.config import RunConfig
from fno_runner.errors import MachineError, UserError
from fno_runner.result import ErrorInfo, RunResult, run_folder, write_result

AWKWARD = [
    '=HYPERLINK("http://a","b"), c;d',
    "+1-2 @SUM(1)\t|",
    'it\'s "quoted", and\nbroken\r\nover lines',
    "NaN",
    "[red]no markup[/red] 相位 \x1b[31m",
]


TABLES_ONLY = pytest.mark.usefixtures("tables_only")


def make(number: int, **changes: Any) -> RunResult:
    values: dict[str, Any] = {
        "run_id": f"{number:012x}",
        "status": "finished",
        "config": RunConfig(width=8 + number).model_dump(),
        "metrics": {"ssim": (0.8, 0.6 + number / 100), "psnr": (20.0, 25.0), "mae": (0.1, 0.05)},
        "metrics_against": "truth",
        "model_params": 1000 * number,
        "inference_time_s": 0.1 * number,
    }
    return RunResult(**(values | changes))


def failed(number: int, message: str) -> RunResult:
    return make(
        number,
        status="failed",
        error=ErrorInfo(type="ValueError", message=message),
        metrics={},
        model_params=None,
        inference_time_s=None,
    )


def put(study: Path, runs: Iterable[RunResult]) -> Path:
    (study / "runs").mkdir(parents=True, exist_ok=True)
    for run in runs:
        write_result(run, run_folder(study, run.run_id))
    return study


def rows(path: Path) -> list[dict[str, str]]:
    return read_csv(path)


def test_a_study_gives_a_table_a_picture_and_a_recommendation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = put(tmp_path / "study", [make(1), make(2), make(5), failed(3, "boom")])
    assert main([str(study)]) == 0
    table = rows(study / CSV)
    assert tuple(table[0])[: len(COLUMNS)] == COLUMNS
    assert [row["run_id"] for row in table] == [f"{n:012x}" for n in (1, 2, 3, 5)]
    assert (study / PLOT).read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "4 runs: 3 finished, 1 failed" in out and "boom" in out
    # 0.62 and 0.61 are further than 0.02 from 0.65.
    assert "recommended  fno sqrt modes 12 width 13 (1 seed): 5,000 parameters" in out
    assert str(study / CSV) in out and str(study / PLOT) in out


@TABLES_ONLY
def test_a_failed_run_has_nan_and_its_message_and_integers_stay_integers(tmp_path: Path) -> None:
    export(put(tmp_path, [make(1), failed(2, "boom, twice")]))
    finished, broken = rows(tmp_path / CSV)
    assert (finished["model_params"], finished["modes"], finished["seed"]) == ("1000", "12", "0")
    assert (finished["ssim_phase"], finished["error"]) == ("0.61", "")
    for column in COLUMNS[7:15]:
        assert broken[column] == "NaN"
    assert (broken["width"], broken["status"], broken["error"]) == ("10", "failed", "boom, twice")
    read = pd.read_csv(tmp_path / CSV, keep_default_na=False)
    assert read["error"].tolist() == ["", "boom, twice"]


@TABLES_ONLY
def test_messages_survive_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = put(tmp_path, [make(9), *(failed(n, text) for n, text in enumerate(AWKWARD))])
    assert main([str(study)]) == 0
    written = [row["error"] for row in rows(study / CSV)]
    assert written == [
        '=HYPERLINK("http://a","b"), c;d',
        "+1-2 @SUM(1) |",
        'it\'s "quoted", and broken over lines',
        "NaN",
        "[red]no markup[/red] 相位 \\x1b[31m",
        "",
    ]
    out = capsys.readouterr().out
    assert "[red]no markup[/red]" in out and "\x1b[31m" not in out


def test_the_same_records_give_the_same_bytes_whoever_wrote_first(tmp_path: Path) -> None:
    runs = [*(make(n) for n in range(1, 6)), failed(7, "boom")]
    first = export(put(tmp_path / "a", runs))
    random.Random(0).shuffle(runs)
    second = export(put(tmp_path / "b", runs))
    tables = [(tmp_path / "a" / name).read_bytes() for name in (CSV, CONFIGS)]
    assert tables == [(tmp_path / "b" / name).read_bytes() for name in (CSV, CONFIGS)]
    assert [path.name for path in first.pictures] == [PLOT, PAPER, LADDER, EFFECTS, PAGE]
    for picture, other in zip(first.pictures[:-1], second.pictures, strict=False):
        assert picture.read_bytes() == other.read_bytes()
    advised = (tmp_path / "a" / RECOMMENDATION).read_bytes()
    export(tmp_path / "a")
    assert tables == [(tmp_path / "a" / name).read_bytes() for name in (CSV, CONFIGS)]
    assert (tmp_path / "a" / RECOMMENDATION).read_bytes() == advised


@TABLES_ONLY
def test_rejected_records_are_named_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = put(tmp_path, [make(1)])
    for name, text in (("00000000000a", ""), ("00000000000b", '{"schema_version": 4}')):
        run_folder(study, name).mkdir()
        (run_folder(study, name) / "result.json").write_text(text)
    assert main([str(study)]) == 0
    out = capsys.readouterr().out
    assert "1 run: 1 finished; 2 records rejected" in out
    assert "00000000000a/result.json: empty" in out
    assert "00000000000b/result.json: schema_version is 4; known are 1, 2, 3" in out
    assert len(rows(study / CSV)) == 1


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [failed(1, "boom")],
        [make(1, status="diverged", metrics={}), make(2, status="collapsed")],
        [make(1, model_params=None)],
    ],
    ids=["no run", "failed", "diverged and collapsed", "without its cost"],
)
def test_without_a_finished_run_the_table_comes_and_the_status_is_1(
    tmp_path: Path, runs: list[RunResult], capsys: pytest.CaptureFixture[str]
) -> None:
    study = put(tmp_path, runs)
    (study / PLOT).write_bytes(b"of an earlier export")
    assert main([str(study)]) == 1
    assert len(rows(study / CSV)) == len(runs)
    assert not (study / PLOT).exists()
    assert (study / PAGE).exists()
    errors = capsys.readouterr().err
    assert errors == f"error: {study}: no finished run to recommend\n"


def test_an_empty_study_replaces_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, [])
    (tmp_path / CSV).write_text("of a server's runs")
    assert main([str(tmp_path)]) == 2
    assert (tmp_path / CSV).read_text() == "of a server's runs"
    errors = capsys.readouterr().err
    assert errors == f"error: {tmp_path}: no run to export; {tmp_path / CSV} is left as it is\n"


def test_all_runs_equal_is_no_problem(tmp_path: Path) -> None:
    same = make(1)
    runs = [same.model_copy(update={"run_id": f"{n:012x}"}) for n in range(1, 5)]
    (compared,) = export(put(tmp_path, runs)).series
    # The same seed four times is no more evidence than once.
    assert compared.configs[["n_runs", "n_seeds"]].to_numpy().tolist() == [[4, 1]]
    assert compared.recommendation is not None and compared.recommendation.config == 0
    said = dict(advice(compared))
    assert (said["margin"], said["runner-up"]) == ("it is the best", "none by this rule")


@TABLES_ONLY
def test_series_that_may_not_be_compared_each_get_their_own_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = RunConfig(width=64, conditioning="amplitude").model_dump()
    put(tmp_path, [make(1), make(2, config=other)])
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "are not compared" in out
    assert out.index("conditioning amplitude") < out.index("conditioning projection")
    assert out.count("recommended  ") == 2


@TABLES_ONLY
def test_the_tolerance_is_the_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, [make(1), make(5)])
    assert main([str(tmp_path), "--tolerance", "0.1"]) == 0
    assert "recommended  fno sqrt modes 12 width 9" in capsys.readouterr().out


@TABLES_ONLY
def test_a_grid_says_how_much_of_it_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The device is the machine's choice: a run on any device is its point's run.
    parameters = {"width": {"values": [9, 10, 11, 12]}, "device": {"value": "cpu"}}
    sweep = {"method": "grid", "parameters": parameters}
    mapping = parse_sweep(sweep, "test").as_mapping()
    marker = {"schema_version": 1, "study_id": "x", "sweep": mapping}
    put(tmp_path, [make(1), make(2), failed(3, "boom"), make(30)])
    (tmp_path / "study.json").write_text(json.dumps(marker))
    result = export(tmp_path)
    assert len(result.missing) == 2
    assert main([str(tmp_path)]) == 0
    assert "2 of the grid's 4 points are finished" in capsys.readouterr().out


def test_another_output_folder_leaves_the_study_untouched(tmp_path: Path) -> None:
    study = put(tmp_path / "study", [make(1)])
    assert main([str(study), "--output-dir", str(tmp_path / "new" / "place")]) == 0
    assert sorted(path.name for path in (tmp_path / "new" / "place").iterdir()) == sorted(
        [PLOT, PAPER, LADDER, PAGE, CSV, CONFIGS, RECOMMENDATION]
    )
    assert [path.name for path in study.iterdir()] == ["runs"]


@TABLES_ONLY
def test_the_newest_study_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    study = put(tmp_path / "outputs" / "fno_hyperparam_study" / "mine", [make(1)])
    assert main([]) == 0
    assert (study / CSV).exists()


def test_a_folder_that_is_no_study_is_refused_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for folder in ("photos", "nowhere"):
        out = tmp_path / "out"
        with pytest.raises(UserError):
            export(tmp_path / folder, out)
        assert main([str(tmp_path / folder), "--output-dir", str(out)]) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: ") and errors.count("\n") == 1
        assert not out.exists()
    assert list((tmp_path / "photos").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_the_machines_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = put(tmp_path / "study", [make(1)])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MachineError):
        export(study, tmp_path / "file" / "out")
    assert main([str(study), "--output-dir", str(tmp_path / "file")]) == 3
    assert capsys.readouterr().err.startswith("error: cannot write")


@pytest.mark.parametrize(
    "option", ["--tolerance=-1", "--tolerance=nan", "--tolerance=near", "--tolerence=1", "--out=x"]
)
@TABLES_ONLY
def test_a_bad_option_gets_one_line(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = put(tmp_path, [make(1)])
    assert main([str(study), option]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert not (study / CSV).exists()


@TABLES_ONLY
def test_the_choice_is_asked_for_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = str(put(tmp_path, [make(1), make(5)]))
    assert main([study, "--price", "0", "--at-most", "model_params=1e9", "--equal", "0.01"]) == 0
    assert "must gain 0 in" in capsys.readouterr().out
    assert main([study, "--at-least", "ssim_phase=0.9999"]) == 1
    assert "no configuration has phase SSIM at least 0.9999; the nearest is" in (
        capsys.readouterr().err
    )
    for options, line in (
        (["--price=0.1", "--tolerance=0.1"], "give one of them"),
        (["--price=1"], "allowed is a number ≥ 0 and < 1"),
        (["--price=-1"], "allowed is a number ≥ 0"),
        (["--at-least=ssim_fase=0.9"], "unknown column 'ssim_fase'; did you mean 'ssim_phase'?"),
        (["--at-most=latency_s"], "allowed is latency_s=NUMBER"),
        (["--cost=latency_s"], "no finished configuration has it"),
        (["--cost=epochs"], "invalid choice"),
    ):
        assert main([study, *options]) == 2
        error = capsys.readouterr().err
        assert line in error and error.count("\n") == 1, error
