"""Command lines whose complaints are one line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import NoReturn

from fno_runner.errors import UserError


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
