"""Models timed again: in turns, on one device, kept beside the records, preferred by the table."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import save_file

from agent import retime
from agent.export import export
from agent.study.records import read_records, table
from agent.study.retimes import RETIMED, is_settled, prefer_retimed, read_retiming
from fno_runner.config import RunConfig
from fno_runner.data import NOT_OF_DATA
from fno_runner.data.dataset import Dataset
from fno_runner.data.npz_pair import load_npz_pair
from fno_runner.errors import UserError
from fno_runner.identity import run_id
from fno_runner.reconstruct.inference import predict
from fno_runner.reconstruct.weights import load_weights, write_weights
from fno_runner.result import RunResult, run_folder, write_result
from fno_runner.score.flops import flops_per_pattern
from fno_runner.score.timing import timed_predict
from fno_runner.train.network import build_model

CPU = torch.device("cpu")
SLOW = 1000.0
"""What the runs of a test say that they took [s]: no time that is taken again is so long."""


@pytest.fixture
def study(tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A study of networks that nobody trained, one a width, and a protocol in a hurry."""
    monkeypatch.setattr(retime, "VISIT", ((2, 0.0),))
    monkeypatch.setattr(retime, "AT_LEAST_S", 0.0)

    def make(*widths: int, **changes: Any) -> Path:
        dataset = load_npz_pair(Path(str(tiny_config.train_npz)), Path(str(tiny_config.test_npz)))
        folder = Path(tiny_config.output_dir)
        for width in widths:
            config = tiny_config.model_copy(update={"width": width})
            values: dict[str, Any] = {
                "run_id": run_id(config),
                "status": "finished",
                "config": config.model_dump(),
                "metrics": {"ssim": (0.5, 0.4), "psnr": (20.0, 20.0), "pearson": (0.9, 0.9)},
                "metrics_against": "truth",
                "model_params": 100 * width,
                "inference_time_s": SLOW,
                "timing": {"inference_time_s": SLOW, "train_time_s": 9.0, "threads": 64},
                "provenance": {
                    "device_name": "Abacus", "started": f"2026-01-0{width}T00:00:00+00:00",
                    "dataset": "d",
                },
            }  # fmt: skip
            result = RunResult(**(values | changes))
            write_result(result, run_folder(folder, result.run_id))
            model = build_model(config, dataset, CPU)
            write_weights(run_folder(folder, result.run_id) / "model.safetensors", model, 0.5)
        return folder

    return make


def rows(folder: Path) -> tuple[list[dict[Any, Any]], list[str]]:
    """The rows of a study's table, after its retime.json."""
    whole, remarks = prefer_retimed(table(read_records(folder).results), [folder])
    return whole.to_dict("records"), remarks


def test_weights_come_back_as_they_went(tiny_config: RunConfig, tmp_path: Path) -> None:
    dataset = load_npz_pair(Path(str(tiny_config.train_npz)), Path(str(tiny_config.test_npz)))
    some = dataset.test.take(torch.arange(5).numpy())
    model = build_model(tiny_config, dataset, CPU)
    write_weights(tmp_path / "model.safetensors", model, 0.1 + 0.2)
    other = build_model(tiny_config.model_copy(update={"seed": 5}), dataset, CPU)
    scale = load_weights(tmp_path / "model.safetensors", other)
    assert scale == 0.1 + 0.2
    expected = predict(model, some, scale, CPU, 5)
    assert (predict(other, some, scale, CPU, 5) == expected).all()


