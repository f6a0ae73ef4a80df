"""Ctrl-C while a command is still importing what it needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.commands import python_m

# Python runs a file of this name first: here, it sends the signal when a certain import begins.
SITE = """
import os, signal, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "rich.console":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize("program", ["agent.local", "agent.launch"])
def test_ctrl_c_during_the_imports_ends_without_a_traceback(tmp_path: Path, program: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = python_m(program, "nowhere", env={**os.environ, "PYTHONPATH": path})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
