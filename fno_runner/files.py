"""Writing a file so that it is there whole or not at all; setting aside what is not believed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from errno import EEXIST, ENOTEMPTY
from pathlib import Path
from typing import IO

from fno_runner.errors import Kind, MachineError, UserError

TAKEN = (EEXIST, ENOTEMPTY)
"""What the system says where a folder that is not empty has the new name already."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a temporary file beside `path`, fsync it, rename it to `path`.

    Raises:
        MachineError: the folder cannot be made or the disk refuses the write.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise MachineError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """`write_atomically` of bytes that are in memory."""
    write_atomically(path, lambda stream: stream.write(content))


def write_text_atomically(path: Path, text: str) -> None:
    """`write_atomically` of UTF-8 text, with escapes for what has no place there.

    A file's name may be no text. In JSON the escape reads as the same name again.
    """
    write_bytes_atomically(path, text.encode(errors="backslashreplace"))


def set_aside(path: Path, kind: Kind) -> Path:
    """Rename a file that is not believed, so that it can be made again and still be looked at.

    Returns:
        its new name: `<name>.<kind>-<n>`, the first n that is free.

    Raises:
        MachineError: the disk refuses.
    """
    try:
        return number_aside(path, path.with_name(f"{path.name}.{kind}"))
    except OSError as error:
        raise MachineError(f"cannot rename {path}: {error.strerror or error}") from error


def number_aside(path: Path, name: Path) -> Path:
    """Rename a file or folder to `<name>-<n>`, the first n that is free; the new name.

    Raises:
        OSError: the disk refuses, or `path` is not there.
    """
    number = 1
    while True:
        aside = name.with_name(f"{name.name}-{number}")
        if not aside.exists():
            try:
                return path.rename(aside)
            except OSError as error:
                if error.errno not in TAKEN:
                    raise
        number += 1


def named(path: Path) -> Path:
    """The same place under a path that ends in its name, as '.', '..' and '' do not.

    Raises:
        UserError: it is the root of all folders.
    """
    path = path.resolve() if path.name in ("", "..") else path
    if not path.name:
        raise UserError(f"{path}: has no name to call another folder by")
    return path


def make_folder(path: Path) -> Path:
    """Make a folder, or say in one line why the machine will not.

    Raises:
        MachineError: no permission, no space, or a file is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        # A folder that exists may still be read-only: only a write tells.
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise MachineError(f"cannot write to {path}: {error.strerror or error}") from error
    return path
