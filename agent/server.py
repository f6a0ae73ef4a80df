"""What a Weights & Biases server knows of a sweep: its grid and its runs, read in whole pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import wandb
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from agent.records import one_line
from agent.sweepfile import KEYS, Sweep, parse_sweep
from agent.tracking import WAYS_OUT
from fno_runner.errors import UserError

PAGE = 200
"""Runs a request."""
ANSWER_S = 60
"""How long one answer may take, the client's own retries included [s]."""

NAME = r"[A-Za-z0-9_.-]+"
PLACE = re.compile(rf"({NAME})/({NAME}(?: {NAME})*)(?:/({NAME}))?")

OnPage = Callable[[int, int], None]
"""Called with the number of runs read so far and the number there is."""


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
    url: str


def parse_place(text: str) -> Place:
    """`ENTITY/PROJECT` or `ENTITY/PROJECT/SWEEP_ID`.

    Raises:
        UserError: it is neither.
    """
    found = PLACE.fullmatch(text)
    if found is None:
        raise UserError(f"'{text}': allowed is ENTITY/PROJECT/SWEEP_ID, as `wandb sweep` prints it")
    return Place(*found.groups())


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


class Server:
    """The public API of the server that `wandb login` or WANDB_BASE_URL names."""

    def __init__(self) -> None:
        """
        Raises:
            UserError: no key, a key that is refused, or a server that does not answer.
        """
        with in_one_line("Weights & Biases"):
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
            except (ValueError, wandb.errors.CommError) as error:
                if "Could not find" not in str(error):
                    raise
                raise UserError(f"{place}: the server knows no such sweep") from None
        started = [str(part) for part in (config.get("program"), *config.get("command", ()))]
        if not any(re.fullmatch(r"agent\.run|(.*/)?agent/run\.py", part) for part in started):
            raise UserError(f"{place}: a sweep of another program ({one_line(started[0])})")
        # A server may add keys of its own beside those of the file.
        return parse_sweep({k: v for k, v in config.items() if k in KEYS}, str(place))

    def runs(self, place: Place, on_page: OnPage = lambda done, total: None) -> list[ServerRun]:
        """Every run of a sweep or a project, oldest first, none twice; `PAGE` runs a request.

        The client waits and asks again where the server says 429 or 5xx, as long as Retry-After
        asks for.

        Raises:
            UserError: there is no such project, or the server does not answer.
        """
        read: dict[str, ServerRun] = {}
        with in_one_line(str(place)):
            found = self._api.runs(
                f"{place.entity}/{place.project}",
                filters={"sweep": place.sweep} if place.sweep else {},
                # A run that begins meanwhile comes last, and moves no other to another page.
                order="+created_at",
                per_page=PAGE,
                lazy=False,
            )
            try:
                for number, run in enumerate(found, start=1):
                    read[run.id] = ServerRun(
                        id=run.id,
                        state=run.state,
                        sweep=run.sweep_name,
                        group=run.group,
                        config=dict(run.config),
                        summary=dict(run.summary),
                        created=run.created_at,
                        url=run.url,
                    )
                    if number % PAGE == 0 or len(read) == len(found):
                        on_page(len(read), len(found))
            except ValueError as error:
                if "Could not find project" not in str(error):
                    raise
                raise UserError(f"{place}: the server knows no such project") from None
        return list(read.values())


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Tell what went wrong with the server in one line, and what one can do."""
    try:
        yield
    except (
        wandb.errors.Error,
        WandbApiFailedError,  # of the client's core: no kind of the others
        ValueError,
        TimeoutError,
        ConnectionError,
    ) as error:
        said = one_line(str(error))
        if "invalid character '<'" in said or "<html" in said.lower():
            reason = "the server answers with a web page (a proxy's, or a login page?)"
        elif "No API key" in said or "not logged in" in said:
            reason = f"no API key, or one that the server refuses; {WAYS_OUT}"
        elif "refused" in said or "did not respond" in said or "giving up" in said:
            reason = f"the server does not answer ({said[-120:]})"
        else:
            reason = said[:300]
        raise UserError(f"{what}: {reason}") from None
