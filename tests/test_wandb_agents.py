"""`wandb sweep` and `wandb agent`, unmodified, against a server on loopback: real trainings."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fno_runner.result import RunResult
from tests.wandb_backend import Run, Sweep, WandbBackend

ROOT = Path(__file__).resolve().parents[1]
SUMMARY = {
    "ssim_phase", "psnr_phase", "mae_phase", "pearson_phase", "frc50_phase", "ssim_amp",
    "model_params", "inference_time_s", "inference_time_p90_s", "train_time_s", "patterns_per_s",
    "peak_memory_bytes", "status", "error",
}  # fmt: skip


def tiny_sweep(
    tiny_npz: tuple[Path, Path], data_dir: Path, **parameters: list[Any]
) -> dict[str, Any]:
    """sweep.yaml as it is shipped, but for a grid of `parameters` that trains in seconds."""
    sweep: dict[str, Any] = yaml.safe_load((ROOT / "sweep.yaml").read_text())
    fixed = {
        "modes": 6, "width": 4, "blocks": 2, "epochs": 2, "conditioning": "projection",
        "train_npz": str(tiny_npz[0]), "test_npz": str(tiny_npz[1]), "data_dir": str(data_dir),
    }  # fmt: skip
    sweep["parameters"] = {
        **{key: {"value": value} for key, value in fixed.items()},
        **{key: {"values": values} for key, values in parameters.items()},
    }
    return sweep


def make_sweep(backend: WandbBackend, env: dict[str, str], content: dict[str, Any]) -> Sweep:
    """`wandb sweep` of a file, as a user does it."""
    folder = Path(env["WANDB_DIR"])
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    made = subprocess.run(
        ["wandb", "sweep", "--project", "study", "sweep.yaml"],
        env=env, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    return backend.sweep()


def start_agent(env: dict[str, str], box: Path, sweep: Sweep) -> subprocess.Popen[bytes]:
    """`wandb agent` on a box of its own, in the background."""
    box.mkdir(exist_ok=True)
    with (box / "agent.log").open("ab") as log:
        return subprocess.Popen(
            ["wandb", "agent", "--forward-signals", sweep.path],
            env={**env, "WANDB_DIR": str(box)}, cwd=box, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


def records(box: Path, sweep: Sweep) -> dict[str, RunResult]:
    """run_id -> record, of the runs that an agent brought to an end on a box."""
    paths = box.glob(f"outputs/*/{sweep.id}/runs/*/result.json")
    return {path.parent.name: RunResult.model_validate_json(path.read_text()) for path in paths}


def test_two_agents_run_each_point_of_a_sweep_once(
    tiny_npz: tuple[Path, Path], data_dir: Path, tmp_path: Path
) -> None:
    # With the smallest rate nothing is learnt: this point collapses, and the sweep goes on.
    rates = [3e-3, 2e-3, 1e-9]
    content = tiny_sweep(tiny_npz, data_dir, learning_rate=rates)
    boxes = [tmp_path / "box1", tmp_path / "box2"]
    with WandbBackend() as backend:
        env = {**backend.environment(tmp_path), "OMP_NUM_THREADS": "1"}
        sweep = make_sweep(backend, env, content)
        agents = [start_agent(env, box, sweep) for box in boxes]
        assert [agent.wait(timeout=200) for agent in agents] == [0, 0]
        runs = backend.sweep_runs(sweep)

        assert sorted(run.config["learning_rate"] for run in runs) == sorted(rates)
        local = {**records(boxes[0], sweep), **records(boxes[1], sweep)}
        for run in runs:
            check_mirrored(run, local[run.config["run_id"]])
        collapsed = [run for run in runs if run.summary["status"] == "collapsed"]
        assert {run.config["learning_rate"] for run in collapsed} >= {1e-9}
        assert all("recovered" in run.summary["error"] for run in collapsed)
    key = env["WANDB_API_KEY"].encode()
    written = [path for path in tmp_path.glob("box*/**/*") if path.is_file()]
    assert written and not [path for path in written if key in path.read_bytes()]


def check_mirrored(run: Run, record: RunResult) -> None:
    """A run on the server says what its local record says."""
    assert isinstance(run.config["width"], int)
    assert run.state == ("finished" if record.status == "finished" else "failed")
    assert set(run.summary) >= SUMMARY
    assert run.summary["status"] == record.status
    assert run.summary["model_params"] == record.model_params
    epochs = [row for row in run.history if "train_loss" in row]
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert [row["val_loss"] for row in epochs] == [row["val_loss"] for row in record.history]
    assert RunResult.model_validate_json(run.files["result.json"]) == record
    assert run.files[run.summary["reconstruction"]["path"]].startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_run_that_is_stopped_at_the_server_ends_early_and_its_agent_goes_on(
    tiny_npz: tuple[Path, Path], data_dir: Path, tmp_path: Path
) -> None:
    # Two runs that nobody could wait for, and two short ones behind them.
    content = tiny_sweep(tiny_npz, data_dir, epochs=[9999, 9998, 2, 3])
    boxes = [tmp_path / "box1", tmp_path / "box2"]
    with WandbBackend() as backend:
        env = {**backend.environment(tmp_path), "OMP_NUM_THREADS": "1"}
        sweep = make_sweep(backend, env, content)
        agents = [start_agent(env, box, sweep) for box in boxes]
        wait_until(lambda: all("epoch 1:" in (b / "agent.log").read_text() for b in boxes))
        for run in backend.sweep_runs(sweep):
            run.stop_asked = True  # as the page's button does, or Hyperband
        assert [agent.wait(timeout=120) for agent in agents] == [0, 0]
        runs = backend.sweep_runs(sweep)
        local = {**records(boxes[0], sweep), **records(boxes[1], sweep)}
    assert len(runs) == len(local) == 4 and sweep.requeued == []
    by_epochs = {run.config["epochs"]: run for run in runs}
    for epochs, run in by_epochs.items():
        record = local[run.config["run_id"]]
        assert RunResult.model_validate_json(run.files["result.json"]) == record
        if epochs < 9:
            assert record.status in ("finished", "collapsed")
            continue
        assert run.state == "finished" and run.exit_code == 0
        reached = record.provenance["stopped_epoch"]
        assert isinstance(reached, float) and 0 < reached < epochs
        assert run.summary["status"] == record.status == "stopped"
        assert run.summary["stopped_epoch"] == pytest.approx(reached)
        assert run.summary["ssim_phase"] == record.metrics.pairs["ssim"][1]
        assert f"of {epochs} epochs" in run.summary["error"]
        assert record.history[-1]["epoch"] == pytest.approx(reached, abs=1e-3)


@pytest.mark.slow
def test_a_terminated_agent_leaves_its_point_to_be_run_again(
    tiny_npz: tuple[Path, Path], data_dir: Path, tmp_path: Path
) -> None:
    content = tiny_sweep(tiny_npz, data_dir, epochs=[20])
    box = tmp_path / "box"
    with WandbBackend() as backend:
        env = {**backend.environment(tmp_path), "OMP_NUM_THREADS": "1"}
        sweep = make_sweep(backend, env, content)
        agent = start_agent(env, box, sweep)
        wait_until(lambda: list(box.glob("outputs/*/*/runs/*.partial/log.txt")))
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(timeout=60) == 0
        (run,) = backend.sweep_runs(sweep)
        assert (run.state, sweep.requeued) == ("preempted", [run.id])
        assert not list(box.glob("outputs/*/*/runs/*"))

        assert start_agent(env, box, sweep).wait(timeout=120) == 0
        assert backend.sweep_runs(sweep) == [run]
        assert run.state == "finished"
        ((identifier, record),) = records(box, sweep).items()
        assert run.config["run_id"] == identifier
        assert len(record.history) == 20


def wait_until(there: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
