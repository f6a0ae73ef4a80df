"""`python -m agent.sync`: what did not arrive is sent once, however often it is started or killed.

The runs here are invented, so that none takes a training; client, processes and signals are real.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest

from agent.server.run_folders import hold, is_held
from tests.wandb_backend import API_KEY, Fault, Run, WandbBackend

EPOCHS = 3

RUNS = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np, psutil, wandb
from PIL import Image
from agent.server.tracker import Tracker
from fno_runner.config import RunConfig
from fno_runner.result import RunResult, write_result
from fno_runner.identity import run_id

study, *seeds = sys.argv[1:]
for seed in seeds:
    config = RunConfig(seed=int(seed.rstrip("!?")), output_dir=study)
    name = run_id(config)
    folder = Path(study, "runs", name)
    tracker = Tracker(config, name)
    history = [{"epoch": n + 1, "train_loss": 1 / (n + 1), "val_loss": None} for n in range(3)]
    for entry in history:
        tracker.on_epoch(entry)
    if seed.endswith("!"):  # stopped before its end
        os.kill(os.getpid(), 9)
    if seed.endswith("?"):  # the client's own process is gone
        [child.kill() for child in psutil.Process().children() if child.name() == "wandb-core"]
    result = RunResult(
        run_id=name, status="finished", config=config.model_dump(), history=history,
        metrics={"ssim": (0.5, 0.75), "frc50": (float("nan"), 0.25)}, metrics_against="truth",
    )
    write_result(result, folder)
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(folder / "recon.png")
    tracker.outcome(SimpleNamespace(result=result, folder=folder))
"""
"""Runs with the seeds given; "!" after one kills it before its end, "?" its client only."""

QUICK = {  # seconds; the client cuts off what is below a whole one
    "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1",
    **{
        f"WANDB_X_{client}_RETRY_WAIT_{bound}_SECONDS": "1"
        for client in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")
        for bound in ("MIN", "MAX")
    },
}


