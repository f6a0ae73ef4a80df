"""Become another program, which is told to stop when the process that started it is gone (Linux).

An agent whose `agent.launch` was killed would go on with nobody to stop it, and with a broken pipe
for its output: every run that writes a line would fail. A run whose `agent.local` was killed would
go on beside the next one's run of the same point.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run `python ARGUMENTS…` in this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


if __name__ == "__main__":
    main()
