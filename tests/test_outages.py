"""A server that goes away or stumbles costs a run little time and no result: real trainings."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.server.run_folders import is_held
from fno_runner.config import RunConfig
from fno_runner.identity import run_id
from fno_runner.result import RunResult
from tests.test_runner import arguments
from tests.test_sync import Box, wait_until
from tests.test_sync import check_whole as check_arrived
from tests.test_wandb_agents import make_sweep, tiny_sweep
from tests.wandb_backend import API_KEY, Fault, Run, WandbBackend

CLIENT_S = 10
"""What the client and a busy machine may add to the time that a dead server is waited for [s]."""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with WandbBackend() as backend:
        yield Box(backend, tmp_path)


@contextmanager
def running(box: Box, config: RunConfig, **more: str) -> Iterator[subprocess.Popen[str]]:
    """`agent.run` of a point, which does not outlive the test."""
    with subprocess.Popen(
        [sys.executable, "-m", "agent.run", *arguments(config)],
        env={**box.env, "OMP_NUM_THREADS": "1", **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said_by(process: subprocess.Popen[str]) -> str:
    """What a point printed; it has to have been recorded."""
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    return said


def record(config: RunConfig) -> Path:
    return Path(config.output_dir, "runs", run_id(config), "result.json")


def check_whole(config: RunConfig, run: Run) -> None:
    """The server has all of a run, once."""
    content = record(config).read_bytes()
    result = RunResult.model_validate_json(content)
    assert run.files["result.json"] == content
    assert run.state == ("finished" if result.status == "finished" else "failed")
    rows = run.history
    epochs = [row["epoch"] for row in rows if "train_loss" in row]
    assert epochs == list(range(1, config.epochs + 1))
    assert [row["_step"] for row in rows] == list(range(config.epochs + 1))
    assert "reconstruction" in rows[-1] and rows[-1]["epoch"] == config.epochs
    assert run.files[run.summary["reconstruction"]["path"]].startswith(b"\x89PNG")
    assert run.summary["status"] == result.status and run.summary["epoch"] == config.epochs
    assert run.summary["ssim_phase"] == result.metrics.pairs["ssim"][1]
    assert run.config["width"] == config.width


def test_the_server_is_away_for_the_whole_of_a_run(box: Box, tiny_config: RunConfig) -> None:
    endless = tiny_config.model_copy(update={"seed": 1, "epochs": 100_000})
    box.backend.stop()
    with (
        running(box, endless, WANDB_MODE="offline") as stopped,
        running(box, tiny_config, WANDB_INIT_TIMEOUT="2") as process,
    ):
        assert stopped.stdout is not None
        while "epoch 1:" not in stopped.stdout.readline():
            pass
        assert any(is_held(folder) for folder in box.study.glob("wandb/offline-run-*"))
        stopped.send_signal(signal.SIGTERM)
        stopped.communicate(timeout=60)
        said = said_by(process)
    assert "warning: Weights & Biases does not answer" in said
    assert f"`python -m agent.sync {box.study}` sends it later" in said
    assert record(tiny_config).exists() and box.backend.runs == []
    assert stopped.returncode == 128 + signal.SIGTERM and not record(endless).exists()

    box.backend.start()
    lines = box.sync()
    assert [line.split()[0] for line in lines[:2]] == ["stopped", "sent"]
    assert lines[2] == "sent 1 run, 0 were there already, 1 stopped before its end, 0 failed"
    check_whole(tiny_config, box.backend.run())
    assert box.sync()[2].startswith("sent 0 runs, 1 was there already")
    assert box.backend.run().completions == 1
    written = [path for path in box.study.parent.rglob("*") if path.is_file()]
    assert any(path.name == "debug-internal.log" for path in written)
    assert not [path for path in written if API_KEY.encode() in path.read_bytes()]


@pytest.mark.slow
def test_the_server_goes_away_in_the_middle(box: Box, tiny_config: RunConfig) -> None:
    config = tiny_config.model_copy(update={"epochs": 20})
    with running(box, config, WANDB_FINISH_TIMEOUT="2") as process:
        wait_until(lambda: any("train_loss" in row for r in box.backend.runs for row in r.history))
        box.backend.stop()
        said = said_by(process)
        ended = time.time()
    assert "warning: Weights & Biases has not everything" in said
    assert "agent.sync" in said
    waited = ended - record(config).stat().st_mtime
    assert waited < 2 + CLIENT_S
    server = box.backend.run()
    assert server.state == "running" and 0 < len(server.history) <= 20

    box.backend.start()
    assert box.sync()[-1].startswith("sent 1 run,")
    assert box.backend.run() is server
    check_whole(config, server)


def stumble(backend: WandbBackend) -> list[Fault]:
    """Let a server fail in every way at once, for a while."""
    add = backend.faults.add
    return [
        add("UpsertBucket", status=429, retry_after=1),
        add("UpsertBucket", lose_reply=True),
        add("CreateRunFiles", status=500),
        add("upload", drop=True, times=2),
        add("file_stream", status=500),
        add("file_stream", lose_reply=True, times=2),
        add("file_stream", status=429, retry_after=1),
    ]


def test_a_server_that_stumbles_loses_and_doubles_nothing(box: Box) -> None:
    faults = stumble(box.backend)
    box.run("0")
    assert all(fault.hits for fault in faults)
    check_arrived(box, box.backend.run())


@pytest.mark.slow
def test_a_server_that_stumbles_beside_a_training(
    box: Box, tiny_config: RunConfig, scan_npz: Path
) -> None:
    values = {"train_npz": None, "test_npz": None, "scan": str(scan_npz)}
    config = tiny_config.model_copy(update=values)
    faults = stumble(box.backend)
    with running(box, config) as process:
        said = said_by(process)
    assert "warning: Weights & Biases" not in said
    assert all(fault.hits for fault in faults)
    check_whole(config, box.backend.run())
    # Too small an object for this metric: null in the record, which the server is not told.
    assert json.loads(record(config).read_text())["metrics"]["ms_ssim"] == [None, None]
    assert not {"ms_ssim_amp", "ms_ssim_phase"} & set(box.backend.run().summary)


@pytest.mark.slow
def test_a_point_of_a_sweep_that_went_offline_lands_in_its_sweep(
    tiny_npz: tuple[Path, Path], data_dir: Path, tmp_path: Path
) -> None:
    """The server answers the agent, but not the run that the agent started."""
    with WandbBackend() as backend:
        env = {**backend.environment(tmp_path), "OMP_NUM_THREADS": "1", "WANDB_INIT_TIMEOUT": "3"}
        sweep = make_sweep(backend, env, tiny_sweep(tiny_npz, data_dir, seed=[0]))
        del env["WANDB_DIR"]
        away = backend.faults.add("UpsertBucket", status=503, times=None)
        agent = subprocess.run(
            ["wandb", "agent", sweep.path], env=env, cwd=tmp_path, capture_output=True, check=False
        )
        assert agent.returncode == 0 and away.hits
        (point,) = backend.sweep_runs(sweep)
        assert (point.state, point.history) == ("crashed", [])
        backend.faults.clear()
        synced = subprocess.run(
            [sys.executable, "-m", "agent.sync"],
            env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert synced.returncode == 0, synced.stdout + synced.stderr
        assert synced.stdout.splitlines()[-1].startswith("sent 1 run,")
        assert backend.sweep_runs(sweep) == backend.runs == [point]
        assert (point.state, point.completions) in (("finished", 1), ("failed", 1))
        assert len(point.history) == 3 and "result.json" in point.files
