"""A sweep's saved workspace at Weights & Biases: `python -m agent.dashboard`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import wandb

from agent.server.client import Server, in_one_line, parse_sweep_place
from fno_runner.cli import Parser, command
from fno_runner.errors import MachineError

HELP = """\
Make a saved workspace for a sweep in its Weights & Biases project, and print its URL. It shows
parallel coordinates from the swept keys to quality and cost, Pareto plots (with a logarithmic cost
and the running best), loss curves by swept key, the reconstructions, and the table of the sweep's
runs, the best first. The sweep's metric says what is best; without a metric it is ssim_phase.

A sweep has one such workspace, whoever makes it. Call the command again, for example after an
update of this program, to bring it up to date. Its own table and sections are then restored, and
sections that you added stay.

The command needs wandb-workspaces (pip install '.[dashboard]') and a login (wandb login, or
WANDB_API_KEY). WANDB_BASE_URL names a server of your own.

examples:
  python -m agent.dashboard team/fno-hyperparam-study/a1b2c3d4    as `wandb sweep` prints it

exit status: 0 saved · 2 bad input, or the server refuses · 3 wandb-workspaces is not installed
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Make or update a sweep's workspace; the exit status."""
    args = _parser().parse_args(argv)
    place = parse_sweep_place(args.sweep)
    try:
        from agent.server.workspace import save_workspace
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "wandb_workspaces":
            raise
        lacking = "wandb-workspaces is not installed: pip install '.[dashboard]'"
        raise MachineError(lacking) from None
    # Else the client announces the URL too.
    wandb.setup(wandb.Settings(show_info=False))
    sweep = Server().sweep(place)
    with in_one_line(str(place)):
        print(f"workspace  {save_workspace(place, sweep)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m agent.dashboard", HELP)
    parser.add_argument(
        "sweep", metavar="ENTITY/PROJECT/SWEEP_ID", help="the sweep, as `wandb sweep` prints it"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
