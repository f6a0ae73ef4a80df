"""How a command ends where nobody reads what it prints, or a variable of the shell is not set."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import compare, export, local

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
from fno_runner.cli import command
@command
def main():
    for line in range(100_000):
        print(line)
    return 0
raise SystemExit(main())
"""
CUT_OFF = """
import atexit, os, sys, threading
from agent import export, sync
atexit.register(threading.Event().wait)  # as of a library that was cut off with its lock taken
def cut_off(*_):
    print("begun")
    os.kill(os.getpid(), int(sys.argv[1]))
sync.sync = export._export = cut_off
raise SystemExit(export.main([]) if sys.argv[2] == "export" else sync.main(["."]))
"""


@pytest.mark.parametrize(
    ("module", "number"),
    [("export", signal.SIGINT), ("sync", signal.SIGINT), ("sync", signal.SIGTERM)],
)
def test_a_command_that_is_cut_off_waits_for_nobody(module: str, number: signal.Signals) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CUT_OFF, str(int(number)), module], cwd=ROOT,
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "begun\n", "")


def test_output_that_nobody_reads_to_its_end_is_no_error() -> None:
    """As in `… | head -1`: the shell's own programs end by SIGPIPE, without a word."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


def test_a_command_may_have_no_output_at_all() -> None:
    command = f'exec "{sys.executable}" -c "$0" >&-'
    done = subprocess.run(
        ["sh", "-c", command, SCRIPT], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_another_pipe_that_breaks_is_one() -> None:
    script = SCRIPT.replace("print(line)", "raise BrokenPipeError(32, 'Broken pipe', 'socket')")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "error: Broken pipe: socket\n"


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (local.main, [""]),
        (local.main, ["sweep.yaml", "--study", ""]),
        (export.main, [""]),
        (export.main, ["study", "--output-dir="]),
        (compare.main, ["study", ""]),
    ],
)
def test_an_empty_text_is_not_the_folder_one_is_in(
    command: Callable[[list[str]], int],
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As where a variable of the shell that names it is not set."""
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert command(options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "''" in error or "empty" in error
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
