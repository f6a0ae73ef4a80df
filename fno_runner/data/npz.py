"""Reading NPZ files with suspicion and writing them whole. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from fno_runner.data.contents import MAX_BYTES, Contents, readable, shortened
from fno_runner.data.measured import BLOCK_BYTES, Frames, frames_a_block
from fno_runner.errors import UserError
from fno_runner.files import write_atomically

LARGEST_BYTES = 16 * 2**30
"""An array of simulated data larger than this is refused before memory is spent on it."""
BOMB_RATIO, BOMB_BYTES = 1_000, 64 * 2**20
"""An array that a thousandth of its bytes stands for, and larger than this, is no measurement:
deflate reaches 1,032 with zeros only, sparse frames of a detector some hundreds."""
READ_BYTES = 2**20
"""Read at once: small enough to stay in the processor's cache on its way into the array."""


@dataclass(frozen=True)
class _Header:
    """What an array of an NPZ file claims to be."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


class NpzFile(Contents):
    """An NPZ file, its directory read once; what HDF5 keeps beside an array is one of its own here.

    Raises:
        UserError: no such file, or not a zip archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive = _open(path)
        self._names = {
            name.removesuffix(".npy"): name
            for name in self._archive.namelist()
            if name.endswith(".npy")
        }

    def close(self) -> None:
        self._archive.close()

    def own_fingerprint(self) -> str:
        """By the zip directory's names, sizes and CRC-32s; no data is read, and no time stamp."""
        members = sorted((m.filename, m.file_size, m.CRC) for m in self._archive.infolist())
        return hashlib.sha256(repr(members).encode()).hexdigest()

    def has(self, name: str) -> bool:
        return name in self._names

    def names(self) -> list[str]:
        return list(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._header(name).shape

    def dtype(self, name: str) -> np.dtype:
        return self._header(name).dtype

    def attribute(self, name: str, attribute: str) -> float | None:
        """`object_center_x_m` for the object's `center_x_m`; `far_field` for the file's ('/')."""
        key = attribute if name == "/" else f"{name}_{attribute}"
        return self.number(key) if self.has(key) else None

    def text(self, name: str, attribute: str) -> str | None:
        return None

    def read(self, name: str, largest: int = MAX_BYTES) -> np.ndarray:
        with self._stream(name) as (stream, header):
            claimed = math.prod(header.shape) * header.dtype.itemsize
            if claimed > largest:
                raise UserError(
                    f"{self.path}: '{name}' claims {claimed:,} bytes, and at most {largest:,} are "
                    f"read"
                )
            if claimed == 0:
                raise UserError(f"{self.path}: '{name}' is empty")
            array = np.empty(header.shape, header.dtype, order="F" if header.fortran else "C")
            # One flat view of the array's bytes, in the order in which they are stored.
            self._fill(name, stream, array.reshape(-1, order="A").view(np.uint8).data)
            self._at_end(name, stream)
        return array

    def frames(self, name: str, *, last: bool = False) -> Frames:
        return _NpzFrames(self, name, last)

    def _fill(self, name: str, stream: zipfile.ZipExtFile, target: memoryview) -> None:
        for first in range(0, len(target), READ_BYTES):
            part = target[first : first + READ_BYTES]
            if stream.readinto(part) < len(part):
                raise UserError(f"{self.path}: '{name}' is cut short")

    def _at_end(self, name: str, stream: zipfile.ZipExtFile) -> None:
        # Reading to the member's end is what makes zipfile check its CRC.
        if stream.read(1):
            raise UserError(f"{self.path}: '{name}' has bytes behind its data")

    def _header(self, name: str) -> _Header:
        with self._stream(name, numbers=False) as (_, header):
            return header

    @contextmanager
    def _stream(
        self, name: str, *, numbers: bool = True
    ) -> Iterator[tuple[zipfile.ZipExtFile, _Header]]:
        """An array's bytes behind its header.

        Args:
            numbers: whether they have to be numbers.

        Raises:
            UserError: there is no such array, it is damaged, or claims what cannot be true.
        """
        path = self.path
        if name not in self._names:
            raise UserError(f"{path}: has no array '{name}'")
        facts = self._archive.getinfo(self._names[name])
        packed = min(facts.compress_size, path.stat().st_size)
        if facts.file_size > BOMB_BYTES and facts.file_size > BOMB_RATIO * packed:
            raise UserError(
                f"{path}: '{name}' is {facts.file_size:,} bytes packed into {packed:,}: "
                f"no measurement, and not read"
            )
        try:
            with self._archive.open(self._names[name]) as stream:
                assert isinstance(stream, zipfile.ZipExtFile)
                header = _read_header(path, name, stream)
                if numbers and header.dtype.kind not in "fciub":
                    raise UserError(f"{path}: '{name}' is {header.dtype}, not numbers")
                claimed = math.prod(header.shape) * header.dtype.itemsize
                if claimed < 0 or claimed > facts.file_size:
                    raise UserError(
                        f"{path}: '{name}' claims {claimed:,} bytes, the file holds "
                        f"{facts.file_size:,}"
                    )
                yield stream, header
        except (UserError, MemoryError):
            raise
        except Exception as error:
            # zipfile and numpy let through what their parsers meet: of zlib, struct, tokenize, …
            raise UserError(f"{path}: '{name}' is damaged: {shortened(error)}") from error


class _NpzFrames(Frames):
    """Frames of an NPZ file, unpacked anew each time they are read."""

    def __init__(self, file: NpzFile, name: str, last: bool) -> None:
        self._file, self._name = file, name
        header = file._header(name)
        shape = header.shape
        if len(shape) == 4 and shape[-1] == 1:  # (F, H, W, 1)
            shape = shape[:3]
        if len(shape) < 3 or (len(shape) > 3 and (last or header.fortran)):
            raise UserError(f"{file.path}: '{name}' is {shape}, not (frames, rows, columns)")
        # (F, H, W) in Fortran order is (W, H, F) in C order.
        self._stored = shape[::-1] if header.fortran else shape
        self._swapped = header.fortran
        self._frames_last = last != header.fortran
        self.leading = (shape[2],) if last else shape[:-2]
        self.shape = (math.prod(self.leading), *(shape[:2] if last else shape[-2:]))
        self.dtype = header.dtype

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        blocks = self._across() if self._frames_last else self._along()
        for first, block in blocks:
            yield first, block.swapaxes(1, 2) if self._swapped else block

    def _along(self) -> Iterator[tuple[int, np.ndarray]]:
        """Frames that are stored one after the other."""
        height, width = self._stored[-2:]
        step = frames_a_block(self.shape, self.dtype)
        with self._file._stream(self._name) as (stream, _):
            for first in range(0, self.shape[0], step):
                count = min(step, self.shape[0] - first)
                yield first, self._take(stream, (count, height, width))
            self._file._at_end(self._name, stream)

    def _across(self) -> Iterator[tuple[int, np.ndarray]]:
        """Frames whose pixels are stored one after the other: the file is read once for every
        hundred mebibytes of frames."""
        height, width, frames = self._stored
        pixels = height * width
        several = max(1, 6 * BLOCK_BYTES // max(pixels * self.dtype.itemsize, 1))
        run = max(1, BLOCK_BYTES // max(frames * self.dtype.itemsize, 1))
        step = frames_a_block(self.shape, self.dtype)
        for first in range(0, frames, several):
            count = min(several, frames - first)
            part = np.empty((count, pixels), self.dtype)
            with self._file._stream(self._name) as (stream, _):
                for pixel in range(0, pixels, run):
                    rows = self._take(stream, (min(run, pixels - pixel), frames))
                    part[:, pixel : pixel + len(rows)] = rows[:, first : first + count].T
                self._file._at_end(self._name, stream)
            for inner in range(0, count, step):
                block = part[inner : inner + step]
                yield first + inner, block.reshape(-1, height, width)

    def _take(self, stream: zipfile.ZipExtFile, shape: tuple[int, ...]) -> np.ndarray:
        array = np.empty(shape, self.dtype)
        self._file._fill(self._name, stream, array.reshape(-1).view(np.uint8).data)
        return array


def fingerprint(path: Path) -> str:
    """What a file's arrays are, by the zip directory's names, sizes and CRC-32s.

    Reads no data, so it is quick for files of any size, and does not depend on time stamps.

    Raises:
        UserError: no such file, or not a zip archive.
    """
    with closing(NpzFile(path)) as file:
        return file.own_fingerprint()


def array_names(path: Path) -> set[str]:
    """The names of the arrays in an NPZ file.

    Raises:
        UserError: no such file, or not a zip archive.
    """
    with closing(NpzFile(path)) as file:
        return set(file.names())


def read_array(path: Path, name: str) -> np.ndarray:
    """One array of an NPZ file, its checksum verified.

    Raises:
        UserError: the file is missing, damaged or not an NPZ, lacks the key, or holds objects.
    """
    with closing(NpzFile(path)) as file:
        return file.read(name, LARGEST_BYTES)


def write_npz(
    path: Path, arrays: Mapping[str, np.ndarray] | Iterable[tuple[str, np.ndarray]]
) -> None:
    """Write named arrays as numpy.savez does, in C order, without its copies of them.

    Uncompressed: they are noise, and reading stays at the disk's speed. Each is written before the
    next one is asked for.

    Raises:
        MachineError: the disk refuses.
    """

    pairs = arrays.items() if isinstance(arrays, Mapping) else arrays

    def write(stream: IO[bytes]) -> None:
        with zipfile.ZipFile(stream, "w") as archive:
            for name, array in pairs:
                rows = np.asarray(array, order="C")
                header = np.lib.format.header_data_from_array_1_0(rows)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array_header_1_0(member, header)
                    member.write(rows.reshape(-1).view(np.uint8).data)

    write_atomically(path, write)


def _open(path: Path) -> zipfile.ZipFile:
    with readable(path):
        try:
            return zipfile.ZipFile(path)
        except OSError:
            raise
        except zipfile.BadZipFile:
            raise UserError(f"{path}: not an NPZ file (or cut short)") from None
        except Exception as error:  # a directory whose fields make no sense
            raise UserError(f"{path}: not an NPZ file: {shortened(error)}") from error


def _read_header(path: Path, name: str, stream: zipfile.ZipExtFile) -> _Header:
    """The NPY header of a binary stream, if it is one of numbers."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise UserError(f"{path}: '{name}' has an unknown NPY version {version}")
    if dtype.hasobject:
        raise UserError(f"{path}: '{name}' holds Python objects; only numbers are read")
    return _Header(tuple(int(n) for n in shape), fortran, dtype)
