"""Become another program, which is told to stop when the process that started it is gone.

An agent whose `agent.launch` was killed would go on with nobody to stop it, and with a broken pipe
for its output: every run that writes a line would fail. A run whose `agent.local` was killed would
go on beside the next one's run of the same point. The kernel tells it, on Linux.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def command(*arguments: str) -> list[str]:
    """The command line of `python ARGUMENTS…` that stops with the process that calls this."""
    return [sys.executable, "-m", "agent.scheduling.stop_with_parent", str(os.getpid()), *arguments]


def main() -> None:
    """Run `python ARGUMENTS…` in this process; the first argument is the parent's pid."""
    parent, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before it was listened for
        raise SystemExit(128 + signal.SIGTERM)
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main()
