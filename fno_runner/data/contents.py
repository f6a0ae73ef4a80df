"""A file of named arrays, whatever wraps them: what readers of formats are written against."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fno_runner.data.measured import Frames
from fno_runner.errors import UserError

MAX_BYTES = 4 * 2**30
"""An array that is read whole (a probe, an object; never frames) is refused beyond this."""
TREE_LINES = 16
"""So many arrays of an unknown file are named."""
AGREE = 0.01
"""Numbers of one thing, such as its value in every frame, differ by at most this share of it."""


class Contents(ABC):
    """An open file and its arrays of numbers."""

    path: Path

    # --- arrays --------------------------------------------------------------------------------

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is an array of numbers of this name that may be read."""

    @abstractmethod
    def names(self) -> list[str]:
        """The names of all arrays."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """An array's shape, without reading it."""

    @abstractmethod
    def dtype(self, name: str) -> np.dtype:
        """An array's type, without reading it."""

    @abstractmethod
    def read(self, name: str) -> np.ndarray:
        """An array of numbers, whole; complex where the file keeps real and imaginary parts.

        Raises:
            UserError: it is larger than `MAX_BYTES`, empty, damaged, or holds no numbers.
        """

    @abstractmethod
    def frames(self, name: str, *, last: bool = False) -> Frames:
        """An array (F, H, W), or with a raster's rows and columns in place of F, to be read later.

        Args:
            last: the array is (H, W, F).

        Raises:
            UserError: it claims more than the file can hold, or cannot be read.
        """

    @abstractmethod
    def attribute(self, name: str, attribute: str) -> float | None:
        """A number beside an array ('/' stands for the file), or None."""

    @abstractmethod
    def text(self, name: str, attribute: str) -> str | None:
        """A text beside an array, such as its `units`, or None."""

    def first(self, *names: str) -> str | None:
        """The first of these names that the file has."""
        return next((name for name in names if self.has(name)), None)

    def named(self, what: str, *names: str) -> str | None:
        """The first of these names that the file has; None where it knows none of them.

        Args:
            what: what these arrays tell, for the error.

        Raises:
            UserError: an array of an earlier name is there, and cannot be read; says why.
        """
        for name in names:
            if self.has(name):
                return name
            if self.why_not(name) is not None and not self.is_null(name):
                raise self.missing(what, name)
        return None

    def is_null(self, name: str) -> bool:
        """Whether there is an array of this name that has no value at all."""
        return False

    def needed(self, what: str, *names: str) -> str:
        """The first of these names that the file has.

        Args:
            what: what these arrays tell, for the error.

        Raises:
            UserError: it has none of them; says why.
        """
        name = self.first(*names)
        if name is None:
            raise self.missing(what, *names)
        return name

    def number(self, name: str) -> float:
        """An array's number, or its real part; of several that agree to 1 % their median.

        Raises:
            UserError: there are several that do not, or as `read` does.
        """
        values = np.real(self.read(name).reshape(-1)).astype(np.float64)
        finite = values[np.isfinite(values)]
        if len(finite) == 0:
            return float(values[0])
        low, high = float(finite.min()), float(finite.max())
        if high - low > AGREE * max(abs(low), abs(high)):
            raise UserError(
                f"{self.path}: '{name}' has {len(values)} numbers from {low:g} to {high:g}; one is "
                f"wanted"
            )
        return float(np.median(finite))

    def why_not(self, name: str) -> str | None:
        """Why there is no array of this name although the file names one, if so."""
        return None

    def missing(self, what: str, *names: str) -> UserError:
        """The error that says that none of these arrays, which tell `what`, is there."""
        reasons = [why for name in names if (why := self.why_not(name)) is not None]
        why = f"{what}: {reasons[0]}" if reasons else f"has no '{names[0]}' ({what})"
        return UserError(f"{self.path}: {why}")

    def tree(self) -> str:
        """The largest arrays, with shape and type, in a line."""
        sized = []
        for name in self.names():
            try:
                shape = self.shape(name)
                sized.append((-math.prod(shape), f"{name} {shape} {self.dtype(name)}"))
            except UserError:
                sized.append((0, f"{name} (cannot be read)"))
        shown = [text for _, text in sorted(sized)[:TREE_LINES]]
        more = len(sized) - len(shown)
        return "; ".join(shown) + (f"; and {more} more" if more else "") if sized else "nothing"

    # --- the file --------------------------------------------------------------------------------

    @abstractmethod
    def own_fingerprint(self) -> str:
        """What this file alone holds, 64 hex digits, whatever it is called."""

    def linked_files(self) -> list[Path]:
        """Other files that arrays asked for so far have their data in."""
        return []

    @abstractmethod
    def close(self) -> None:
        """Give the file back."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """While entered, an error of the operating system becomes a UserError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def state_of(path: Path) -> tuple[int, ...]:
    """What changes when a file does.

    Raises:
        UserError: there is no such file, or it may not be looked at.
    """
    with readable(path):
        stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex digits; computed once for a file that does not change.

    Raises:
        UserError: it cannot be read.
    """
    state = state_of(path)
    if state not in _hashes:
        with readable(path), path.open("rb") as stream:
            _hashes[state] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _hashes[state]


_hashes: dict[tuple[int, ...], str] = {}


def shortened(error: BaseException) -> str:
    """What a library says of a file that it cannot read, in a line of at most 300 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def decoded(value: str | bytes) -> str:
    """A text of a file, in UTF-8 or else in Latin-1."""
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")  # bytes that are no UTF-8, as they are
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
