"""Command lines whose help keeps its lines, and whose complaints are one line."""

from __future__ import annotations

import argparse
import functools
import math
import signal
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec

from fno_runner.errors import MachineError, UserError

P = ParamSpec("P")


def command(main: Callable[P, int]) -> Callable[P, int]:
    """A program's `main` that ends in one line and an exit status, whatever a user can mend.

    An error of the operating system, such as of a disk that is full, gives MachineError's status;
    Ctrl-C gives 130. A mistake of the program's own keeps its traceback.
    """

    @functools.wraps(main)
    def told(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            line, status = str(error), error.exit_status
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            line, status = f"{error.strerror or error}{where}", MachineError.exit_status
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        print(f"error: {line}", file=sys.stderr)
        return status

    return told


class Parser(argparse.ArgumentParser):
    """Argparse that keeps the line breaks of its help and completes no half-written option."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """
        Raises:
            UserError: always, in place of a usage message and exit.
        """
        raise UserError(f"{message} (--help tells more)")


def count_of(most: int | float = math.inf) -> Callable[[str], int]:
    """The type of an option that is a number of things: an integer from 1 to `most`."""

    def parse(text: str) -> int:
        number = int(text) if text.isdecimal() and len(text) < 10 else 0
        if not 1 <= number <= most:
            bound = "" if math.isinf(most) else f" and ≤ {most:g}"
            raise argparse.ArgumentTypeError(f"'{text}': allowed is an integer ≥ 1{bound}")
        return number

    return parse
