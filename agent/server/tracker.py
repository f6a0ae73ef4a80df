"""A run mirrored to Weights & Biases: configuration, history, summary, picture, record.

The local record is the truth; this is its mirror, and may be late or missing without loss.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import wandb

from agent.server.client import short
from agent.server.logged_config import CONFIG_HASH, config_hash
from agent.server.run_folders import PICTURE, Address, hold, write_address
from agent.server.stop_request import SWEEP_ID, is_of_a_sweep
from agent.study.records import row
from fno_runner.config import PATHS, RunConfig
from fno_runner.errors import MachineError, UserError
from fno_runner.files import make_folder
from fno_runner.result import RECORD, SETTLED, RunResult

if TYPE_CHECKING:  # torch takes seconds to import, and who only reads a server needs none
    from fno_runner.runner import Outcome
    from fno_runner.train.progress import Epoch

PROJECT = "fno-hyperparam-study"
"""Where runs go unless WANDB_PROJECT, or the sweep, says otherwise."""
START_WAIT_S, FINISH_WAIT_S = 20, 90
"""How long a server that does not answer may hold up a run's start and its end [s]: two minutes in
all, with the seconds that the client adds. WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT override."""

LEAST_FREE_BYTES = 16 * 2**20
"""A disk with less room is none for the files of Weights & Biases."""

WAYS_OUT = "log in (wandb login), or set WANDB_MODE=offline, or WANDB_MODE=disabled"


class Tracker:
    """A run of Weights & Biases, in the mode that the environment says (WANDB_MODE).

    `offline` and `disabled` need neither an account nor a connection.
    """

    def __init__(
        self, config: RunConfig, run_id: str, on_stop: Callable[[], None] = lambda: None
    ) -> None:
        """
        Args:
            on_stop: called, in a thread of the client's, when somebody at the server stops the run.

        Raises:
            MachineError: Weights & Biases is online and cannot be used; says the ways out.
        """
        self._config = config
        self._is_lost = False
        if not os.environ.get("WANDB_MODE"):  # set to nothing: the client would refuse that
            os.environ.pop("WANDB_MODE", None)
        _default_folder(Path(config.output_dir))
        self._run = self._start(config, run_id, on_stop)
        self._hold: int | None = None
        if not self._run.disabled:
            folder = Path(self._run.dir).parent
            write_address(folder, Address(self._run.entity or "", self._run.project or ""))
            # Who sends a run holds it: agent.sync leaves alone what is still on its way.
            self._hold = hold(folder)
        define_metrics(self._run)

    @staticmethod
    def _start(config: RunConfig, run_id: str, on_stop: Callable[[], None]) -> wandb.Run:
        """A run in the environment's mode; offline if the server does not answer."""
        # Named here, so that what a failed start leaves behind is known.
        identifier = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        folders = Path(os.environ["WANDB_DIR"], "wandb")
        before = set(folders.glob(f"run-*-{identifier}"))

        def start(mode: Literal["offline"] | None) -> wandb.Run:
            run = wandb.init(
                id=identifier,
                mode=mode,
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                # A preempted run of a sweep comes back under its own id.
                resume="allow" if SWEEP_ID in os.environ else None,
                group=_group(config),
                config=_logged(config, run_id),
                settings=client_settings(stop_fn=on_stop),
            )
            _label(run, config)
            return run

        try:
            return start(None)
        except (wandb.errors.UsageError, wandb.errors.AuthenticationError, ValueError) as error:
            # A login is this machine's, not the point's, which may be done on another one.
            raise MachineError(f"Weights & Biases: {short(error)}; {WAYS_OUT}") from error
        except wandb.errors.Error as error:
            print(
                f"warning: Weights & Biases does not answer ({short(error)}); this run is logged "
                f"offline; {_how_to_send()} sends it later",
                file=sys.stderr,
            )
        wandb.teardown()
        # Synced, the stub of the failed start would overwrite the run that now follows.
        for stub in set(folders.glob(f"run-*-{identifier}")) - before:
            shutil.rmtree(stub)
        return start("offline")

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            # The point itself did not end: it is this machine, or somebody stopped the run.
            # A preempted run's point is handed out again; a failed one's is not.
            preempted = isinstance(error, SystemExit | KeyboardInterrupt | UserError | OSError)
            try:
                if preempted:
                    self._run.mark_preempting()
                self._finish(1)
            except Exception:
                # The client's own process is gone: a signal to every process of a job ends it, too.
                if preempted:
                    hand_back(self._config)

    def on_epoch(self, epoch: Epoch) -> None:
        """Log one line of the history, with the epoch as its x axis."""
        if not self._is_lost:
            try:
                self._run.log(dict(epoch))
            except Exception as error:  # the client's own process is gone, for want of memory, say
                self._is_lost = True
                _warn(error)

    def outcome(self, outcome: Outcome) -> None:
        """Mirror the finished run: summary, picture, record; a failed point is a failed run."""
        picture, files = outcome.folder / PICTURE, Path(self._run.dir)
        lost: Exception | None = None
        is_kept = True
        if not self._run.disabled:
            # First what agent.sync needs, whatever becomes of the client.
            try:
                shutil.copy2(outcome.folder / RECORD, files / RECORD)
                if picture.exists():
                    shutil.copy2(picture, files.parent / PICTURE)
            except OSError as error:
                lost, is_kept = error, False
        try:
            self._run.summary.update(summary(outcome.result))
            if picture.exists():
                self._run.log({"reconstruction": wandb.Image(str(picture))})
            if not self._run.disabled and lost is None:
                self._run.save(str(files / RECORD), base_path=str(files), policy="now")
        except Exception as error:
            lost = lost or error
        try:
            # Also where not all of the run could be sent: what the client has, it is to keep.
            self._finish(exit_code(outcome.result))
        except Exception as error:
            lost = lost or error
        if lost is not None:
            _warn(lost, is_kept)

    def _finish(self, exit_code: int) -> None:
        try:
            self._run.finish(exit_code=exit_code)
        except (TimeoutError, wandb.errors.Error) as error:
            _warn(error)
        finally:
            if self._hold is not None:
                os.close(self._hold)
                self._hold = None


