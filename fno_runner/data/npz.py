"""Reading NPZ files with suspicion and writing them whole. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fno_runner.errors import UserError
from fno_runner.files import write_atomically

MAX_BYTES = 16 * 2**30
"""An array larger than this is refused before memory is spent on it."""


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


def read_array(path: Path, name: str, rows: np.ndarray | None = None) -> np.ndarray:
    """One array of an NPZ file, its checksum verified; with `rows`, only these of the first axis.

    Raises:
        UserError: the file is missing, damaged or not an NPZ, lacks the key, or holds objects.
    """
    member = f"{name}.npy"
    with _open(path) as archive:
        if member not in archive.namelist():
            raise UserError(f"{path}: has no array '{name}'")
        try:
            with archive.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                header = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }.get(version)
                if header is None:
                    raise UserError(f"{path}: '{name}' has an unknown NPY version {version}")
                shape, _, dtype = header(stream)
            if dtype.hasobject:
                raise UserError(f"{path}: '{name}' holds Python objects; only numbers are read")
            claimed = int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
            stored = archive.getinfo(member).file_size
            if claimed > MAX_BYTES or claimed > stored:
                raise UserError(
                    f"{path}: '{name}' claims {claimed:,} bytes, the file holds {stored:,}, "
                    f"at most {MAX_BYTES:,} are read"
                )
            with archive.open(member) as stream:
                array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
                # The CRC is checked at the member's end only.
                if stream.read(1):
                    raise UserError(f"{path}: '{name}' has bytes behind its data")
        except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as error:
            raise UserError(f"{path}: '{name}' is damaged: {error}") from error
    return array if rows is None else array[rows]


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays uncompressed: they are noise, and reading stays at the disk's speed.

    Raises:
        MachineError: the disk refuses.
    """
    # numpy's stub takes the arrays for its `allow_pickle` switch.
    write_atomically(path, lambda stream: np.savez(stream, **arrays))  # type: ignore[arg-type]


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except zipfile.BadZipFile:
        raise UserError(f"{path}: not an NPZ file (or cut short)") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
