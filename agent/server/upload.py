"""Two ways to send a run that is on this disk: whole, or what a server lacks of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from agent.server.client import Place
from agent.server.run_folders import LocalRun
from agent.server.tracker import (
    client_settings,
    define_metrics,
    exit_code,
    finish_wait,
    introduction,
    summary,
)
from agent.study.records import one_line
from fno_runner.result import RECORD

PATIENCE = {
    f"WANDB_X_{client}_{limit}": value
    for client in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")
    for limit, value in (("RETRY_MAX", "3"), ("RETRY_WAIT_MAX_SECONDS", "10"))
}
"""`wandb sync` left to itself asks a server that is away for days."""


def send(place: Place, runs: Sequence[LocalRun], held: Iterable[int]) -> None:
    """Send runs of which the server has nothing, with `wandb sync`.

    Whether they arrived, only the server can say.

    Args:
        held: locks of the runs' folders, which stay locked as long as `wandb sync` lives.

    Raises:
        TimeoutError: it took longer than WANDB_FINISH_TIMEOUT for each of the runs.
        wandb.errors.Error: `wandb sync` could not work at all.
    """
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", "--include-synced"]
    command += ["--entity", place.entity, "--project", place.project]
    limit = finish_wait() * len(runs)
    try:
        done = subprocess.run(
            [*command, *(str(run.folder.resolve()) for run in runs)],
            env={**PATIENCE, **os.environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            pass_fds=tuple(held),
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"not done after {limit:g} s (WANDB_FINISH_TIMEOUT a run)") from None
    if done.returncode:
        raise wandb.errors.Error(f"wandb sync: {one_line(done.stderr)[-300:]}")


def complete(place: Place, run: LocalRun, begun: bool, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add to a run what the server lacks of it, and end it.

    Args:
        begun: the server has a part of it.
        rows: the lines of its history that the server has.

    Raises:
        wandb.errors.Error: the server stopped answering.
        TimeoutError: it took longer than WANDB_FINISH_TIMEOUT.
    """
    epochs = {row["epoch"] for row in rows if "epoch" in row}
    live = wandb.init(
        id=run.id,
        entity=place.entity,
        project=place.project,
        resume="allow",
        mode="online",
        # This machine and this program are not those of the run.
        settings=client_settings(
            program="-m agent.run",
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            disable_git=True,
            disable_code=True,
        ),
        **({} if begun else introduction(run.result.run_config, run.result.run_id)),
    )
    define_metrics(live)
    for entry in run.result.history:
        if entry["epoch"] not in epochs:
            live.log(dict(entry))
    live.summary.update(summary(run.result))
    if run.picture is not None:
        _complete_picture(live, run, run.picture, rows)
    live.save(str(run.files / RECORD), base_path=str(run.files), policy="now")
    live.finish(exit_code=exit_code(run.result))


def _complete_picture(
    live: wandb.Run, run: LocalRun, picture: Path, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Log the picture; or send its file, under the name that the server knows it by."""
    shown = next((row["reconstruction"] for row in rows if "reconstruction" in row), None)
    if shown is None:
        # With no epoch logged before, the client would set the x axis to 0.
        last = {"epoch": run.result.history[-1]["epoch"]} if run.result.history else {}
        live.log({**last, "reconstruction": wandb.Image(str(picture))})
    else:
        copy = Path(live.dir, shown["path"])
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(picture, copy)
        live.save(str(copy), base_path=live.dir, policy="now")