def hand_back(config: RunConfig) -> None:
    """Give the point back that a sweep handed to this process, which cannot begin it.

    The server hands out again what was begun and preempted, and nothing else: the run is begun just
    for that. Outside a sweep, or with WANDB_MODE offline or disabled, there is nobody to tell.
    """
    if not is_of_a_sweep():
        return
    identifier = os.environ["WANDB_RUN_ID"]
    # A setting that nobody can use may be why the run cannot begin. This process ends after this.
    for variable in ("WANDB_INIT_TIMEOUT", "WANDB_FINISH_TIMEOUT"):
        try:
            _seconds(variable, 1)
        except MachineError:
            del os.environ[variable]
    os.environ["WANDB_MODE"] = "online"  # as the agent is, who was given the point
    with contextlib.suppress(Exception):
        wandb.teardown()  # of an earlier try, which may have lost its process
    try:
        # Not in the study's folder: it may be what is unfit, and nothing here is worth keeping.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            run = wandb.init(
                id=identifier,
                dir=folder,
                group=_group(config),
                resume="allow",
                settings=client_settings(),
            )
            _label(run, config)
            run.mark_preempting()
            run.finish(exit_code=1)
            wandb.teardown()
    except Exception as error:  # a courtesy: why the run cannot begin is what counts
        print(f"warning: the sweep did not get its point back ({short(error)})", file=sys.stderr)


def introduction(config: RunConfig, run_id: str) -> dict[str, Any]:
    """What a run tells the server of itself when it begins."""
    return {
        "group": _group(config),
        "name": _title(config),
        "tags": _tags(config),
        "config": _logged(config, run_id),
    }


def _label(run: wandb.Run, config: RunConfig) -> None:
    """Name and tag a run, unless that was done before: somebody may have changed it since."""
    if not (run.resumed and run.tags):
        run.name, run.tags = _title(config), _tags(config)


def _group(config: RunConfig) -> str:
    return os.environ.get("WANDB_RUN_GROUP", Path(config.output_dir).name)