def test_models_take_turns_until_their_fastest_visit_is_confirmed(
    study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = study(2, 3)
    before = {path: path.read_bytes() for path in folder.rglob("result.json")}
    said = io.StringIO()
    passes = iter([2.02, 10.0, 3.1, 10.3, 2.0, 10.2, 3.0, 10.1, 2.05, 10.4, 2.04, 2.1])

    def told(*args: Any) -> Any:
        patches, timing = timed_predict(*args)
        seconds = next(passes)
        return patches, timing | {"inference_time_s": seconds, "latency_s": seconds / 100}

    monkeypatch.setattr("agent.retime.timed_predict", told)
    retiming, refused = retime.retime(folder, CPU, 9, Console(file=said))
    first, second = sorted(path.parent.name for path in before)
    turns = re.findall(r"^round (\d), (\w+):", said.getvalue(), re.MULTILINE)
    both = [(n, name) for n in "12345" for name in (first, second)]
    assert turns == [*both, ("6", first), ("7", first)]  # the second was settled after five
    assert not refused and next(passes, None) is None
    slow, settled = retiming.models[first], retiming.models[second]
    assert (slow.times.inference_time_s, slow.times.latency_s) == (2.0, 0.02)
    assert settled.times.inference_time_s == 10.0
    assert [pass_s for pass_s, _ in slow.rounds_s] == [2.02, 3.1, 2.0, 3.0, 2.05, 2.04, 2.1]
    assert slow.settled and settled.settled
    assert {path: path.read_bytes() for path in before} == before


def test_models_that_agree_at_once_are_visited_all_the_same(
    study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = study(2)

    def told(*args: Any) -> Any:
        patches, timing = timed_predict(*args)
        return patches, timing | {"inference_time_s": 1.0, "latency_s": 1.0}

    monkeypatch.setattr("agent.retime.timed_predict", told)
    monkeypatch.setattr(retime, "AT_LEAST_S", 1e6)
    (model,) = retime.retime(folder, CPU, 8, Console(file=io.StringIO()))[0].models.values()
    assert len(model.rounds_s) == 8 and model.settled


def test_a_machine_that_never_comes_to_rest_is_named(
    study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study(2)
    latencies = iter([1.0, 2.0, 1.03, 1.06, 1.02, 1.01])

    def told(*args: Any) -> Any:
        patches, timing = timed_predict(*args)
        return patches, timing | {"inference_time_s": 1.0, "latency_s": next(latencies)}

    monkeypatch.setattr("agent.retime.timed_predict", told)
    assert retime.main([str(folder), "--rounds=6", "--device=cpu"]) == 0
    said = capsys.readouterr()
    assert "0 of 1 models settled" in said.out
    assert "1 of 1 models are not settled, as fewer than 5 visits lie within 5% of" in said.err
    (row,), remarks = rows(folder)
    assert row["latency_s"] == 1.0 and row["timed_by"] == "retime"
    assert remarks[1].startswith("times of 1 of 1 retimed rows are not settled")


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20), st.data())
def test_a_slower_visit_never_unsettles_what_is_settled(times: list[float], data: Any) -> None:
    slower = data.draw(st.floats(min(times), 1e9))
    assert is_settled([*times, slower]) >= is_settled(times)
    assert is_settled(data.draw(st.permutations(times))) == is_settled(times)
    assert not is_settled(times[:4])


def test_the_table_prefers_what_was_timed_again(
    study: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study(2, 3)
    own, remarks = rows(folder)
    assert {row["timed_by"] for row in own} == {"run"} and remarks == []
    assert {(row["device_name"], row["trained_on"]) for row in own} == {("Abacus", "Abacus")}

    assert retime.main([str(folder), "--rounds=1", "--device=cpu"]) == 0
    assert "note: runs were made on Abacus" in capsys.readouterr().err
    again, remarks = rows(folder)
    assert re.fullmatch("times of 2 of 2 rows are retimed, on .+", remarks[0])
    for row, old in zip(again, own, strict=True):
        assert row["timed_by"] == "retime"
        assert row["latency_s"] > 0 and 0 < row["inference_time_s"] < SLOW
        assert row["trained_on"] == "Abacus" != row["device_name"]
        assert row["threads"] == torch.get_num_threads() and row["train_time_s"] == 9.0
        same = {"run_id", "width", "status", "ssim_phase", "train_time_s", "model_params"}
        assert {key: row[key] for key in same} == {key: old[key] for key in same}
    small, large = sorted(again, key=lambda row: row["width"])
    assert small["flops_per_pattern"] < large["flops_per_pattern"]

    export(folder)
    csv = (folder / "study_results.csv").read_text()
    assert "1000.0" not in csv and csv.count("retime") == 2


def test_operations_are_those_of_the_runs_network(
    study: Callable[..., Path], tiny_config: RunConfig
) -> None:
    folder = study(4)
    (model,) = retime.retime(folder, CPU, 1, Console(file=io.StringIO()))[0].models.values()
    dataset = load_npz_pair(Path(str(tiny_config.train_npz)), Path(str(tiny_config.test_npz)))
    of_run = flops_per_pattern(build_model(tiny_config, dataset, CPU), dataset.test.probe)
    assert model.times.flops_per_pattern == of_run


def test_a_later_run_does_not_get_the_time_of_an_earlier_model(
    study: Callable[..., Path],
) -> None:
    folder = study(2, 3)
    assert retime.main([str(folder), "--rounds=1", "--device=cpu"]) == 0
    study(3, provenance={"device_name": "Abacus", "started": "2027-01-01T00:00:00+00:00"})
    again, remarks = rows(folder)
    assert {row["width"]: row["timed_by"] for row in again} == {2: "retime", 3: "run"}
    assert remarks[-1] == "1 of 2 rows are of another run than their retimed model"
    assert all(row["device_name"] for row in again)


def test_runs_without_a_result_are_nobodys_time(study: Callable[..., Path]) -> None:
    folder = study(2)
    error = {"type": "ValueError", "message": "boom"}
    study(3, status="failed", error=error, inference_time_s=None, metrics={}, timing={})
    assert retime.main([str(folder), "--rounds=1", "--device=cpu"]) == 0
    again, _ = rows(folder)
    assert {row["width"]: row["timed_by"] for row in again} == {2: "retime", 3: None}


def broken(name: str, path: Path) -> None:
    content = path.read_bytes()
    if name == "missing":
        path.unlink()
    elif name == "torn":
        path.write_bytes(content[: len(content) // 2])
    elif name == "pickle":
        path.write_bytes(b"\x80\x02}q\x00.")
    elif name == "huge":
        path.write_bytes(content + bytes(2**21))
    else:
        save_file({"x": torch.zeros(2)}, path)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "no such file"), ("torn", "not a whole safetensors file"),
        ("pickle", "not a whole safetensors file"), ("huge", "larger than the network"),
        ("other keys", r"has 'x', which the network has not|has no '"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_used_is_named_and_the_others_are_timed(
    study: Callable[..., Path], capsys: pytest.CaptureFixture[str], how: str, words: str
) -> None:
    folder = study(2, 3)
    bad, good = sorted(folder.glob("runs/*/model.safetensors"))
    broken(how, bad)
    assert retime.main([str(folder), "--rounds=1", "--device=cpu"]) == 1
    err = capsys.readouterr().err
    assert re.search(f"error: {bad.parent.name} is not timed: .*({words})", err), err
    retiming = read_retiming(folder)
    assert retiming is not None and set(retiming.models) == {good.parent.name}


def test_weights_of_another_configuration_are_refused(
    study: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study(2, 3)
    paths = {
        json.loads((path.parent / "result.json").read_text())["config"]["width"]: path
        for path in folder.glob("runs/*/model.safetensors")
    }
    paths[3].write_bytes(paths[2].read_bytes())
    paths[2].unlink()
    assert retime.main([str(folder), "--rounds=1", "--device=cpu"]) == 2
    err = capsys.readouterr().err
    assert re.search(r"is float32 \(2.*\), not float32 \(3.*\); it is not of the network", err), err
    assert err.endswith("no model that could be timed\n")
    assert not (folder / RETIMED).exists()


def test_a_file_that_is_not_believed_changes_no_time(study: Callable[..., Path]) -> None:
    folder = study(2)
    assert retime.main([str(folder), "--rounds=1", "--device=cpu"]) == 0
    good = (folder / RETIMED).read_text()
    for bad in (
        "", good[:100], "[]", "[" * 100_000,
        good.replace('"schema_version": 1', '"schema_version": 2'),
        re.sub(r'"latency_s": [\d.e-]+', '"latency_s": -1', good),
        re.sub(r'"inference_time_s": [\d.e-]+', '"inference_time_s": 0', good),
        re.sub(r'"threads": \d+', '"threads": "2"', good), good.replace('"tf32"', '"tf31"'),
    ):  # fmt: skip
        assert bad != good
        (folder / RETIMED).write_text(bad)
        (row,), (remark,) = rows(folder)
        assert row["inference_time_s"] == SLOW and row["timed_by"] == "run"
        assert f"{RETIMED} is not believed" in remark and "\n" not in remark


def test_bad_calls_are_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        ([str(tmp_path / "none")], "no such study folder"),
        ([str(tmp_path)], "not a study"),
        ([str(tmp_path), "--rounds=0"], "allowed is an integer ≥ 1"),
        ([str(tmp_path), "--device=tpu"], "invalid choice"),
    ):
        assert retime.main(arguments) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and words in err and err.count("\n") == 1
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match="no model"):
        retime._main(retime._parser().parse_args([str(tmp_path)]))


def test_a_scan_read_otherwise_is_another_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two configurations share what is loaded if they differ in keys of the network alone."""
    loaded: list[RunConfig] = []

    def load(config: RunConfig) -> RunConfig:
        loaded.append(config)
        return config

    monkeypatch.setattr(retime, "load_dataset", load)
    last: dict[str, Dataset] = {}
    wanted = [
        {"scan": "a.h5", "width": 8},
        {"scan": "a.h5", "width": 16, "seed": 1},
        {"scan": "a.h5", "width": 8, "scan_data": "intensity"},
        {"scan": "a.h5", "width": 8, "scan_data": "intensity", "scan_entry": "entry_2"},
        {"width": 8},
        {"width": 8, "nphotons": 1e4},
    ]
    for keys in wanted:
        retime._dataset(RunConfig.model_validate(keys), last)
    order = [wanted.index(config.model_dump(exclude_unset=True)) for config in loaded]
    assert order == [0, 2, 3, 4, 5]
    assert RunConfig.model_fields.keys() > NOT_OF_DATA
