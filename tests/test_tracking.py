"""The mirror in Weights & Biases: offline and disabled need nobody, and change nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import wandb

from agent.server.tracker import Tracker, summary
from fno_runner.config import RunConfig
from fno_runner.data.npz import write_npz
from fno_runner.errors import MachineError
from fno_runner.identity import run_id
from fno_runner.result import ErrorInfo, RunResult
from fno_runner.runner import Outcome
from tests.commands import python_m
from tests.test_runner import arguments
from tests.wandb_backend import WandbBackend


def run_agent(
    config: RunConfig, env: dict[str, str], program: str = "agent.run", status: int = 0
) -> subprocess.CompletedProcess[str]:
    """One point in a process of its own, in an environment without other settings of W&B."""
    done = python_m(program, *arguments(config), env=env)
    assert done.returncode == status, done.stderr
    return done


def environment(**variables: str) -> dict[str, str]:
    """This process's environment, but of Weights & Biases only `variables`."""
    return {k: v for k, v in os.environ.items() if not k.startswith("WANDB")} | variables


def record(config: RunConfig) -> dict[str, Any]:
    return json.loads(record_path(config).read_text())


def record_path(config: RunConfig) -> Path:
    return Path(config.output_dir) / "runs" / run_id(config) / "result.json"


TIMES = re.compile(
    r'"(?:\w*(?:_time|latency)(?:_iqr|_p90)?_s|\w*patterns_per_s|\w+_repeats|peak_memory_bytes)": '
    r"[-+.e\d]+"
)
"""The numbers of a record that no two runs have alike, wherever they stand in it."""


def without_times(config: RunConfig) -> bytes:
    """A record's bytes, its times blanked, its provenance and its folder's name cut out."""
    text = record_path(config).read_text()
    before, provenance = text.rsplit('"provenance": {', 1)
    assert provenance.count("}") == 2  # the record's last key: nothing else is cut out
    return TIMES.sub('"": 0', before.replace(config.output_dir, "")).encode()


@pytest.mark.slow
def test_the_record_is_the_same_whatever_becomes_of_its_mirror(
    tiny_config: RunConfig, tmp_path: Path
) -> None:
    configs = {
        name: tiny_config.model_copy(update={"output_dir": str(tmp_path / name)})
        for name in ("up", "away", "offline", "disabled", "untracked")
    }
    with WandbBackend() as backend:
        env = {**backend.environment(tmp_path), "OMP_NUM_THREADS": "1"}
        del env["WANDB_DIR"]
        run_agent(configs["up"], env)
        run = backend.run()
        assert run.completions == 1
        assert run.files["result.json"] == record_path(configs["up"]).read_bytes()

        backend.stop()
        said = run_agent(configs["away"], {**env, "WANDB_INIT_TIMEOUT": "2"}).stderr
        assert "warning: Weights & Biases does not answer" in said
        (left,) = (tmp_path / "away" / "wandb").glob("*run-*")
        assert left.name.startswith("offline-run-")

        run_agent(configs["offline"], {**env, "WANDB_MODE": "offline"})
        (kept,) = (tmp_path / "offline" / "wandb").glob("offline-run-*")
        assert (kept / "files" / "result.json").read_text() == record_path(
            configs["offline"]
        ).read_text()
        assert list((kept / "files" / "media" / "images").glob("reconstruction*.png"))

        run_agent(configs["disabled"], {**env, "WANDB_MODE": "disabled"})
        assert not (tmp_path / "disabled" / "wandb").exists()

        run_agent(configs["untracked"], env, program="fno_runner", status=1)  # it collapsed
    same = {name: without_times(config) for name, config in configs.items()}
    assert same["up"].count(b'"": 0') > 10
    assert set(same.values()) == {same["untracked"]}


def test_without_a_key_the_ways_out_are_named(tiny_config: RunConfig, tmp_path: Path) -> None:
    env = environment(HOME=str(tmp_path), WANDB_BASE_URL="http://127.0.0.1:9")
    done = run_agent(tiny_config, env, status=3)
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: Weights & Biases: ")
    assert all(way in line for way in ("wandb login", "WANDB_MODE=offline", "WANDB_MODE=disabled"))
    assert not list(Path(tiny_config.output_dir).rglob("result.json"))


