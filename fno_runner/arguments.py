"""Command lines whose complaints are one line."""

from __future__ import annotations

import argparse
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
