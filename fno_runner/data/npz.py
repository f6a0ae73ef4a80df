"""Reading NPZ files with suspicion and writing them whole. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from fno_runner.errors import UserError
from fno_runner.files import write_atomically

MAX_BYTES = 16 * 2**30
"""An array larger than this is refused before memory is spent on it."""
BOMB_RATIO, BOMB_BYTES = 100, 64 * 2**20
"""An array that a hundredth of its bytes stands for, and larger than this, is no measurement."""
READ_BYTES = 2**20
"""Read at once: small enough to stay in the processor's cache on its way into the array."""


def fingerprint(path: Path) -> str:
    """What a file's arrays are, by the zip directory's names, sizes and CRC-32s.

    Reads no data, so it is quick for files of any size, and does not depend on time stamps.

    Raises:
        UserError: no such file, or not a zip archive.
    """
    with _open(path) as archive:
        members = sorted((m.filename, m.file_size, m.CRC) for m in archive.infolist())
    return hashlib.sha256(repr(members).encode()).hexdigest()


def array_names(path: Path) -> set[str]:
    """The names of the arrays in an NPZ file.

    Raises:
        UserError: no such file, or not a zip archive.
    """
    with _open(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def read_array(path: Path, name: str) -> np.ndarray:
    """One array of an NPZ file, its checksum verified.

    Raises:
        UserError: the file is missing, damaged or not an NPZ, lacks the key, or holds objects.
    """
    member = f"{name}.npy"
    with _open(path) as archive:
        if member not in archive.namelist():
            raise UserError(f"{path}: has no array '{name}'")
        facts = archive.getinfo(member)
        packed = min(facts.compress_size, path.stat().st_size)
        if facts.file_size > BOMB_BYTES and facts.file_size > BOMB_RATIO * packed:
            raise UserError(
                f"{path}: '{name}' is {facts.file_size:,} bytes packed into {packed:,}: "
                f"no measurement, and not read"
            )
        try:
            with archive.open(member) as stream:
                array = _allocate(path, name, stream, facts.file_size)
                # One flat view of the array's bytes, in the order in which they are stored.
                target = array.reshape(-1, order="A").view(np.uint8).data
                filled = 0
                while filled < len(target):
                    block = stream.read(min(READ_BYTES, len(target) - filled))
                    if not block:
                        raise UserError(f"{path}: '{name}' is cut short")
                    target[filled : filled + len(block)] = block
                    filled += len(block)
                # Reading to the member's end is what makes zipfile check its CRC.
                if stream.read(1):
                    raise UserError(f"{path}: '{name}' has bytes behind its data")
        except UserError:
            raise
        except Exception as error:
            # zipfile and numpy let through what their parsers meet: of zlib, struct, tokenize, …
            raise UserError(f"{path}: '{name}' is damaged: {_line(error)}") from error
    return array


def _allocate(path: Path, name: str, stream: Any, stored: int) -> np.ndarray:
    """An empty array as the NPY header of a binary stream claims it, if the claim can be true."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise UserError(f"{path}: '{name}' has an unknown NPY version {version}")
    if dtype.hasobject:
        raise UserError(f"{path}: '{name}' holds Python objects; only numbers are read")
    claimed = math.prod(int(n) for n in shape) * dtype.itemsize
    if claimed < 0 or claimed > MAX_BYTES or claimed > stored:
        raise UserError(
            f"{path}: '{name}' claims {claimed:,} bytes, the file holds {stored:,}, "
            f"and at most {MAX_BYTES:,} are read"
        )
    return np.empty(shape, dtype, order="F" if fortran else "C")


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
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except zipfile.BadZipFile:
        raise UserError(f"{path}: not an NPZ file (or cut short)") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a directory whose fields make no sense
        raise UserError(f"{path}: not an NPZ file: {_line(error)}") from error


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
