"""A run that cannot begin gives its point back to the sweep that it is of."""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.scheduling.slots import MAX_BREAKS
from agent.server.slot_report import SLOT_REPORT, read_report
from agent.study.folder import server_study
from fno_runner.config import RunConfig
from tests.test_runner import arguments
from tests.wandb_backend import WandbBackend


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_what_cannot_begin_goes_back_to_its_sweep(
    tmp_path: Path, tiny_npz: tuple[Path, Path], data_dir: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "outputs").touch()
    data = (f"--train_npz={tiny_npz[0]}", f"--test_npz={tiny_npz[1]}", f"--data_dir={data_dir}")
    options = {
        "no disk": ("--device=cpu",),
        "bad option": ("--blocks=99",),
        "bad limit": ("--device=cpu", *data),
        "stopped": ("--width=3",),
    }
    with WandbBackend() as backend:
        parameters = {"width": {"values": [3]}}
        sweep = backend.add_sweep({"method": "grid", "parameters": parameters}, "study")
        # As the server has a point that it has just handed to an agent.
        runs = {n: backend.add_run("study", sweep=sweep, state="pending") for n in options}
        env = {**backend.environment(tmp_path), "WANDB_SWEEP_ID": sweep.id}
        env["WANDB_PROJECT"] = "study"
        started = {
            name: subprocess.Popen(
                [sys.executable, "-m", "agent.run", *given],
                env={
                    **env, "WANDB_RUN_ID": runs[name].id, SLOT_REPORT: str(tmp_path / name),
                    **({"WANDB_FINISH_TIMEOUT": "soon"} if name == "bad limit" else {}),
                },
                cwd=tmp_path / "full" if name == "no disk" else tmp_path,
                stderr=subprocess.PIPE, text=True,
            )
            for name, given in options.items()
        }  # fmt: skip
        # In the seconds of its imports, a run dies of a signal that it does not hear.
        deadline = time.monotonic() + 30
        while not hears(started["stopped"].pid, signal.SIGTERM):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        started["stopped"].terminate()
        errors = {name: process.communicate(timeout=90)[1] for name, process in started.items()}

    ends = {name: (process.returncode, runs[name].state) for name, process in started.items()}
    assert ends == {
        "no disk": (3, "preempted"),
        "bad option": (2, "pending"),  # the sweep's own fault: it would go round for ever
        "bad limit": (3, "preempted"),
        "stopped": (143, "preempted"),
    }
    given_back = ("no disk", "bad limit", "stopped")
    assert sorted(sweep.requeued) == sorted(runs[name].id for name in given_back)
    assert {name: read_report(tmp_path / name).unfit for name in options} == {
        "no disk": (f"cannot write to {server_study(sweep.id)}: Not a directory",),
        "bad option": (),
        "bad limit": ("WANDB_FINISH_TIMEOUT='soon': allowed is a number of seconds > 0",),
        "stopped": (),
    }
    for name in ("no disk", "bad option", "bad limit"):
        (line,) = own_lines(errors[name])
        assert line.startswith("error: ")
    assert not list(tmp_path.rglob("run-*"))  # nothing that a later sync could send


def hears(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = re.search(r"^SigCgt:\t(\w+)$", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


def own_lines(text: str) -> list[str]:
    """What was said beside the client's word of where it found its key."""
    return [line for line in text.splitlines() if not line.startswith("wandb: [wandb.login()]")]


@pytest.mark.slow
def test_without_a_server_it_says_so_and_ends(tmp_path: Path) -> None:
    with WandbBackend() as backend:
        env = backend.environment(tmp_path)
    known = {"WANDB_SWEEP_ID": "s", "WANDB_RUN_ID": "r", "WANDB_INIT_TIMEOUT": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "agent.run", "--scan=missing.npz"],
        env={**env, **known}, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    warning, error = own_lines(done.stderr)
    assert warning.startswith("warning: the sweep did not get its point back")
    assert error == "error: missing.npz: no such file"
    assert not list(tmp_path.rglob("run-*"))


@pytest.mark.parametrize("module", ["agent.run", "fno_runner.__main__"])
def test_an_error_of_the_operating_system_is_this_machines(
    module: str,
    tiny_config: RunConfig,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "data.npz")

    monkeypatch.setattr("fno_runner.runner.load_dataset", broken)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv(SLOT_REPORT, str(tmp_path / "report"))
    assert importlib.import_module(module).main(arguments(tiny_config)) == 3
    line = "Input/output error: data.npz"
    assert capsys.readouterr().err == f"error: {line}\n"
    if module == "agent.run":
        assert read_report(tmp_path / "report").unfit == (line,)


def test_a_point_that_breaks_the_card_fails_where_others_are_recorded(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    report, runs = tmp_path / "report", Path(tiny_config.output_dir) / "runs"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv(SLOT_REPORT, str(report))
    main = importlib.import_module("agent.run").main
    words = arguments(tiny_config)
    monkeypatch.setattr("fno_runner.runner.machine_failure", lambda *_: "the GPU failed: launch")
    monkeypatch.setattr("fno_runner.runner.train", broken)
    assert [main(words) for _ in range(MAX_BREAKS)] == [3] * MAX_BREAKS
    assert read_report(report).unfit == ("the GPU failed: launch",) * MAX_BREAKS
    assert not list(runs.glob("*/result.json"))
    with report.open("a") as stream:
        stream.write("recorded\n")  # another point, in the same slot
    assert main(words) == 0
    (record,) = runs.glob("*/result.json")
    content = json.loads(record.read_bytes())
    assert (content["status"], content["error"]["message"]) == ("failed", "the GPU failed: launch")
    assert (read_report(report).recorded, read_report(report).unfit) == (2, ())
    # A second point is not to blame before another was recorded again: the card may have broken.
    other = [*words, "--seed=77"]
    assert [main(other) for _ in range(MAX_BREAKS)] == [3] * MAX_BREAKS
    assert len(read_report(report).unfit) == MAX_BREAKS
    assert list(runs.glob("*/result.json")) == [record]