def test_a_time_limit_that_is_none_is_the_machines_fault(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The point is not to blame, and is not recorded as failed."""
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "soon")
    with pytest.raises(MachineError, match="WANDB_FINISH_TIMEOUT='soon': allowed is a number"):
        Tracker(tiny_config, "0" * 12)


def test_data_that_cannot_be_used_cost_no_tracked_run(
    tiny_config: RunConfig, tiny_npz: tuple[Path, Path], tmp_path: Path
) -> None:
    with np.load(tiny_npz[1]) as stored:
        arrays = {key: stored[key] for key in stored.files}
    arrays["diffraction"][0] = np.nan
    write_npz(tmp_path / "nan.npz", arrays)
    spoiled = tiny_config.model_copy(update={"test_npz": str(tmp_path / "nan.npz")})
    done = run_agent(spoiled, environment(WANDB_MODE="offline"), status=2)
    assert "NaN or infinite" in done.stderr and done.stderr.count("\n") == 1
    assert not [path for path in Path(spoiled.output_dir).rglob("*") if path.is_file()]


@pytest.mark.slow
def test_a_client_that_dies_takes_no_run_with_it(tiny_config: RunConfig) -> None:
    config = tiny_config.model_copy(update={"epochs": 9})
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.run", *arguments(config)],
        env=environment(WANDB_MODE="offline", OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while not process.stdout.readline().startswith("epoch 2"):
        assert process.poll() is None
    (core,) = psutil.Process(process.pid).children()  # the client's own process
    core.kill()
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert "warning: Weights & Biases has not everything" in said
    assert len(record(config)["history"]) == 9


def test_a_record_that_cannot_be_copied_leaves_the_run_whole_with_the_client(
    tiny_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A disk that is full at the end: what the client has of the run is ended, and kept."""
    for variable in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()  # of earlier tests of this process, whose environment the client has read
    config = tiny_config.model_copy(update={"output_dir": str(tmp_path)})
    ended: list[int] = []
    told: list[dict[str, Any]] = []
    finish = wandb.Run.finish

    def finished(run: wandb.Run, exit_code: int) -> None:
        told.append(dict(run.summary))
        ended.append(exit_code)
        finish(run, exit_code)

    monkeypatch.setattr(wandb.Run, "finish", finished)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    result = RunResult(run_id=run_id(config), status="finished", config=config.model_dump())
    with Tracker(config, result.run_id) as tracker:
        tracker.outcome(Outcome(result, tmp_path))
    wandb.teardown()
    assert ended == [0]
    said = capsys.readouterr().err
    assert said.count("warning") == 1 and "No space left on device" in said
    assert "sends the rest later" not in said, "agent.sync has no record to send"
    assert told and told[0]["status"] == "finished", "and yet the server knows how it ended"


@pytest.mark.parametrize("status", ["finished", "failed"])
def test_summary_is_flat_and_has_what_there_is(status: str) -> None:
    config = RunConfig()
    result = RunResult.model_validate(
        {
            "run_id": run_id(config),
            "status": status,
            "error": ErrorInfo(type="E", message="boom") if status == "failed" else None,
            "config": config.model_dump(),
            "metrics": {"ssim": (0.5, 0.7), "frc50": (None, 0.2)} if status == "finished" else {},
            "model_params": 12,
            "timing": {"train_time_s": 3.0, "infer_batch_size": 64},
        }
    )
    flat = summary(result)
    assert flat["status"] == status
    assert flat["error"] == ("boom" if status == "failed" else "")
    assert flat["train_time_s"] == 3.0 and flat["model_params"] == 12
    if status == "finished":
        assert (flat["ssim_amp"], flat["ssim_phase"], flat["frc50_phase"]) == (0.5, 0.7, 0.2)
    else:
        assert "ssim_phase" not in flat
    assert "frc50_amp" not in flat  # the client would drop None without a word
    # Only what the configuration says otherwise: memory sufficed for 64 of 128.
    assert set(flat) & set(RunConfig.model_fields) == {"infer_batch_size"}
