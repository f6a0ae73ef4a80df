"""This project's commands, as a user starts them: in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def python_m(
    module: str, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m module …`, until it ends; its output is text."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=env, cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


PROGRAM = f"""#!/bin/sh
''''exec "{sys.executable}" "$0" "$@" # '''
"""
"""The beginning of a script that this Python runs: an interpreter's path with a space in it cannot
stand in a script's first line. The second line is the shell's, and a text to Python."""
