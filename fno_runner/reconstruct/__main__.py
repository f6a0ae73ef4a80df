"""`python -m fno_runner.reconstruct`: the object of a scan, by a trained network or without one."""

from __future__ import annotations

import sys

from fno_runner.apply import command, iterative

if __name__ == "__main__":
    sys.exit((iterative if "--iterative" in sys.argv else command).main())
