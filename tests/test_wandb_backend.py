"""The stand-in for the Weights & Biases server, proven with the unmodified client.

Every process below is the real `wandb` command or a script that imports the real `wandb`; only
the server is ours.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.wandb_backend import Run, Sweep, WandbBackend

PROJECT = "study"

QUICK_RETRIES = {
    f"WANDB_X_{client}_RETRY_WAIT_{bound}_SECONDS": seconds
    for client in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")
    for bound, seconds in (("MIN", "1"), ("MAX", "1"))
}
"""The client waits 2 s and more by default. Whole seconds: it cuts off what is below."""

TRAIN = """
import json, sys
from pathlib import Path
import numpy as np, wandb

run = wandb.init(project="study", group="g1", tags=["a", "b"], config={"width": 8, "lr": 0.5})
run.define_metric("epoch")
run.define_metric("loss", step_metric="epoch")
for epoch in range(3):
    run.log({"epoch": epoch, "loss": 1 / (epoch + 1)})
run.log({"psnr": float("nan"), "image": wandb.Image(np.zeros((4, 4), dtype=np.uint8))})
run.summary["gain"] = float("inf")
run.summary["ssim"] = 0.75
Path("result.json").write_text(json.dumps({"status": "finished"}))
run.save("result.json", policy="now")
run.finish(exit_code=int(sys.argv[1]))
"""

POINT = """
import wandb

run = wandb.init()
run.log({"loss": 1.0})
failed = dict(run.config) == {"a": 1, "b": "y"}
run.finish(exit_code=1 if failed else 0)
"""

WAITING = """
import sys
import wandb

run = wandb.init(project="study")
run.log({"loss": 2.0})
print("ready", flush=True)
sys.stdin.readline()
run.log({"loss": 1.0})
run.summary["ssim"] = 0.5
try:
    run.finish()
except TimeoutError:
    print("timed out")
