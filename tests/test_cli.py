"""How a command ends where nobody reads what it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
