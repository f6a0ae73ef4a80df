"""`python -m fno_runner.data`: look at a scan, and find its probe."""

from __future__ import annotations

import sys

from fno_runner.scan.command import main

if __name__ == "__main__":
    sys.exit(main())
