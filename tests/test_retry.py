"""`agent.retry`: what a sweep on the server lacks is listed, and run as runs of the sweep."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.retry import NOT_SENT, RUNS_NOW, TO_RUN, find_missing, main
from agent.study.folder import read_study
from agent.study.sweepfile import Sweep, parse_sweep, points
from fno_runner.config import RunConfig, load_config
from fno_runner.result import run_folder, write_result
from tests.commands import python_m
from tests.test_mirrored import LEFTOVERS, of_server, result_of
from tests.test_server_export import PROJECT, STUDIES, files_with_key, put
from tests.test_wandb_agents import tiny_sweep
from tests.wandb_backend import WandbBackend


@pytest.fixture
def two_points(tiny_npz: tuple[Path, Path], data_dir: Path) -> dict[str, Any]:
    """A sweep whose runs learn enough not to collapse."""
    return tiny_sweep(
        tiny_npz, data_dir, width=[3, 4], batch_size=[4], learning_rate=[0.01], epochs=[8]
    )


def retry(
    env: Mapping[str, str], folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return python_m("agent.retry", *arguments, env=env, cwd=folder)


def test_only_what_is_missing_runs_again_and_completes_the_sweep(
    two_points: dict[str, Any], tmp_path: Path
) -> None:
    done, broken = points(sweep_of(two_points))
    with WandbBackend() as backend:
        sweep = backend.add_sweep(two_points, PROJECT)
        put(backend, sweep, result_of(load_config(done)), config=done, group="ours")
        crashed = backend.add_run(
            PROJECT, sweep=sweep, config=broken, group="ours", state="crashed", summary=LEFTOVERS
        )
        env = {**backend.environment(tmp_path), "OMP_NUM_THREADS": "1"}
        env.pop("WANDB_DIR")
        ran = retry(env, tmp_path, sweep.path, "--run", "--per-gpu=1")
        assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
        said = f"sweep {sweep.path}: {{}} of the grid's 2 points are finished"
        assert "│ w4    │ to run │ crashed    │ the server has not heard" in ran.stdout
        assert f"{said.format(1)}, 1 to run" in ran.stdout
        assert ran.stdout.endswith(f"{said.format(2)}\n")

        (new,) = [run for run in backend.sweep_runs(sweep) if run.completions]
        assert (new.project, new.group, new.state) == (PROJECT, "ours", "finished")
        assert new.config["width"] == 4
        assert (crashed.state, len(backend.runs)) == ("crashed", 3)
    study = tmp_path / STUDIES / sweep.id
    assert [path.name for path in (study / "runs").iterdir()] == [new.config["run_id"]]
    assert read_study(study).sweep == sweep_of(two_points)
    assert not files_with_key(tmp_path)


@pytest.mark.slow
def test_seeds_that_settle_the_choice_run_as_runs_of_the_sweep(
    two_points: dict[str, Any], tmp_path: Path
) -> None:
    with WandbBackend() as backend:
        sweep = backend.add_sweep(two_points, PROJECT)
        env = {**backend.environment(tmp_path), "OMP_NUM_THREADS": "1"}
        env.pop("WANDB_DIR")
        options = ("--run", "--settle=0.999999", "--most-seeds=2", "--per-gpu=1")
        ran = retry(env, tmp_path, sweep.path, *options)
        assert ran.stderr == "" and "2 seeds added" in ran.stdout, ran.stdout
        done = [run for run in backend.sweep_runs(sweep) if run.completions]
        assert sorted((run.config["width"], run.config["seed"]) for run in done) == [
            (3, 0), (3, 1), (4, 0), (4, 1)
        ]  # fmt: skip


def test_a_choice_is_asked_for_where_nothing_has_run_yet(
    two_points: dict[str, Any], tmp_path: Path
) -> None:
    """Neither the server nor this disk has a run: listed, and stopped in the first point."""
    with WandbBackend() as backend:
        sweep = backend.add_sweep(two_points, PROJECT)
        env = {**backend.environment(tmp_path), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
        env.pop("WANDB_DIR")
        listed = retry(env, tmp_path, sweep.path, "--settle=0.9")
        assert (listed.returncode, listed.stderr) == (1, "") and "0 seeds added" in listed.stdout
        command = [sys.executable, "-m", "agent.retry", sweep.path, "--run", "--settle=0.9"]
        process = subprocess.Popen(
            command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        while not list(tmp_path.glob(f"{STUDIES}/*/logs/*.log")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[0].decode()
        assert process.returncode == 130 and "Traceback" not in output, output


def test_a_server_that_goes_away_does_not_end_what_is_to_settle_a_choice(
    two_points: dict[str, Any], tmp_path: Path
) -> None:
    """It is looked at again while seeds run here, and they would be stopped with the command."""
    done, _ = points(sweep_of(two_points))
    with WandbBackend() as backend:
        sweep = backend.add_sweep(two_points, PROJECT)
        put(backend, sweep, result_of(load_config(done)), config=done)
        away = backend.faults.add("Runs", after=1, status=403, times=None)
        listed = retry(backend.environment(tmp_path), tmp_path, sweep.path, "--settle=0.9")
    assert away.hits and listed.stderr.count("warning: ") == listed.stderr.count("\n") > 0
    assert (listed.returncode, "0 seeds added" in listed.stdout) == (1, True), listed.stdout


def test_what_runs_now_or_was_not_sent_is_not_run_again(tmp_path: Path) -> None:
    sweep = parse_sweep(
        {"method": "grid", "parameters": {"width": {"values": [8, 16, 24, 32]}}}, ""
    )
    results = {width: result_of(RunConfig(width=width)) for width in (8, 16, 24)}
    runs = [
        of_server(results[8], state="failed", summary=None),
        of_server(results[8], state="running"),
        of_server(results[24]),
        of_server(results[16], state="crashed", summary=None),
        of_server(results[16], state="killed", summary=None),
    ]
    write_result(results[16], run_folder(tmp_path, results[16].run_id))
    assert [(m.point["width"], m.what, m.state) for m in find_missing(sweep, runs, tmp_path)] == [
        (8, RUNS_NOW, "running"),
        (16, NOT_SENT, "killed"),
        (32, TO_RUN, "never begun"),
    ]


def sweep_of(file: Mapping[str, Any]) -> Sweep:
    keys = ("name", "method", "metric", "parameters")
    return parse_sweep({key: file[key] for key in keys}, "test")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["team/study"], "lacks the entity, the project or the sweep"),
        (["sweep1"], "lacks the entity and the project"),
        (["a/b/c", "--workers=0"], "'0': allowed is an integer ≥ 1"),
        (["a/b/c", "--workers=2", "--per-gpu=2"], "not allowed with argument --workers"),
        (["a/b/c/d"], "allowed is ENTITY/PROJECT/SWEEP_ID"),
    ],
)
def test_wrong_arguments_get_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert line in error
