"""One run and its folder: record, weights, picture; failures; identity; interruption."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from fno_runner.cli import parse_config
from fno_runner.config import RunConfig
from fno_runner.data.npz import array_names, read_array, write_npz
from fno_runner.errors import DivergedError, MachineError, UserError
from fno_runner.identity import run_id
from fno_runner.models import build_network, count_parameters
from fno_runner.reconstruct.predictor import Predictor
from fno_runner.result import Metrics, RunResult
from fno_runner.runner import Outcome, preflight, run
from fno_runner.terminal import print_outcome
from tests.commands import python_m

FILES = {"result.json", "recon.npz", "recon.png", "model.safetensors", "log.txt"}


def read(folder: Path) -> RunResult:
    return RunResult.model_validate_json((folder / "result.json").read_text())


def arguments(config: RunConfig) -> list[str]:
    return [f"--{k}={v}" for k, v in config.model_dump(exclude_none=True).items()]


def test_a_run_leaves_everything(tiny_config: RunConfig) -> None:
    outcome = run(tiny_config.model_copy(update={"infer_batch_size": 100}))
    result = read(outcome.folder)
    assert outcome.folder == Path(tiny_config.output_dir) / "runs" / result.run_id
    assert {path.name for path in outcome.folder.iterdir()} == FILES
    assert result.config["infer_batch_size"] == 100
    assert result.metrics_against == "truth"
    assert {"ssim", "psnr", "mae", "mse", "ms_ssim", "frc50", "pearson"} <= set(
        result.metrics.pairs
    )
    assert result.model_params == count_parameters(build_network(tiny_config, 3))
    assert result.inference_time_s is not None and result.inference_time_s > 0
    assert result.timing["infer_batch_size"] == 100
    assert "infer_batch_size_asked" not in result.timing  # it fitted
    assert set(result.floors) == {"flat_phase", "projection_1", "projection_50"}
    assert [epoch["epoch"] for epoch in result.history] == [1, 2]
    assert {"torch", "host", "dataset", "git_commit", "device_name"} <= set(result.provenance)
    assert read_array(outcome.folder / "recon.npz", "object").shape == (1, 180, 180)
    weights = load_file(outcome.folder / "model.safetensors")
    assert sum(w.size for w in weights.values()) == result.model_params


def test_every_test_object_is_scored_and_one_of_them_timed(
    tiny_config: RunConfig, tmp_path: Path
) -> None:
    """The object twice: each scores as it does alone, and a pass over one is as long as before."""
    given = Path(str(tiny_config.test_npz))
    arrays = {key: read_array(given, key) for key in array_names(given)}
    twice = {
        "diffraction": np.concatenate([arrays["diffraction"]] * 2),
        "coords_offsets": np.concatenate([arrays["coords_offsets"]] * 2),
        "YY_ground_truth": np.concatenate([arrays["YY_ground_truth"]] * 2, axis=-1),
    }
    write_npz(tmp_path / "twice.npz", arrays | twice)
    alone = run(tiny_config).result
    outcome = run(tiny_config.model_copy(update={"test_npz": str(tmp_path / "twice.npz")}))
    result = outcome.result
    assert len(result.objects) == 2 and alone.objects == []
    for of_object in result.objects:
        assert of_object["ssim"] == pytest.approx(alone.metrics.pairs["ssim"], abs=1e-5)
    assert result.metrics.pairs["ssim"] == pytest.approx(alone.metrics.pairs["ssim"], abs=1e-5)
    patterns = len(arrays["diffraction"])
    for record in (alone, result):
        rate = record.timing["inference_patterns_per_s"]
        assert isinstance(rate, float) and record.inference_time_s is not None
        assert rate * record.inference_time_s == pytest.approx(patterns)
    assert read_array(outcome.folder / "recon.npz", "object").shape == (2, 180, 180)


def test_the_same_seed_gives_identical_metrics(tiny_config: RunConfig) -> None:
    first, second = (run(tiny_config) for _ in range(2))
    assert first.result.metrics == second.result.metrics
    assert first.folder == second.folder
    # What was there is kept aside, never overwritten.
    aside = Path(tiny_config.output_dir) / "superseded" / f"{first.result.run_id}-1"
    assert read(aside).metrics == first.result.metrics


def test_record_is_strict_json_in_the_documented_order(tiny_config: RunConfig) -> None:
    outcome = run(tiny_config.model_copy(update={"epochs": 1}))

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    record = json.loads((outcome.folder / "result.json").read_text(), parse_constant=refuse)
    assert list(record)[:4] == ["schema_version", "run_id", "status", "error"]


def test_what_it_took_and_trained_on_is_recorded(
    tiny_config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Loading counts where `preflight` did it, as in a sweep; too few patterns are told."""
    config = tiny_config.model_copy(update={"train_patterns": 10_000, "epochs": 1})
    dataset = preflight(config)
    with caplog.at_level("WARNING", "fno_runner"):
        result = run(config, dataset).result
    there = len(dataset.train)
    assert result.provenance["train_patterns_used"] == there < 10_000
    assert f"train_patterns=10000: the data have {there}" in caplog.text
    loading, training, total = (
        float(result.timing[key] or 0) for key in ("data_time_s", "train_time_s", "total_time_s")
    )
    assert loading == dataset.loading_s > 0
    assert total > loading + training


