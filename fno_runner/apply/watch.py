"""What has arrived of a scan in progress: the interface of `watch_file` and `watch_folder`.

Nothing is read twice, and nothing that is still being written is taken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fno_runner.data.measured import Measured
from fno_runner.data.source import Hints
from fno_runner.errors import UserError


@dataclass(frozen=True)
class Piece:
    """Frames that have arrived, in memory. key: by which `again` finds them."""

    key: str
    measured: Measured

    def __len__(self) -> int:
        return int(self.measured.frames.shape[0])


class Arrivals(ABC):
    """A scan in progress.

    declared: how many frames it is going to have, where it says so.
    waits_for: why nothing comes, in words.
    left_out: how many frames are left out because they stayed empty.
    """

    def __init__(self, path: Path, hints: Hints) -> None:
        self.path, self.hints = path, hints
        self.declared: int | None = None
        self.waits_for = "it is not there"
        self.left_out = 0
        self._inode: tuple[int, int] | None = None

    def poll(self) -> Iterator[Piece]:
        """What has come since the last poll; a piece counts as taken when the next is asked for.

        Raises:
            UserError: what was there has been deleted or replaced, or cannot be followed.
        """
        if self._is_there():
            yield from self._pieces()

    @property
    @abstractmethod
    def complete(self) -> bool:
        """Whether all of the frames that the scan declares have come."""

    @abstractmethod
    def again(self, keys: Iterable[str]) -> list[Piece]:
        """Pieces that were taken before, as a restart needs the first of them.

        Raises:
            UserError: they are not there any more.
        """

    @abstractmethod
    def go_on(self, keys: Iterable[str]) -> None:
        """These pieces have been taken."""

    @abstractmethod
    def remarks(self) -> list[str]:
        """What a user should know at the end, a line each."""

    @abstractmethod
    def _pieces(self) -> Iterator[Piece]: ...

    def _is_there(self) -> bool:
        """Whether the file or folder is there, and still the same.

        Raises:
            UserError: it has been deleted or replaced.
        """
        try:
            status = self.path.stat()
        except FileNotFoundError:
            if self._inode is None:
                return False
            raise UserError(f"{self.path}: was deleted while it was watched") from None
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        inode = status.st_dev, status.st_ino
        if self._inode not in (None, inode):
            raise UserError(f"{self.path}: was replaced by another while it was watched")
        self._inode = inode
        return True
