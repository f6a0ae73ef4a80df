"""The files of one scan: the one that was named, and those that belong to it."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fno_runner.config import RunConfig
from fno_runner.data.contents import Contents, content_hash, readable, state_of
from fno_runner.data.hdf5 import Hdf5File, is_hdf5
from fno_runner.data.measured import Kind
from fno_runner.data.npz import NpzFile
from fno_runner.errors import UserError

ZIP = b"PK"
"""What an NPZ file begins with."""


@dataclass(frozen=True)
class Hints:
    """What a user says of a scan's file where it does not say it itself, or says it wrongly.

    data: what the frames hold. entry: which of several scans in the file.
    probe: the name of an array of the file to take as the probe, in place of its own.
    """

    data: Kind | None = None
    entry: str | None = None
    probe: str | None = None

    @classmethod
    def of(cls, config: RunConfig) -> Hints:
        """What a configuration says of its scan's file."""
        return cls(data=config.scan_data, entry=config.scan_entry)


class Source:
    """A scan's file, opened, and the others that its reader asked for.

    Use as a context manager. Its `fingerprint` and `check_unchanged` are of all of them, so that
    they are right once a reader has been there.

    Raises:
        UserError: the file is neither HDF5 nor NPZ, or cannot be read.
    """

    def __init__(self, path: Path, hints: Hints) -> None:
        self.path, self.hints = path, hints
        self._open = ExitStack()
        self._files: dict[Path, Contents] = {}
        self._states: dict[Path, tuple[int, ...]] = {}
        self.file = self._opened(path)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def beside(self, *names: str) -> Contents | None:
        """The first of these files that lies in the same folder, opened."""
        for name in names:
            path = self.path.with_name(name)
            if path in self._files:
                return self._files[path]
            if path.is_file():
                return self._opened(path)
        return None

    def fingerprint(self) -> str:
        """What all files of the scan hold, 64 hex digits, whatever they are called."""
        parts = []
        for contents in self._files.values():
            parts.append(contents.own_fingerprint())
            parts += [content_hash(path) for path in contents.linked_files()]
        return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()

    def check_unchanged(self) -> None:
        """To be called after the last array was read.

        Raises:
            UserError: a file has changed since it was opened.
        """
        for path, state in self._states.items():
            if state_of(path) != state:
                raise UserError(f"{path}: has changed while it was read; is it still written to?")

    def _opened(self, path: Path) -> Contents:
        self._states[path] = state_of(path)
        contents = self._contents(path)
        self._open.callback(contents.close)
        self._files[path] = contents
        return contents

    def _contents(self, path: Path) -> Contents:
        if is_hdf5(path):
            return Hdf5File(path)
        with readable(path), path.open("rb") as stream:
            if not stream.read(len(ZIP)).startswith(ZIP):
                raise UserError(f"{path}: neither HDF5 nor NPZ (or cut short)")
        return NpzFile(path)
