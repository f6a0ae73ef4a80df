"""Runs of other data, epochs, schema or code are told apart; nothing is mixed or lost unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.export import export, main
from agent.report.terminal import CONFIGS, CSV
from agent.study.folder import open_study
from agent.study.sweepfile import Sweep, parse_sweep
from fno_runner.config import RunConfig
from tests.test_export import failed, make, put, rows

pytestmark = pytest.mark.usefixtures("tables_only")

OLD = {"git_commit": "624ba5e" + "0" * 33, "git_dirty": False, "dataset": "d1"}
NEW = {
    "code": "77ab00112233",
    "git_commit": "1d3c56b" + "0" * 33,
    "git_dirty": True,
    "dataset": "d1",
}


def refused(study: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([str(study)]) == 2
    assert not (study / CSV).exists()
    error = capsys.readouterr().err
    assert error.startswith(f"error: {study}: runs differ in ") and error.count("\n") == 1
    assert "--allow-mixed" in error
    return error


def grid(**parameters: list[Any]) -> Sweep:
    values = {key: {"values": list(v)} for key, v in parameters.items()}
    return parse_sweep({"method": "grid", "parameters": values}, "test")


def test_another_code_is_told_by_its_commits_and_compared_apart_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make(1, provenance=OLD), make(2, provenance=OLD), make(3, provenance=NEW)]
    put(tmp_path, [*runs, failed(4, "boom")])
    error = refused(tmp_path, capsys)
    assert "code (2 runs of 624ba5e, 1 run of 77ab00112233 from commit 1d3c56b+changes)" in error
    assert main([str(tmp_path), "--allow-mixed"]) == 0
    groups = [row["group"] for row in rows(tmp_path / CSV)]
    assert groups == ["code 624ba5e", "code 624ba5e", "code 77ab00112233", "NaN"]
    named = {row["series"] for row in rows(tmp_path / CONFIGS)}
    assert named == {"group code 624ba5e", "group code 77ab00112233"}
    assert capsys.readouterr().out.count("recommended  ") == 2


def test_a_commit_that_computes_the_same_is_no_other_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study resumed after a commit to its documents, say."""
    later = NEW | {"git_commit": "abcdef0" + "0" * 33, "git_dirty": False}
    put(tmp_path, [make(1, provenance=NEW), make(2, provenance=later)])
    assert main([str(tmp_path)]) == 0
    assert "runs of commits 1d3c56b+changes, abcdef0, which compute the same" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"config": RunConfig(epochs=5).model_dump()},
            "epochs (1 run of 20, 1 run of 5)",
        ),
        ({"schema_version": 1}, "schema (1 run of 1, 1 run of 3)"),
        ({"provenance": OLD | {"dataset": "d2"}}, "data (1 run of d1, 1 run of d2)"),
    ],
)
def test_epochs_schema_and_data_are_watched_as_well(
    changes: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, [make(1, provenance=OLD), make(2, **({"provenance": OLD} | changes))])
    assert f"runs differ in {said}; --allow" in refused(tmp_path, capsys)


def test_what_the_sweep_asks_for_is_not_mixed_by_accident(tmp_path: Path) -> None:
    """Epochs and the photons, and with them the data, differ on purpose: series, as ever."""
    runs = [
        make(n, config=RunConfig(nphotons=p, epochs=e).model_dump(), provenance={"dataset": d})
        for n, (p, e, d) in enumerate([(1e9, 20, "a"), (1e5, 20, "b"), (1e9, 5, "a")], 1)
    ]
    put(tmp_path, runs)
    open_study(tmp_path / "study", grid(nphotons=[1e9, 1e5], epochs=[20, 5]))
    put(tmp_path / "study", runs)
    assert len(export(tmp_path / "study").series) == 3
    # But of one dose there is one dataset.
    put(tmp_path / "study", [make(7, provenance={"dataset": "c"})])
    assert main([str(tmp_path / "study")]) == 2


def test_a_larger_table_of_a_server_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, [make(1), make(2)])
    export(tmp_path)
    known = (tmp_path / CSV).read_text().splitlines()
    from_server = [known[0] + ",wandb_id", *(f"{row},w{n}" for n, row in enumerate(known[1:]))]
    (tmp_path / CSV).write_text("\n".join(from_server) + "\n")
    assert main([str(tmp_path)]) == 0  # nothing is lost
    elsewhere = from_server[1].replace("000000000001", "00000000000e")
    (tmp_path / CSV).write_text("\n".join([*from_server, elsewhere]) + "\n")
    before = (tmp_path / CSV).read_bytes()
    capsys.readouterr()
    assert main([str(tmp_path)]) == 2
    assert f"{tmp_path / CSV} has 1 runs that only the server knows" in capsys.readouterr().err
    assert (tmp_path / CSV).read_bytes() == before