def _title(config: RunConfig) -> str:
    what = f"{config.architecture}-{config.input_transform}-{config.conditioning}"
    return f"{what}-m{config.modes}-w{config.width}-s{config.seed}"


def _tags(config: RunConfig) -> tuple[str, ...]:
    return config.architecture, config.input_transform, config.conditioning


def _logged(config: RunConfig, run_id: str) -> dict[str, Any]:
    return {"run_id": run_id, **config.model_dump(exclude=set(PATHS))}


def client_settings(**more: Any) -> wandb.Settings:
    """How the client behaves in every run, whoever sends it.

    Raises:
        MachineError: a time limit in the environment is not one.
    """
    settings: dict[str, Any] = {
        "console": "off",  # the run's own log.txt has it
        "silent": True,
        "init_timeout": _seconds("WANDB_INIT_TIMEOUT", START_WAIT_S),
        "finish_timeout": finish_wait(),
        "finish_timeout_raises": True,
        # By itself the client would interrupt the main thread of a run that is stopped.
        "stop_fn": lambda: None,
    }
    return wandb.Settings(**(settings | more))


def finish_wait() -> float:
    """How long the end of a run may take [s].

    Raises:
        MachineError: WANDB_FINISH_TIMEOUT is no time.
    """
    return _seconds("WANDB_FINISH_TIMEOUT", FINISH_WAIT_S)


def define_metrics(run: wandb.Run) -> None:
    """The epoch is the x axis of every curve."""
    run.define_metric("epoch", hidden=True)
    run.define_metric("*", step_metric="epoch")


def exit_code(result: RunResult) -> int:
    """What the server is told: a failed point is a failed run."""
    return 0 if result.status in SETTLED else 1


def summary(result: RunResult) -> dict[str, Any]:
    """The flat keys of a run's summary: what its row has beside the configuration, and its hash.

    A number that is missing is left out: the client drops None and NaN without a word.
    """
    cells: Mapping[str, Any] = {
        **row(result),
        CONFIG_HASH: config_hash(result.run_config, result.run_id),
    }
    return {
        key: value
        for key, value in cells.items()
        if value is not None and (key == "error" or result.config.get(key, ...) != value)
    }


def _default_folder(output_dir: Path) -> None:
    """Weights & Biases' files belong to the study's folder, unless WANDB_DIR says otherwise.

    `wandb agent` sets it to the folder that it is started in where nobody has said anything. In
    place of a folder that cannot be used, the client would take one of the system's for what nobody
    keeps, where no later agent.sync looks.
    """
    given = os.environ.get("WANDB_DIR")
    by_agent = SWEEP_ID in os.environ and given == str(Path.cwd())
    if given and not by_agent:
        try:
            free = shutil.disk_usage(make_folder(Path(given).expanduser())).free
            if free >= LEAST_FREE_BYTES:
                return
            why = f"{free / 2**20:.0f} MiB free"
        except (MachineError, OSError) as error:
            why = str(error)
        print(
            f"warning: WANDB_DIR={given!r}: {why}; Weights & Biases' files go to {output_dir}",
            file=sys.stderr,
        )
    output_dir.mkdir(parents=True, exist_ok=True)
    os.environ["WANDB_DIR"] = str(output_dir.resolve())


def _seconds(variable: str, default: float) -> float:
    text = os.environ.get(variable, str(default))
    try:
        if (seconds := float(text)) > 0:
            return seconds
    except ValueError:
        pass
    raise MachineError(f"{variable}={text!r}: allowed is a number of seconds > 0")


def _warn(error: Exception, is_kept: bool = True) -> None:
    """Tell what went wrong; `is_kept`: what the server lacks is on this disk, for agent.sync."""
    later = f", {_how_to_send()} sends the rest later" if is_kept else ""
    print(
        f"warning: Weights & Biases has not everything ({short(error)}); the local record "
        f"is whole{later}",
        file=sys.stderr,
    )


def _how_to_send() -> str:
    return f"`python -m agent.sync {os.environ['WANDB_DIR']}`"
