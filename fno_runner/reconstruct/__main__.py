"""`python -m fno_runner.reconstruct`: the object of a scan, by a trained network."""

from __future__ import annotations

import sys

from fno_runner.apply.command import main

if __name__ == "__main__":
    sys.exit(main())
