"""The database that drivers share which share no disk: its URL, and what it says when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from fno_runner.errors import MachineError, UserError

FAILURES = (sqlalchemy.exc.SQLAlchemyError, StorageInternalError)
"""What a database raises that does not answer, or not as it should."""


def check_storage(url: str) -> sqlalchemy.URL:
    """A storage's URL, with the driver that is installed for it.

    Raises:
        UserError: one line that says what is allowed; it never shows a password.
    """
    try:
        parsed = sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        # The URL itself stays out of the line: it may hold a password.
        raise UserError(
            "--storage: not a URL; allowed is postgresql://USER@HOST/DATABASE"
        ) from None
    kind = parsed.drivername.split("+")[0]
    if kind == "sqlite":
        raise UserError(
            "--storage: SQLite hands points out twice when several workers ask at once; leave "
            "--storage out (a journal in the study's folder), or use postgresql://USER@HOST/DATABASE"
        )
    if kind not in ("postgresql", "postgres"):
        raise UserError(
            f"--storage: '{kind}' is not known; allowed is postgresql://USER@HOST/DATABASE"
        )
    return parsed.set(drivername="postgresql+psycopg")


def open_database(url: sqlalchemy.URL) -> RDBStorage:
    """optuna's storage in a database; `answering` tells what it may raise."""
    return RDBStorage(
        url.render_as_string(hide_password=False),
        # A connection that died while a point was running is replaced, not used.
        engine_kwargs={"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}},
    )


@contextmanager
def answering(url: sqlalchemy.URL) -> Iterator[None]:
    """Tell in one line, without a password, why a database cannot be opened.

    Raises:
        UserError: its driver is not installed.
        MachineError: it does not answer.
    """
    try:
        yield
    except ImportError:
        raise UserError(
            "--storage postgresql:// needs psycopg: pip install '.[postgresql]'"
        ) from None
    except FAILURES as error:
        shown = url.set(drivername="postgresql").render_as_string(hide_password=True)
        raise MachineError(f"{shown}: no answer: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    """What a database said; the client's own words, with the statement, are lines more."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
