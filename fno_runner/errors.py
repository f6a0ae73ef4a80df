"""The errors a user can mend, told in one line, and the exit status each of them gives."""

from __future__ import annotations

from typing import Literal


def printable(text: str) -> str:
    """`text` with unprintable characters, line breaks among them, as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class UserError(Exception):
    """Input that cannot be used: an option, a file, a folder. Its text is one clear line.

    What a hostile file brings into it (a line break in an array's name) is shown as an escape.
    """

    exit_status = 2

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class MachineError(UserError):
    """This machine cannot do the work (no such device, no disk, no memory); another one may."""

    exit_status = 3


GPU_FAILED = "the GPU failed"
"""How a MachineError begins that tells of a card which failed in the middle of a run."""


class DivergedError(Exception):
    """A loss or a prediction is no longer a finite number: the point has failed."""


Kind = Literal["empty", "torn", "foreign", "future"]
"""Why a file of ours is not believed, in a word."""


class UnbelievableError(ValueError):
    """A file of ours that is not what it should be; says why in one line.

    kind: the same in a word, for the name under which the file is kept aside.
    """

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