"""


@pytest.fixture
def backend() -> Iterator[WandbBackend]:
    """A running server, of which every test has its own."""
    with WandbBackend() as running:
        yield running


def call(
    env: dict[str, str], folder: Path, *command: str, timeout: float = 100
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; a failure shows what it said."""
    done = subprocess.run(
        command, env=env, cwd=folder, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def python(env: dict[str, str], folder: Path, code: str, *args: str) -> str:
    """What a script printed."""
    return call(env, folder, sys.executable, "-c", code, *args).stdout


# --- runs ----------------------------------------------------------------------------------------


def check_whole(run: Run, state: str, exit_code: int) -> None:
    """Everything that TRAIN reports is there, once."""
    assert (run.state, run.exit_code, run.group) == (state, exit_code, "g1")
    assert run.tags == ["a", "b"]
    assert run.config == {"width": 8, "lr": 0.5}
    assert [row.get("epoch") for row in run.history] == [0, 1, 2, None]
    assert [row["_step"] for row in run.history] == [0, 1, 2, 3]
    assert run.summary["psnr"] == "NaN"
    assert run.summary["gain"] == "Infinity"
    assert run.summary["ssim"] == 0.75
    assert json.loads(run.files["result.json"]) == {"status": "finished"}
    assert run.files[run.summary["image"]["path"]].startswith(b"\x89PNG")


@pytest.mark.parametrize(("exit_code", "state"), [(0, "finished"), (3, "failed")])
def test_a_run_arrives_whole(
    backend: WandbBackend, tmp_path: Path, exit_code: int, state: str
) -> None:
    python(backend.environment(tmp_path), tmp_path, TRAIN, str(exit_code))
    check_whole(backend.run(), state, exit_code)


def test_the_client_gets_through_faults_and_nothing_is_doubled(
    backend: WandbBackend, tmp_path: Path
) -> None:
    faults = [
        backend.faults.add("UpsertBucket", status=429, retry_after=1),
        backend.faults.add("UpsertBucket", lose_reply=True),
        backend.faults.add("CreateRunFiles", status=502),
        backend.faults.add("upload", drop=True, times=2),
        backend.faults.add("file_stream", status=500),
        backend.faults.add("file_stream", lose_reply=True, times=2),
        backend.faults.add("file_stream", status=429, retry_after=1, delay=0.2),
    ]
    python({**backend.environment(tmp_path), **QUICK_RETRIES}, tmp_path, TRAIN, "0")
    assert [fault.hits for fault in faults] == [1, 1, 1, 2, 1, 2, 1]
    check_whole(backend.run(), "finished", 0)


def test_an_offline_run_is_synced_once(backend: WandbBackend, tmp_path: Path) -> None:
    env = backend.environment(tmp_path)
    backend.stop()
    python({**env, "WANDB_MODE": "offline", "WANDB_RUN_ID": "point1"}, tmp_path, TRAIN, "0")
    assert backend.requests == []
    backend.start()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*-point1")
    call(env, tmp_path, "wandb", "sync", str(folder))
    assert (folder / "run-point1.wandb.synced").exists()
    call(env, tmp_path, "wandb", "sync", str(folder))  # skipped: the marker is there
    assert backend.run("point1").completions == 1
    check_whole(backend.run("point1"), "finished", 0)


def test_a_server_that_goes_away_and_comes_back(backend: WandbBackend, tmp_path: Path) -> None:
    env = {
        **backend.environment(tmp_path),
        "WANDB_FINISH_TIMEOUT": "3",
        "WANDB_FINISH_TIMEOUT_RAISES": "true",
    }
    command = [sys.executable, "-c", WAITING]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=env, cwd=tmp_path, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        backend.stop()
        said, _ = process.communicate("\n", timeout=60)
    assert said == "timed out\n"
    run = backend.run()
    assert (run.state, run.summary) == ("running", {})

    backend.start()
    (folder,) = (tmp_path / "wandb").glob(f"run-*-{run.id}")
    call(env, tmp_path, "wandb", "sync", "--include-online", str(folder))
    assert backend.run() is run
    assert (run.state, run.completions) == ("finished", 1)
    assert [row["loss"] for row in run.history] == [2, 1]
    assert run.summary["ssim"] == 0.5


# --- the public API ------------------------------------------------------------------------------

READ = """
import json, sys
import wandb

api = wandb.Api()
runs = api.runs("team/study", filters={"sweep": sys.argv[1]}, per_page=200, lazy=False)
listed = [(run.id, run.config, dict(run.summary), run.state) for run in runs]
sweep = api.sweep("team/study/" + sys.argv[1])
run = api.run("team/study/run00007")
print(json.dumps({
    "listed": listed,
    "count": len(runs),
    "parameters": sweep.config["parameters"],
    "expected": sweep.expected_run_count,
    "history": run.history(pandas=False),
    "scan": [row["loss"] for row in run.scan_history()],
    "scan_keys": list(run.scan_history(keys=["loss"])),
    "file": run.file("result.json").download(root="down").read(),
}))
"""


@pytest.mark.parametrize("repeated", [0, 3])
def test_1200_runs_are_read_in_whole_pages(
    backend: WandbBackend, tmp_path: Path, repeated: int
) -> None:
    values = {"width": {"values": list(range(1200))}, "fixed": {"value": "x"}}
    sweep = backend.add_sweep({"method": "grid", "parameters": values}, PROJECT)
    for n in range(1200):
        state = "finished" if n % 100 else "crashed"
        summary = {"ssim": math.nan if n % 10 == 0 else n / 1200, "size": math.inf, "params": 4.0}
        config = {"width": n, "fixed": "x"}
        rows = [{"loss": 0.5}, {"loss": 0.25}]
        files = {"result.json": b"{}"}
        backend.add_run(
            PROJECT,
            sweep=sweep,
            config=config,
            summary=summary,
            state=state,
            history=rows,
            files=files,
        )
    backend.add_run(PROJECT, config={"width": 0})  # not of the sweep
    backend.repeat_across_pages(repeated)

    read = json.loads(python(backend.environment(tmp_path), tmp_path, READ, sweep.id))
    by_id = {name: rest for name, *rest in read["listed"]}
    assert len(by_id) == 1200
    assert (len(read["listed"]) > 1200) == bool(repeated)
    assert read["count"] == 1200
    # The reader's own pages, and none for `api.sweep`, whose runs were not looked at.
    assert backend.count("Runs") == (7 if repeated else 6)
    assert backend.count("Run") == 1
    assert by_id["run00010"] == [
        {"width": 10, "fixed": "x"},
        {"ssim": "NaN", "size": "Infinity", "params": 4},
        "finished",
    ]
    assert by_id["run00100"][2] == "crashed"
    assert (read["parameters"], read["expected"]) == (values, 1200)
    assert [row["loss"] for row in read["history"]] == [0.5, 0.25]
    assert read["scan"] == [0.5, 0.25]
    assert [row["loss"] for row in read["scan_keys"]] == [0.5, 0.25]
    assert read["file"] == "{}"


def test_the_public_api_gets_through_faults_or_says_why(
    backend: WandbBackend, tmp_path: Path
) -> None:
    backend.add_run(PROJECT, config={"width": 1})
    code = """
import wandb
try:
    print([run.id for run in wandb.Api().runs("team/study", lazy=False)])
except Exception as error:
    print("error", type(error).__name__)
"""
    env = {**backend.environment(tmp_path), **QUICK_RETRIES}
    backend.faults.add("Runs", status=429, retry_after=1)
    backend.faults.add("Runs", status=500)
    backend.faults.add("Runs", drop=True)
    assert python(env, tmp_path, code) == "['run00000']\n"
    backend.faults.add("Runs", html=True, times=None)
    assert python(env, tmp_path, code).startswith("error")
    wrong = {**env, "WANDB_API_KEY": "f" * 40}
    assert python(wrong, tmp_path, code).startswith("error")


# --- sweeps and agents ---------------------------------------------------------------------------


def write_sweep(folder: Path, program: str, **parameters: Any) -> None:
    """A grid over `parameters` for a stub program."""
    (folder / "point.py").write_text(program)
    parts = {"program": "point.py", "method": "grid"}
    lists = {name: {"values": values} for name, values in parameters.items()}
    (folder / "sweep.yaml").write_text(json.dumps({**parts, "parameters": lists}))


@contextmanager
def agent_of(env: dict[str, str], folder: Path, sweep: Sweep) -> Iterator[subprocess.Popen[str]]:
    """`wandb agent` in the background, its output in a file; it does not outlive the test."""
    command = ["wandb", "agent", "--forward-signals", sweep.path]
    with (folder / "agent.txt").open("a") as log:
        agent = subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log, text=True)
    try:
        yield agent
    finally:
        if agent.poll() is None:
            agent.terminate()  # it hands the signal on to its run
            try:
                agent.wait(timeout=20)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()


