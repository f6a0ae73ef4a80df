"""`python -m fno_runner`: train and score one configuration."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fno_runner.errors import UserError
from fno_runner.stop import StopSignals

DESCRIPTION = """\
Train one Fourier neural operator to reconstruct object patches from diffraction
amplitudes, without labels; stitch, score, and leave a folder with the result.

  python -m fno_runner --architecture fno --width 16 --modes 12 --epochs 2
  python -m fno_runner --scan scan.npz --input-transform sqrt

Exit status: 0 finished; 1 the run failed, diverged or collapsed; 2 unusable input;
3 this machine cannot do it; 128+signal stopped, nothing recorded. A run that was stopped
or killed goes on from its last checkpoint (one every 30 s) when it is started again."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the configuration that the arguments name; returns the exit status.

    Raises:
        SystemExit: a signal stopped it.
    """
    with StopSignals() as stop:
        # Takes seconds, in which a signal would end the process with another status.
        from rich.console import Console

        from fno_runner.cli import parse_config, refuse
        from fno_runner.runner import run
        from fno_runner.terminal import TerminalProgress, log_to_terminal, print_outcome

        stop.release()
        console = Console()
        try:
            config = parse_config(argv, "python -m fno_runner", DESCRIPTION)
            log_to_terminal()
            with TerminalProgress(console) as progress:
                outcome = run(
                    config,
                    on_step=stop.held()(progress.on_step),
                    on_epoch=stop.held()(progress.on_epoch),
                )
        except (UserError, OSError) as error:
            return refuse(error)
    print_outcome(outcome, console)
    return 0 if outcome.result.status == "finished" else 1


if __name__ == "__main__":
    sys.exit(main())
