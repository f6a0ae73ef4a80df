"""One point, as `wandb agent` starts it: `python -m agent.run`."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from rich.console import Console

from agent.study import STUDIES
from agent.tracking import SWEEP_ID, Tracker
from fno_runner.commandline import (
    TerminalProgress,
    log_to_terminal,
    parse_config,
    print_outcome,
)
from fno_runner.errors import UserError
from fno_runner.result import run_id
from fno_runner.runner import preflight, run
from fno_runner.training import Epoch

DESCRIPTION = """\
Run one point of a study and log it to Weights & Biases, as a sweep's `command`.
Takes the options of `python -m fno_runner`. WANDB_MODE=offline or disabled needs
no account; the local record is written in every mode, and first.

Exit status: 0 the point is recorded, even if it failed (the sweep goes on);
2 unusable input; 3 this machine cannot do it; 128+signal stopped, nothing recorded."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the point that the arguments name; returns the exit status."""
    for number in SIGNALS:
        signal.signal(number, _stop)
    console = Console()
    try:
        arguments = sys.argv[1:] if argv is None else argv
        config = parse_config(arguments, "python -m agent.run", DESCRIPTION)
        log_to_terminal()
        if "output_dir" not in config.model_fields_set and (sweep := os.environ.get(SWEEP_ID)):
            # The runs of a server's sweep are one study, whichever agent brings them.
            name = re.sub(r"[^A-Za-z0-9_-]", "_", sweep)
            config = config.model_copy(update={"output_dir": str(STUDIES / name)})
        # What this machine or this input cannot do is found out before the point is spent.
        identifier = run_id(config)
        dataset = preflight(config)
        with Tracker(config, identifier) as tracker, TerminalProgress(console) as progress:

            def on_epoch(epoch: Epoch) -> None:
                progress.on_epoch(epoch)
                tracker.on_epoch(epoch)

            outcome = run(config, dataset, on_step=progress.on_step, on_epoch=on_epoch)
            tracker.outcome(outcome)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    print_outcome(outcome, console)
    return 0


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
