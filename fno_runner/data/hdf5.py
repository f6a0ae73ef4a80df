"""Reading HDF5 files with suspicion: nothing outside the file, nothing larger than its claim."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fno_runner.errors import UserError

if TYPE_CHECKING:
    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_BYTES = 8 * 2**30
"""A dataset larger than this is refused before memory is spent on it."""
MAX_LINKS = 100_000
"""A file with more objects than this is no scan."""
MAX_RATIO, SMALL_BYTES = 2_000, 64 * 2**20
"""Claims of so many times the bytes stored are a bomb (gzip reaches 1,000), unless small."""


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 files do.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(len(SIGNATURE)) == SIGNATURE
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Hdf5:
    """An open HDF5 file that refers to no other file."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path, self._file = path, file

    def has(self, name: str) -> bool:
        """Whether there is a dataset at this place."""
        import h5py

        try:
            return isinstance(self._file.get(name), h5py.Dataset)
        except (OSError, RuntimeError):  # a soft link in a circle
            return False

    def first(self, *names: str) -> str | None:
        """The first of these places that has a dataset."""
        return next((name for name in names if self.has(name)), None)

    def read(self, name: str) -> np.ndarray:
        """A dataset of numbers.

        Raises:
            UserError: it lies in another file, is larger than allowed, or is damaged.
        """
        dataset: Any = self._file[name]
        where = f"{self.path}: '{name}'"
        if dataset.external or (
            dataset.is_virtual and any(s.file_name != "." for s in dataset.virtual_sources())
        ):
            raise UserError(f"{where} has its data in another file, which is not followed")
        if dataset.dtype.kind not in "fciub":
            raise UserError(f"{where} is {dataset.dtype}, not numbers")
        claimed, stored = dataset.size * dataset.dtype.itemsize, dataset.id.get_storage_size()
        if claimed > MAX_BYTES or (claimed > SMALL_BYTES and claimed > MAX_RATIO * stored):
            raise UserError(
                f"{where} claims {claimed:,} bytes, the file holds {stored:,}, "
                f"and at most {MAX_BYTES:,} are read"
            )
        try:
            array = np.asarray(dataset[()])
        except OSError as error:
            raise UserError(f"{where} cannot be read: {error}") from error
        if array.size == 0:
            raise UserError(f"{where} is empty")
        return array

    def attribute(self, dataset: str, name: str) -> float | None:
        """A number beside a dataset (or the file, for '/'), or None."""
        value = self._file[dataset].attrs.get(name)
        return None if value is None else float(np.asarray(value).reshape(-1)[0])


@contextmanager
def open_hdf5(path: Path) -> Iterator[Hdf5]:
    """Open a file for reading.

    Raises:
        UserError: it is damaged, or links to another file.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: not an HDF5 file (or cut short): {error}") from error
    with file:
        links = 0

        def strange(name: str, link: Any) -> str | None:
            nonlocal links
            links += 1
            if links > MAX_LINKS:
                return f"more than {MAX_LINKS:,} objects; no scan has so many"
            if isinstance(link, h5py.ExternalLink):
                return f"'{name}' links to another file, '{link.filename}', which is not followed"
            return None

        # The walk ends at the first answer; it follows no link.
        if (why := file.visititems_links(strange)) is not None:
            raise UserError(f"{path}: {why}")
        yield Hdf5(path, file)
