"""What a Weights & Biases server knows of a sweep: its grid and its runs, read in whole pages."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from agent.study.records import one_line
from agent.study.sweepfile import KEYS, Sweep, parse_sweep
from fno_runner.errors import UserError

if TYPE_CHECKING:  # takes a second, and a local export needs none of it
    import wandb

PAGE = 200
"""How many runs a request asks for."""
ANSWER_S = 120
"""How long one answer may take, the client's own retries and waits included [s]."""
RETRIES = {"x_graphql_retry_max": 4, "x_graphql_retry_wait_max_seconds": 30}
"""How often and how long the client asks a server that is away: for hours, by itself, and a program
that would end waits for it."""

MAX_REASON = 300
"""A longer reason is cut [characters]."""

NAME = r"[A-Za-z0-9_.-]+"
PROJECT_NAME = r"[^\s/\\#?%:](?:[^/\\#?%:\x00-\x1f\x7f]{0,126}[^\s/\\#?%:])?"
"""What a server takes for a project's name; one with a space at an end is not found again."""
PLACE = re.compile(rf"({NAME})/({PROJECT_NAME})(?:/({NAME}))?")

NO_KEY = "no API key, or one that the server refuses: log in (wandb login, or WANDB_API_KEY)"


@dataclass(frozen=True)
class Place:
    """Where runs are on a server: a project, or one sweep of it."""

    entity: str
    project: str
    sweep: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.entity, self.project, self.sweep) if part)


@dataclass(frozen=True)
class ServerRun:
    """A run as the server has it.

    id: the server's own, unique in the project; our `run_id` is in `config`.
    state: pending, running, finished, failed, crashed, killed, preempting or preempted.
    summary: as the wire gives it: an integral float is an int, NaN and infinities are texts.
    created: ISO 8601, UTC.
    """

    id: str
    state: str
    sweep: str | None
    group: str | None
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    created: str


def parse_place(text: str) -> Place:
    """`ENTITY/PROJECT` or `ENTITY/PROJECT/SWEEP_ID`.

    Raises:
        UserError: it is neither.
    """
    match = PLACE.fullmatch(text)
    if match is None:
        raise UserError(f"'{text}': allowed is ENTITY/PROJECT/SWEEP_ID, as `wandb sweep` prints it")
    return Place(*match.groups())


def parse_sweep_place(text: str) -> Place:
    """`ENTITY/PROJECT/SWEEP_ID`, whole.

    Raises:
        UserError: a part is missing.
    """
    parts = text.split("/")
    if len(parts) < 3 and all(re.fullmatch(NAME, part) for part in parts):
        lacks = "entity and the project" if len(parts) == 1 else "entity, the project or the sweep"
        raise UserError(
            f"'{text}' lacks the {lacks}: give ENTITY/PROJECT/SWEEP_ID, as `wandb sweep` prints it"
        )
    return parse_place(text)


class UnknownPlaceError(UserError):
    """The server has no such sweep or project."""


class Server:
    """The public API of the server that `wandb login` or WANDB_BASE_URL names."""

    def __init__(self) -> None:
        """
        Raises:
            UserError: no key, a key that is refused, or a server that does not answer.
        """
        import wandb

        what = "Weights & Biases"
        with in_one_line(what), Console(stderr=True).status(f"asking {what}"):
            limits = {k: v for k, v in RETRIES.items() if f"WANDB_{k.upper()}" not in os.environ}
            # Silent: else it asks for a key on a terminal, and says more than one line.
            wandb.setup(wandb.Settings(silent=True, **limits))
            self._api = wandb.Api(timeout=ANSWER_S)

    def sweep(self, place: Place) -> Sweep:
        """The sweep, checked like a sweep file.

        Raises:
            UserError: there is none, it is another program's, or it has parameters that this
                program does not have.
        """
        with in_one_line(str(place)):
            try:
                config: Mapping[str, Any] = self._api.sweep(str(place)).config
            except Exception as error:
                if "Could not find" not in str(error):
                    raise
                raise UnknownPlaceError(f"{place}: the server knows no such sweep") from None
            started = [config.get("program"), *(config.get("command") or ())]
            program = " ".join(str(part) for part in started if part is not None)
        if not re.search(r"(^|\s)(agent\.run|(\S*/)?agent/run\.py)(\s|$)", program):
            shown = one_line(program)[:80] or "none is named"
            raise UserError(f"{place}: a sweep of another program ({shown})")
        # A server may add keys of its own beside those of the file.
        return parse_sweep({k: v for k, v in config.items() if k in KEYS}, str(place))

    def runs(self, place: Place) -> list[ServerRun]:
        """Every run of a sweep or a project, oldest first, none twice; `PAGE` runs a request.

        The client waits and asks again where the server says 429 or 5xx, as long as Retry-After
        asks for. A terminal shows how far it is, and a warning says where it gave fewer runs than
        it counts.

        Raises:
            UserError: there is no such project, or the server does not answer.
        """
        read: dict[str, ServerRun] = {}
        what = f"reading {place}"
        with (
            in_one_line(str(place)),
            _run_folders_elsewhere(),
            Console(stderr=True).status(what) as status,
        ):
            self._api.flush()  # else a second reading gives the first one's runs
            listed = runs_of(self._api, place, {"sweep": place.sweep} if place.sweep else {})
            try:
                for number, run in enumerate(listed):
                    if number % PAGE == 0:
                        status.update(f"{what}: {len(read)} of {len(listed)} runs")
                    read[run.id] = ServerRun(
                        id=run.id,
                        state=str(run.state or ""),
                        sweep=run.sweep_name,
                        group=run.group,
                        config=dict(run.config),
                        summary=dict(run.summary),
                        created=run.created_at,
                    )
            except ValueError as error:
                if "Could not find project" not in str(error):
                    raise
                raise UnknownPlaceError(f"{place}: the server knows no such project") from None
        if len(read) < len(listed):
            few = f"the server counts {len(listed)} runs and gave {len(read)}; ask again"
            print(f"warning: {place}: {few}", file=sys.stderr)
        return list(read.values())


def runs_of(api: wandb.Api, place: Place, filters: Mapping[str, Any]) -> wandb.apis.public.Runs:
    """A project's runs, oldest first, `PAGE` a request; asked for as they are read.

    A run that begins meanwhile comes last, and moves no other to another page.
    """
    project = f"{place.entity}/{place.project}"
    return api.runs(project, filters=dict(filters), order="+created_at", per_page=PAGE, lazy=False)


@contextmanager
def _run_folders_elsewhere() -> Iterator[None]:
    """The client makes an empty folder for every run it lists: not where others would find it."""
    before = os.environ.get("WANDB_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WANDB_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["WANDB_DIR"]
            if before is not None:
                os.environ["WANDB_DIR"] = before


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Tell what went wrong with the server in one line, and what one can do."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the client lets through whatever it meets in an answer
        said = one_line(str(error))
        if "invalid character '<'" in said or "<html" in said.lower():
            reason = "the server answers with a web page (a proxy's, or a login page?)"
        elif "No API key" in said or "not logged in" in said:
            reason = NO_KEY
        elif any(words in said for words in ("refused", "did not respond", "giving up")):
            reason = f"the server does not answer ({said.rsplit(': ', 1)[-1][:120]})"
        else:
            reason = short(error)
        raise UserError(f"{what}: {reason}") from None


def short(error: object) -> str:
    """What an error says, as one line that is not long; its kind where it says nothing."""
    return one_line(str(error))[:MAX_REASON] or type(error).__name__
