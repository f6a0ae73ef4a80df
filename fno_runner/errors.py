"""The errors a user can mend, told in one line, and the exit status each of them gives."""

from __future__ import annotations


class UserError(Exception):
    """Input that cannot be used: an option, a file, a folder. Its text is one clear line."""

    exit_status = 2


class MachineError(UserError):
    """This machine cannot do the work (no such device, no disk, no memory); another one may."""

    exit_status = 3


class DivergedError(Exception):
    """A loss or a prediction is no longer a finite number: the point has failed."""
