"""One point, as `wandb agent` starts it: `python -m agent.run`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fno_runner.stop import StopSignals


def main(argv: Sequence[str] | None = None) -> int:
    """Run the point that the arguments name; returns the exit status."""
    with StopSignals() as stop:
        # Takes seconds, in which a signal would cost a sweep the point if nobody heard it.
        from agent.server.point import run_point

        return run_point(sys.argv[1:] if argv is None else argv, stop)


if __name__ == "__main__":
    sys.exit(main())