class Box:
    """A machine with one study, and the server it knows."""

    def __init__(self, backend: WandbBackend, home: Path) -> None:
        self.backend, self.study = backend, home / "study"
        self.env = {**backend.environment(home), **QUICK}
        del self.env["WANDB_DIR"]
        self._started: list[subprocess.Popen[str]] = []

    def run(self, *seeds: str, **more: str) -> str:
        """Runs with these seeds; what they say on standard error."""
        command = [sys.executable, "-c", RUNS, str(self.study), *seeds]
        done = subprocess.run(
            command, env={**self.env, **more}, capture_output=True, text=True, check=False
        )
        killed = -signal.SIGKILL if seeds[-1].endswith("!") else 0
        assert done.returncode == killed, done.stderr
        return done.stderr

    def start_sync(self, *options: str, study: str = "", **more: str) -> subprocess.Popen[str]:
        """`agent.sync` in the background."""
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.sync", study or str(self.study), *options],
            env={**self.env, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def sync(
        self,
        *options: str,
        study: str = "",
        status: int = 0,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> list[str]:
        """The lines that `agent.sync` prints, which has to end with that status."""
        process = self.start_sync(*options, study=study, **variables)
        out, err = process.communicate(timeout=100)
        assert process.returncode == status, out + err
        assert API_KEY not in out + err
        return (err if status > 1 else out).splitlines()

    def close(self) -> None:
        """Leave no process behind."""
        for process in self._started:
            with process:
                process.kill()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """A box whose server runs, and of which every test has its own."""
    with WandbBackend() as backend, closing(Box(backend, tmp_path)) as opened:
        yield opened


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of four runs that no server has heard of; the last was stopped before its end."""
    box = Box(WandbBackend(), tmp_path_factory.mktemp("offline"))
    box.run("0", "1", "2", "3!", WANDB_MODE="offline")
    return box.study


def check_whole(box: Box, run: Run) -> None:
    """Everything that RUNS logs has arrived, once."""
    assert (run.state, run.exit_code) == ("finished", 0)
    rows = run.history
    assert [row["epoch"] for row in rows if "train_loss" in row] == [1, 2, 3]
    assert [row["_step"] for row in rows] == [0, 1, 2, 3]
    assert rows[-1]["epoch"] == 3 and "reconstruction" in rows[-1]
    assert run.summary["ssim_phase"] == 0.75 and run.summary["epoch"] == 3
    assert "frc50_amp" not in run.summary  # not a number: null in the record
    local = box.study / "runs" / run.config["run_id"] / "result.json"
    assert run.files["result.json"] == local.read_bytes()
    assert json.loads(local.read_text())["metrics"]["frc50"] == [None, 0.25]
    assert run.files[run.summary["reconstruction"]["path"]].startswith(b"\x89PNG")
    assert (run.group, run.tags) == ("study", ["fno", "sqrt", "projection"])


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_slowed(box: Box, fault: Fault) -> bool:
    """Whether a fault holds up a run of which the rows have arrived."""
    return bool(fault.hits and box.backend.run().history)


def test_what_ran_offline_is_sent_once_by_however_many(box: Box, offline: Path) -> None:
    shutil.copytree(offline, box.study)
    lines = box.sync("--dry-run", status=1)
    assert [line.split()[0] for line in lines[:-1]] == ["stopped", "to", "to", "to"]
    assert box.backend.runs == []

    # A shell that says offline for its runs means the server here all the same. And a virtual
    # environment need not be activated: its `wandb` is then not on the PATH.
    shell = {"WANDB_MODE": "offline", "PATH": os.defpath}
    both = [box.start_sync(**shell) for _ in range(2)]
    said = [process.communicate(timeout=100) for process in both]
    lines = [line for out, _ in said for line in out.splitlines()]
    assert sum(line.startswith("sent     ") for line in lines) == 3, said
    assert len(box.backend.runs) == 3
    for run in box.backend.runs:
        assert run.completions == 1
        check_whole(box, run)

    before = len(box.backend.requests)
    lines = box.sync()
    assert lines[-1] == ("sent 0 runs, 3 were there already, 1 stopped before its end, 0 failed")
    after = [request.operation for request in box.backend.requests[before:]]
    assert set(after) == {"Viewer", "GetDefaultEntity", "Runs", "RunFiles"}
    assert after.count("Runs") == 1


def test_what_a_server_has_in_part_is_completed(box: Box) -> None:
    sweep = box.backend.add_sweep({"method": "grid", "parameters": {"seed": {"value": 0}}}, "grids")
    # As `wandb agent` leaves it when the run's process could not report to the server.
    given = box.backend.add_run("grids", sweep=sweep, config={"seed": 0}, state="crashed")
    box.run(
        "0",
        WANDB_MODE="offline",
        WANDB_SWEEP_ID=sweep.id,
        WANDB_RUN_ID=given.id,
        WANDB_PROJECT="grids",
        WANDB_ENTITY="team",
    )
    box.run("1", "2", "3?")
    part, other, torn = box.backend.runs[1:]
    assert (torn.state, torn.history) == ("running", [])
    # What an interrupted upload leaves: some rows, no end.
    part.state, part.exit_code, part.summary = "crashed", None, {"epoch": 2}
    part.host, part.display_name, part.notes = "elsewhere", "mine", "look at this"
    del part.history_lines[2:]
    part.files.clear()
    # And one that lacks its record only, which is torn on this disk.
    del other.files["result.json"]
    (folder,) = (box.study / "wandb").glob(f"run-*-{other.id}")
    record = folder / "files" / "result.json"
    kept = record.read_text()
    record.write_text(kept[:100])

    refused = box.backend.faults.add("upload", status=403, times=None)
    lines = box.sync(status=1)
    assert refused.hits
    assert lines[0].startswith(f"failed     {folder.name}  Invalid JSON")
    # In the order of their beginnings: of runs of one second any of them is the first.
    assert {line.split()[1] for line in lines[1:4]} == {given.id, part.id, torn.id}
    assert all(line.startswith("failed ") and "lacks result.json" in line for line in lines[1:4])
    assert lines[4].startswith("sent 0 runs, 0 were there already, 0 stopped before their end, 4")
    box.backend.faults.clear()
    record.write_text(kept)
    of_others = {f"WANDB_{word}": "other" for word in ("NAME", "NOTES", "TAGS", "RUN_GROUP")}
    lines = box.sync(variables=of_others)
    assert lines[-1] == "sent 4 runs, 0 were there already, 0 stopped before their end, 0 failed"
    assert box.backend.runs == [given, part, other, torn]
    for run in box.backend.runs:
        check_whole(box, run)
    # The point is still that of the sweep, and of the type that the sweep gave it.
    assert given.sweep_id == sweep.id and given.config["seed"] == 0
    assert isinstance(given.config["seed"], int)
    # The machine and the program are those of the run, not those that completed it.
    assert (part.host, part.program) == ("elsewhere", "-m agent.run")
    # As is what somebody calls it, whatever this shell calls runs that begin.
    assert (part.display_name, part.notes) == ("mine", "look at this")


def test_files_for_which_the_folder_named_is_no_place_are_where_they_are_looked_for(
    box: Box, tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    for seed, place in enumerate(("/proc/nowhere", str(tmp_path / "taken"), "")):
        said = box.run(str(seed), WANDB_MODE="offline", WANDB_DIR=place)
        assert f"warning: WANDB_DIR={place!r}: cannot write to" in said or not place, said
    box.run("3", WANDB_MODE="")  # set to nothing is not set
    box.run("4", WANDB_MODE="offline", WANDB_RUN_ID="run 4.b")
    lines = box.sync(study=str(box.study / "wandb"))
    assert lines[-1].startswith("sent 4 runs, 1 was there already, 0 stopped")


def test_a_run_that_is_taken_up_again_keeps_what_somebody_called_it(box: Box) -> None:
    sweep = box.backend.add_sweep({"method": "grid", "parameters": {"seed": {"value": 0}}}, "grids")
    given = box.backend.add_run("grids", sweep=sweep, config={"seed": 0}, state="pending")
    of_sweep = {"WANDB_SWEEP_ID": sweep.id, "WANDB_RUN_ID": given.id}
    place = {"WANDB_PROJECT": "grids", "WANDB_ENTITY": "team"}
    box.run("0!", **of_sweep, **place)  # before the client had told its name
    assert (given.state, given.display_name, given.tags) == ("running", None, [])
    given.state = "preempted"
    box.run("0", **of_sweep, **place)
    ours = ("fno-sqrt-projection-m12-w32-s0", ["fno", "sqrt", "projection"])
    assert (given.display_name, given.tags) == ours
    given.display_name, given.tags, given.notes = "mine", ["good"], "look at this"
    given.summary["mine"], given.state = 3, "preempted"
    box.run("0", **of_sweep, **place)
    assert (given.state, given.summary["mine"]) == ("finished", 3)
    assert (given.display_name, given.tags, given.notes) == ("mine", ["good"], "look at this")


def test_bad_input_is_one_line_and_changes_nothing(box: Box, offline: Path, tmp_path: Path) -> None:
    shutil.copytree(offline, box.study)
    (tmp_path / "empty").mkdir()
    before = {path: path.lstat().st_mtime_ns for path in box.study.rglob("*")}
    without_key = {"WANDB_API_KEY": "", "HOME": str(tmp_path / "nobody")}
    away = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_X_GRAPHQL_RETRY_MAX": "1"}
    cases = {
        "no such folder": box.start_sync(study=str(tmp_path / "nowhere")),
        "no runs of Weights & Biases in it": box.start_sync(study=str(tmp_path / "empty")),
        "no API key": box.start_sync(**without_key),
        "the server does not answer": box.start_sync(**away),
    }
    for expected, process in cases.items():
        out, err = process.communicate(timeout=100)
        assert (process.returncode, out, err.count("\n")) == (2, "", 1), (expected, out, err)
        assert err.startswith("error: ") and expected in err, err
    box.backend.faults.add("*", html=True, times=None)
    assert "web page" in box.sync(status=2)[0]
    assert {path: path.lstat().st_mtime_ns for path in box.study.rglob("*")} == before
    assert box.backend.runs == []


@pytest.mark.slow
def test_a_server_that_hangs_in_the_middle_holds_it_up_for_a_stated_time(box: Box) -> None:
    box.run("0", WANDB_MODE="offline")
    box.backend.faults.add("upload", delay=600, times=None)
    started = time.monotonic()
    process = box.start_sync(WANDB_FINISH_TIMEOUT="5")
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "not done after 5 s (WANDB_FINISH_TIMEOUT a run)" in out
    assert time.monotonic() - started < 5 + 15
    box.backend.faults.clear()
    assert box.sync()[-1].startswith("sent 1 run,")
    check_whole(box, box.backend.run())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_in_the_middle_it_is_started_again(box: Box, number: signal.Signals) -> None:
    box.run("0", WANDB_MODE="offline")
    (folder,) = (box.study / "wandb").glob("offline-run-*")
    for _ in range(2):  # killed while it sends a run, then while it completes it
        # A file's name is a part of its path, as a run's id is.
        slow = box.backend.faults.add("upload", delay=60, run="result.json")
        process = box.start_sync()
        wait_until(partial(is_slowed, box, slow))
        assert box.sync(status=1)[0].startswith("in use")
        process.send_signal(number)
        assert process.wait(timeout=60) in (128 + number, -number)
        wait_until(lambda: not is_held(folder))
        assert "result.json" not in box.backend.run().files
    assert box.sync()[-1].startswith("sent 1 run,")
    check_whole(box, box.backend.run())


def test_whether_a_run_is_held_is_seen_on_a_read_only_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_held(tmp_path)
    descriptor = hold(tmp_path)
    assert descriptor is not None
    of_system = os.open

    def read_only(path: Path, flags: int, *mode: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system")
        return of_system(path, flags, *mode)

    monkeypatch.setattr(os, "open", read_only)
    assert is_held(tmp_path)
    os.close(descriptor)
    assert not is_held(tmp_path)