def test_a_scan_is_scored_by_r_and_against_its_reference(
    scan_npz: Path, tiny_config: RunConfig
) -> None:
    values = tiny_config.model_dump() | {"train_npz": None, "test_npz": None}
    result = run(RunConfig(**values | {"scan": str(scan_npz), "epochs": 4})).result
    assert result.metrics_against == "reference"
    r = result.metrics.scan["r_factor"]
    assert r["train"] is not None and r["held_out"] is not None
    assert 0 < r["train"] < 0.5 and 0 < r["held_out"] < 0.5


def test_a_scan_without_reference_has_r_only(
    scan_npz: Path, tiny_config: RunConfig, tmp_path: Path
) -> None:
    keys = ("diff3d", "probeGuess", "xcoords", "ycoords")
    write_npz(tmp_path / "s.npz", {k: read_array(scan_npz, k) for k in keys})
    values = tiny_config.model_dump() | {"train_npz": None, "test_npz": None}
    outcome = run(RunConfig(**values | {"scan": str(tmp_path / "s.npz")}))
    assert outcome.result.status == "finished"
    assert set(outcome.result.metrics.scan) == {"r_factor", "deviance", "resolution"}
    assert set(outcome.result.metrics.pairs) == {"frc_halves", "frc_halves_half_bit"}
    assert set(outcome.result.curves) == {"halves"}
    assert outcome.result.metrics_against is None
    assert {path.name for path in outcome.folder.iterdir()} == FILES


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [(ZeroDivisionError("a bug"), "failed"), (DivergedError("loss nan"), "diverged")],
)
def test_an_error_in_the_point_is_recorded(
    error: Exception, status: str, tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("fno_runner.runner.train", broken)
    result = read(run(tiny_config).folder)
    assert result.status == status
    assert result.error is not None
    assert result.error.type == type(error).__name__
    assert result.error.message == str(error)
    assert "Traceback" in (result.error.traceback or "")
    assert result.metrics == Metrics() and result.inference_time_s is None


def test_a_network_whose_answer_is_no_number_is_not_kept(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(*_: object) -> None:
        raise DivergedError("a predicted patch is not finite")

    monkeypatch.setattr(Predictor, "__call__", diverged)
    outcome = run(tiny_config)
    assert outcome.result.status == "diverged"
    assert {path.name for path in outcome.folder.iterdir()} == {"result.json", "log.txt"}
    assert not list(Path(tiny_config.output_dir, "checkpoints").iterdir())


def test_a_failure_after_training_loses_no_network(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are there, and who runs it again trains no epoch."""

    def full(*_: object) -> None:
        raise MemoryError("Unable to allocate 9 GiB")

    with monkeypatch.context() as patch:
        patch.setattr("fno_runner.score.evaluation.stitch", full)
        failed = run(tiny_config)
    assert failed.result.status == "failed" and len(failed.result.history) == 2
    kept = load_file(failed.folder / "model-seed0.safetensors")
    outcome = run(tiny_config)
    assert outcome.result.provenance["resumed_epochs"] == 2 and outcome.result.metrics.pairs
    weights = load_file(outcome.folder / "model.safetensors")
    assert all((kept[name] == weight).all() for name, weight in weights.items())
    assert not list(Path(tiny_config.output_dir, "checkpoints").iterdir())


def test_an_empty_phase_is_called_collapsed(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reconstruction of vacuum recovers nothing, whatever its amplitude scores."""
    monkeypatch.setattr(
        Predictor,
        "__call__",
        lambda _, patterns: np.ones(patterns.amplitude.shape, np.complex64),
    )
    result = run(tiny_config).result
    assert result.status == "collapsed"
    assert result.error is not None and "recovered nothing" in result.error.message
    assert result.metrics.pairs["pearson"] == pytest.approx((0, 0), abs=1e-6)


def test_input_that_cannot_be_used_leaves_nothing(tiny_config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        run(tiny_config.model_copy(update={"test_npz": "missing.npz"}))
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot write"):
        run(tiny_config.model_copy(update={"output_dir": str(tmp_path / "file" / "study")}))
    assert not list(tmp_path.rglob("runs"))


def test_a_missing_device_is_the_machines_fault(tiny_config: RunConfig) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(MachineError, match="no CUDA device"):
        run(tiny_config.model_copy(update={"device": "cuda"}))


def test_run_id_is_of_what_decides_the_result(
    tiny_config: RunConfig, tiny_npz: tuple[Path, Path], tmp_path: Path
) -> None:
    name = run_id(tiny_config)
    moved = tmp_path / "moved.npz"
    moved.write_bytes(tiny_npz[0].read_bytes())
    same = {"output_dir": "x", "data_dir": "y", "device": "auto", "train_npz": str(moved)}
    assert run_id(tiny_config.model_copy(update=same)) == name
    for change in ({"width": 5}, {"seed": 1}, {"train_npz": str(tiny_npz[1])}):
        assert run_id(tiny_config.model_copy(update=change)) != name


# --- the command line -----------------------------------------------------------------------------


def test_command_line_runs_and_prints_a_table(tiny_config: RunConfig) -> None:
    quick = ["--epochs=4", "--batch-size=4", "--learning-rate=0.01"]
    done = python_m("fno_runner", *arguments(tiny_config), *quick)
    assert done.returncode == 0, done.stderr
    assert "Pearson" in done.stdout and "parameters" in done.stdout
    assert "epoch 4" in done.stdout


@pytest.mark.parametrize(
    ("how", "helps"),
    [
        ({"architecture": "hybrid"}, True),
        ({"architecture": "hybrid", "rate_scaling": "fan_in"}, False),
        ({"architecture": "fno"}, False),
    ],
)
def test_of_a_network_that_learnt_nothing_the_terminal_says_what_may_help(
    how: dict[str, object], helps: bool
) -> None:
    config = RunConfig.model_validate({**how, "learning_rate": 0.02}).model_dump()
    result = RunResult(run_id="0" * 12, status="collapsed", config=config)
    console = Console(record=True, width=200, file=io.StringIO())
    print_outcome(Outcome(result, Path("run")), console)
    said = console.export_text()
    assert "0.02" in said and ("--rate_scaling fan_in" in said) == helps


def test_units_are_printed_as_they_are() -> None:
    """What a terminal may take for markup, [dB] among it."""
    result = RunResult(run_id="0" * 12, status="finished", config=RunConfig().model_dump())
    result.metrics.pairs |= {"psnr": (20.0, 25.0), "mae": (0.1, 0.2), "frc50": (0.1, 0.1)}
    console = Console(record=True, width=200, file=io.StringIO())
    print_outcome(Outcome(result, Path("run[1]")), console)
    said = console.export_text()
    assert all(word in said for word in ("PSNR [dB]", "MAE [rad]", "FRC cut-off [1/px]", "run[1]"))


def test_the_terminal_tells_r_apart_as_finely_as_a_choice_does() -> None:
    """Differences of 0.0005 count. R is of the patterns: it stands below no reference's heading."""
    result = RunResult(run_id="0" * 12, status="finished", config=RunConfig().model_dump())
    result.metrics.scan |= {"r_factor": {"held_out": 0.0839, "held_out_from_object": 0.0843}}
    console = Console(record=True, width=200, file=io.StringIO())
    print_outcome(Outcome(result, Path("run")), console)
    said = console.export_text()
    assert "0.0839" in said and "0.0843" in said and "against" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--modes", "0"], "modes=0: allowed is an integer ≥ 1 and ≤ 256"),
        (["--width", "-3"], "width=-3: allowed is an integer ≥ 1"),
        (["--width=wide"], "width=wide: allowed is an integer"),
        (["--architecture", "cnn"], "architecture='cnn': allowed is fno | hybrid"),
        (["--input_transform", "exp"], "input_transform='exp': allowed is none | log1p | sqrt"),
        (["--wdith=3"], "unknown option '--wdith'; did you mean 'width'?"),
        (["width=3"], "unknown argument 'width'"),
        (["--infer-batch-size"], "expected one argument"),
        (["--learning_rate=nan"], "learning_rate=nan: allowed is a number > 0"),
        (["--scan", "missing.npz"], "missing.npz: no such file"),
        (["--scan="], "scan="),
        (["--train_npz", "x"], "given together"),
    ],
)
@pytest.mark.parametrize("module", ["fno_runner.__main__", "agent.run"])
def test_bad_options_get_one_line(
    module: str, options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib

    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        main = importlib.import_module(module).main
        status = main([*options, f"--output_dir={tmp_path / 'study'}"])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    err = capsys.readouterr().err
    assert status == 2
    assert said in err and err.startswith("error: ") and err.count("\n") == 1
    assert not list(tmp_path.rglob("runs"))


def test_keys_of_a_simulation_are_told_to_change_nothing_about_a_scan(
    scan_npz: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ["--nphotons=50", "--nimgs_test=7", "--data_seed=3"]
    parse_config(options, "run", "")
    assert not caplog.records
    parse_config([*options, "--scan", str(scan_npz)], "run", "")
    assert "nimgs_test, nphotons: no effect" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_no_record(
    number: signal.Signals, tiny_config: RunConfig, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "agent.run", *arguments(tiny_config), "--epochs=5000"],
        env={**os.environ, "WANDB_MODE": "offline"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "epoch 1" in process.stdout.readline()
        process.send_signal(number)
        start = time.monotonic()
        process.stdout.read()
        assert process.wait(timeout=30) == 128 + number
    assert time.monotonic() - start < 20
    assert not list(Path(tiny_config.output_dir).rglob("result.json"))
    assert not list(Path(tiny_config.output_dir).rglob("*.partial"))
