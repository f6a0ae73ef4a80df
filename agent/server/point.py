"""One point of a study, run and mirrored; given back to its sweep where it cannot be run here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from agent.scheduling.child import record_failure
from agent.server.slot_report import breaks_the_card, tell_recorded, tell_unfit
from agent.server.stop_request import SWEEP_ID, be_ready_to_ask, is_from_the_server
from agent.server.tracker import Tracker, hand_back
from agent.study.folder import server_study
from fno_runner.cli import in_a_line, parse_config, refuse
from fno_runner.config import PATHS, RunConfig
from fno_runner.errors import GPU_FAILED, MachineError, UserError
from fno_runner.identity import run_id
from fno_runner.result import ErrorInfo, run_folder
from fno_runner.runner import Outcome, preflight, run
from fno_runner.stop import StopSignals
from fno_runner.terminal import TerminalProgress, log_to_terminal, print_outcome
from fno_runner.train.progress import Epoch

DATA_PATHS = "FNO_DATA_PATHS"
"""The folders, besides the working one, whose files a server's sweep may name."""

DESCRIPTION = """\
Run one point of a study and log it to Weights & Biases. This is the `command` of a sweep.
It takes the options of `python -m fno_runner`. WANDB_MODE=offline or disabled needs no account.
The local record is written in every mode, and before anything is sent.

Exit status: 0 the point is recorded, also if it failed (the sweep goes on), or if it was stopped
at the server, which ends it early with what it has reached; 2 unusable input; 3 this machine
cannot do it; 128+signal stopped, nothing recorded. If data, machine or a signal kept a point from
being recorded, the sweep gets it back."""


def run_point(arguments: Sequence[str], stop: StopSignals) -> int:
    """Run the point that the arguments name; returns the exit status.

    Args:
        stop: held; it is released where a signal finds the point able to be given back.

    Raises:
        SystemExit: a signal stopped it.
    """
    console = Console()
    be_ready_to_ask()
    stop.means_early_end = is_from_the_server
    try:
        config = _of_its_study(parse_config(arguments, "python -m agent.run", DESCRIPTION))
    except UserError as error:
        # Of no machine's making: given back, such a point would go round for ever.
        return refuse(error)
    log_to_terminal()
    try:
        outcome = _run(config, console, stop)
    except (UserError, OSError) as error:
        tell_unfit(in_a_line(error))
        return refuse(error)
    tell_recorded()
    print_outcome(outcome, console)
    return 0


def _run(config: RunConfig, console: Console, stop: StopSignals) -> Outcome:
    try:
        stop.release()
        # What this machine or this input cannot do is found out before the point is spent.
        dataset = preflight(config)
    except (UserError, OSError, SystemExit):
        stop.hold()
        hand_back(config)
        raise
    stop.hold()
    config = config.of_size(dataset.test.size)
    name = run_id(config)
    try:
        tracker = Tracker(config, name, stop.end_early)
    except (UserError, OSError):
        hand_back(config)
        raise
    with tracker, TerminalProgress(console) as progress:
        stop.release()

        @stop.held()
        def on_epoch(epoch: Epoch) -> None:
            progress.on_epoch(epoch)
            tracker.on_epoch(epoch)

        try:
            outcome = run(
                config,
                dataset,
                on_step=stop.held()(progress.on_step),
                on_epoch=on_epoch,
                stop_asked=stop.ends_early,
            )
        except MachineError as error:
            if not (str(error).startswith(GPU_FAILED) and breaks_the_card(name)):
                raise
            # Given back, it would stop one slot after the other.
            result = record_failure(config, name, ErrorInfo.of(error))
            outcome = Outcome(result, run_folder(Path(config.output_dir), name))
        finally:
            # Mirroring a point that is done takes no longer than giving it back.
            stop.hold()
        tracker.outcome(outcome)
    return outcome


def _of_its_study(config: RunConfig) -> RunConfig:
    """The runs of a server's sweep are one study, whichever agent brings them.

    Raises:
        UserError: the sweep names a place that is not its to choose.
    """
    sweep = os.environ.get(SWEEP_ID)
    if not sweep:
        return config
    study = server_study(sweep)
    if "output_dir" in config.model_fields_set and not _is_within(config.output_dir, [study]):
        raise UserError(f"output_dir={config.output_dir!r}: a server's sweep writes to {study}")
    named = os.environ.get(DATA_PATHS, "").split(os.pathsep)
    allowed = [Path(), *(Path(folder) for folder in named if folder)]
    for key in (key for key in PATHS if key != "output_dir"):
        place = getattr(config, key)
        if place is not None and not _is_within(place, allowed):
            raise UserError(
                f"{key}={place!r}: a server's sweep names files below the folder that its agent "
                f"was started in, or below those that {DATA_PATHS} names"
            )
    return config.model_copy(update={"output_dir": str(study)})


def _is_within(place: str, folders: Sequence[Path]) -> bool:
    """Whether a path lies in one of the folders; a link there is this machine's own choice."""
    path = Path(os.path.normpath(Path(place).absolute()))
    return any(path.is_relative_to(folder.absolute()) for folder in folders)