def wait_for(path: Path, seconds: float = 60) -> None:
    """Wait until a file is there."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not appear"
        time.sleep(0.1)


@pytest.mark.slow
def test_two_agents_run_each_point_once(backend: WandbBackend, tmp_path: Path) -> None:
    env = backend.environment(tmp_path)
    write_sweep(tmp_path, POINT, b=["x", "y"], a=[1, 2.5])
    said = call(env, tmp_path, "wandb", "sweep", "--project", PROJECT, "sweep.yaml").stderr
    sweep = backend.sweep()
    assert f"wandb agent {sweep.path}" in said
    with agent_of(env, tmp_path, sweep) as first, agent_of(env, tmp_path, sweep) as other:
        assert [agent.wait(timeout=90) for agent in (first, other)] == [0, 0]

    runs = backend.sweep_runs(sweep)
    points = [(run.config["a"], run.config["b"], run.state) for run in runs]
    failed = (1, "y", "failed")
    assert points == [(1, "x", "finished"), failed, (2.5, "x", "finished"), (2.5, "y", "finished")]
    assert [type(run.config["a"]) for run in runs] == [int, int, float, float]
    assert all(run.completions == 1 for run in runs)
    assert {len(agent.given) for agent in backend.store.agents.values()} == {2}
    assert sweep.state == "FINISHED"


PREEMPTIBLE = """
import signal, sys, time
import wandb

run = wandb.init(resume="allow")
def leave(*_):
    run.mark_preempting()
    run.finish(exit_code=1)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
run.log({"loss": 1.0})
if not run.resumed:
    open("started", "w").close()
    time.sleep(60)
run.finish()
"""


@pytest.mark.slow
def test_a_preempted_point_is_given_again(backend: WandbBackend, tmp_path: Path) -> None:
    env = backend.environment(tmp_path)
    write_sweep(tmp_path, PREEMPTIBLE, a=[1])
    call(env, tmp_path, "wandb", "sweep", "--project", PROJECT, "sweep.yaml")
    sweep = backend.sweep()
    with agent_of(env, tmp_path, sweep) as agent:
        wait_for(tmp_path / "started")
        agent.send_signal(signal.SIGTERM)
        agent.wait(timeout=60)
    run = backend.run()
    assert (run.state, sweep.requeued) == ("preempted", [run.id])

    with agent_of(env, tmp_path, sweep) as agent:
        assert agent.wait(timeout=60) == 0
    assert backend.run() is run
    assert (run.state, sweep.state) == ("finished", "FINISHED")
    assert [row["_step"] for row in run.history] == [0, 1]


@pytest.mark.slow
def test_a_sweep_that_is_cancelled_stops_its_runs(backend: WandbBackend, tmp_path: Path) -> None:
    env = backend.environment(tmp_path)
    write_sweep(tmp_path, PREEMPTIBLE, a=[1, 2])
    call(env, tmp_path, "wandb", "sweep", "--project", PROJECT, "sweep.yaml")
    sweep = backend.sweep()
    with agent_of(env, tmp_path, sweep) as agent:
        wait_for(tmp_path / "started")
        call(env, tmp_path, "wandb", "sweep", "--cancel", sweep.path)
        assert agent.wait(timeout=60) == 0
    assert len(backend.sweep_runs(sweep)) == 1
    assert sweep.state == "CANCELED"
