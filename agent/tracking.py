"""A run mirrored to Weights & Biases: configuration, history, summary, picture, record.

The local record is the truth; this is its mirror, and may be late or missing without loss.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import wandb

from agent.records import row
from fno_runner.config import PATHS, RunConfig
from fno_runner.errors import UserError
from fno_runner.result import RECORD, RunResult
from fno_runner.runner import Outcome
from fno_runner.training import Epoch

PROJECT = "fno-hyperparam-study"
"""Where runs go unless WANDB_PROJECT, or the sweep, says otherwise."""
SWEEP_ID = "WANDB_SWEEP_ID"
"""Set by `wandb agent` for the runs that it starts."""
START_WAIT_S, FINISH_WAIT_S = 30, 90
"""How long a server that does not answer may hold up a run's start and its end [s]: two minutes in
all. WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT override."""

WAYS_OUT = "log in (wandb login), or set WANDB_MODE=offline, or WANDB_MODE=disabled"


class Tracker:
    """A run of Weights & Biases, in the mode that the environment says (WANDB_MODE).

    `offline` and `disabled` need neither an account nor a network.
    """

    def __init__(self, config: RunConfig, run_id: str) -> None:
        """
        Raises:
            UserError: Weights & Biases is online and cannot be used; says the ways out.
        """
        _default_folder(Path(config.output_dir))
        self._run = self._start(config, run_id)
        self._run.define_metric("epoch", hidden=True)
        self._run.define_metric("*", step_metric="epoch")

    @staticmethod
    def _start(config: RunConfig, run_id: str) -> wandb.Run:
        """A run in the environment's mode; offline if the server does not answer."""
        # Named here, so that what a failed start leaves behind is known.
        identifier = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)

        def start(mode: Literal["offline"] | None) -> wandb.Run:
            return wandb.init(
                id=identifier,
                mode=mode,
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                group=os.environ.get("WANDB_RUN_GROUP", Path(config.output_dir).name),
                name=f"{config.architecture}-{config.input_transform}-{config.conditioning}"
                f"-m{config.modes}-w{config.width}-s{config.seed}",
                tags=[config.architecture, config.input_transform, config.conditioning],
                # A preempted run of a sweep comes back under its own id.
                resume="allow" if SWEEP_ID in os.environ else None,
                config={"run_id": run_id, **config.model_dump(exclude=set(PATHS))},
                settings=wandb.Settings(
                    console="off",  # the run's own log.txt has it
                    silent=True,
                    init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", START_WAIT_S)),
                    finish_timeout=float(os.environ.get("WANDB_FINISH_TIMEOUT", FINISH_WAIT_S)),
                    finish_timeout_raises=True,
                ),
            )

        try:
            return start(None)
        except (wandb.errors.UsageError, wandb.errors.AuthenticationError, ValueError) as error:
            raise UserError(f"Weights & Biases: {_line(error)}; {WAYS_OUT}") from error
        except wandb.errors.Error as error:
            print(
                f"warning: Weights & Biases does not answer ({_line(error)}); this run is logged "
                f"offline, `wandb sync` sends it later",
                file=sys.stderr,
            )
        wandb.teardown()
        # Synced, the stub of the failed start would overwrite the run that now follows.
        for stub in Path(os.environ["WANDB_DIR"], "wandb").glob(f"run-*-{identifier}"):
            shutil.rmtree(stub)
        return start("offline")

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            # The point itself did not end: it is this machine, or somebody stopped the run.
            # A preempted run's point is handed out again; a failed one's is not.
            if isinstance(error, SystemExit | KeyboardInterrupt):
                self._run.mark_preempting()
            self._finish(1)

    def on_epoch(self, epoch: Epoch) -> None:
        """Log one line of the history, with the epoch as its x axis."""
        self._run.log(dict(epoch))

    def outcome(self, outcome: Outcome) -> None:
        """Mirror the finished run: summary, picture, record; a failed point is a failed run."""
        self._run.summary.update(summary(outcome.result))
        picture = outcome.folder / "recon.png"
        if picture.exists():
            self._run.log({"reconstruction": wandb.Image(str(picture))})
        self._run.save(
            str((outcome.folder / RECORD).resolve()),
            base_path=str(outcome.folder.resolve()),
            policy="now",
        )
        self._finish(0 if outcome.result.status == "finished" else 1)

    def _finish(self, exit_code: int) -> None:
        try:
            self._run.finish(exit_code=exit_code)
        except (TimeoutError, wandb.errors.Error) as error:
            print(
                f"warning: Weights & Biases has not everything ({_line(error)}); the local record "
                f"is whole, `wandb sync` sends the rest from {Path(self._run.dir).parent}",
                file=sys.stderr,
            )


def summary(result: RunResult) -> dict[str, Any]:
    """The flat keys of a run's summary: what its row has beside the configuration.

    A number that is missing is left out: the client drops None and NaN without a word.
    """
    cells: Mapping[str, Any] = row(result)
    return {
        key: value
        for key, value in cells.items()
        if value is not None and (key == "error" or key not in result.config)
    }


def _default_folder(output_dir: Path) -> None:
    """Offline runs belong to the study's folder, unless WANDB_DIR says otherwise."""
    if "WANDB_DIR" not in os.environ:
        output_dir.mkdir(parents=True, exist_ok=True)
        os.environ["WANDB_DIR"] = str(output_dir.resolve())


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
