"""Reading HDF5 files with suspicion: links stay in the file's folder, claims are checked first."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from fno_runner.data.contents import (
    MAX_BYTES,
    Contents,
    content_hash,
    decoded,
    readable,
    shortened,
)
from fno_runner.data.hdf5_frames import Hdf5Frames
from fno_runner.data.measured import Frames
from fno_runner.errors import UserError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
FIRST_USER_BLOCK = 512
"""The signature is at byte 0, or behind a user block: at 512, or at twice, four times … of it."""
MAX_LINKS = 100_000
"""A file with more objects than this is no scan, and no dataset is made of more of them."""
MAX_HOPS = 32
"""A path that leads over more links than this leads nowhere."""
MAX_RATIO, SMALL_BYTES = 2_000, 64 * 2**20
"""Claims of so many times the bytes stored are a bomb (gzip reaches 1,000), unless small."""
MAX_CHUNK = 2**30
"""A chunk is unpacked whole; larger ones [bytes] are refused."""
COMPLEX = (("real", "imag"), ("r", "i"))
"""What the two parts of a complex number are called: by MATLAB, by h5py."""
P = ParamSpec("P")
R = TypeVar("R")


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, be it behind a user block.

    Raises:
        UserError: it cannot be read.
    """
    with readable(path), path.open("rb") as stream:
        place, size = 0, path.stat().st_size
        while place < size:
            stream.seek(place)
            if stream.read(len(SIGNATURE)) == SIGNATURE:
                return True
            place = 2 * place or FIRST_USER_BLOCK
    return False


def user_errors(
    method: Callable[Concatenate[Hdf5File, P], R],
) -> Callable[Concatenate[Hdf5File, P], R]:
    """Make whatever HDF5 raises of a file that it cannot read a UserError that names the file."""

    @functools.wraps(method)
    def told(self: Hdf5File, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._user_errors("a part of it cannot be read"):
            return method(self, *args, **kwargs)

    return told


class Hdf5File(Contents):
    """An open HDF5 file, and the files of its folder that it links to.

    Args:
        swmr: another process writes it as HDF5's SWMR mode allows; its lock is not asked for.

    Raises:
        UserError: it is damaged, or cut short.
    """

    def __init__(self, path: Path, *, swmr: bool = False) -> None:
        import h5py
        import hdf5plugin  # noqa: F401  that registers its filters

        self.path = path
        self._h5py = h5py
        self._linked: dict[Path, Any] = {}
        self._refused: dict[str, str] = {}
        with self._user_errors("not an HDF5 file (or cut short)"):
            self._file = h5py.File(path, "r", swmr=swmr, locking=False if swmr else None)

    def close(self) -> None:
        for file in (*self._linked.values(), self._file):
            file.close()

    def own_fingerprint(self) -> str:
        return content_hash(self.path)

    def linked_files(self) -> list[Path]:
        return sorted(self._linked)

    # --- arrays --------------------------------------------------------------------------------

    @user_errors
    def has(self, name: str) -> bool:
        dataset = self._find(name)
        return dataset is not None and self._is_numbers(dataset)

    @user_errors
    def has_group(self, name: str) -> bool:
        """Whether there is a group at this place."""
        return self._find(name, self._h5py.Group) is not None

    @user_errors
    def groups(self, name: str) -> list[str]:
        """The groups directly in a group, in the file's order."""
        return [child for child in self.within(name) if self.has_group(child)]

    @user_errors
    def within(self, name: str) -> list[str]:
        """What a group names, whether or not it can be opened, in the file's order."""
        group = self._find(name, self._h5py.Group)
        children = [] if group is None else list(group)[:MAX_LINKS]
        return [f"{name.rstrip('/')}/{child}".lstrip("/") for child in children]

    @user_errors
    def names(self) -> list[str]:
        paths: list[str] = []
        number = itertools.count(1)

        def note(name: str, thing: Any) -> None:
            if next(number) > MAX_LINKS:
                raise UserError(
                    f"{self.path}: has more than {MAX_LINKS:,} objects; no scan has so many"
                )
            if isinstance(thing, self._h5py.Dataset):
                paths.append(name)

        self._file.visititems(note)
        return paths

    @user_errors
    def shape(self, name: str) -> tuple[int, ...]:
        dataset = self._find(name)
        if dataset is None or dataset.shape is None:
            return ()
        shape = tuple(dataset.shape)
        swapped = len(shape) > 1 and self._is_matlabs(dataset)
        return (*shape[:-2], *shape[:-3:-1]) if swapped else shape

    @user_errors
    def dtype(self, name: str) -> np.dtype:
        dataset = self._find(name)
        return np.dtype("V") if dataset is None else dataset.dtype

    @user_errors
    def why_not(self, name: str) -> str | None:
        dataset = self._find(name)
        if dataset is None:
            return self._refused.get(name)
        if dataset.shape is None:
            return f"'{name}' is empty (an HDF5 null dataset)"
        return None if self._is_numbers(dataset) else f"'{name}' is {dataset.dtype}, not numbers"

    @user_errors
    def read(self, name: str) -> np.ndarray:
        dataset = self._dataset(name)
        where = f"{self.path}: '{name}'"
        claimed = dataset.size * dataset.dtype.itemsize
        if claimed > MAX_BYTES:
            raise UserError(f"{where} claims {claimed:,} bytes, and at most {MAX_BYTES:,} are read")
        with self._user_errors(f"'{name}' cannot be read"):
            array = np.asarray(dataset[()])
        if array.size == 0:
            raise UserError(f"{where} is empty")
        if array.dtype.names is not None:
            real, imaginary = array.dtype.names
            array = array[real] + 1j * array[imaginary]
        # MATLAB keeps columns together: what it calls (row, column) is (column, row) in the file.
        return array.swapaxes(-1, -2) if self._is_matlabs(dataset) and array.ndim > 1 else array

    @user_errors
    def frames(self, name: str, *, last: bool = False) -> Frames:
        if last:
            raise UserError(f"{self.path}: '{name}' has its frames along the last axis")
        dataset = self._dataset(name)
        if dataset.ndim < 3:
            raise UserError(
                f"{self.path}: '{name}' is {dataset.shape}, not (frames, rows, columns)"
            )
        what = f"'{name}' cannot be read"
        return Hdf5Frames(dataset, self._is_matlabs(dataset), lambda: self._user_errors(what))

    @user_errors
    def attribute(self, name: str, attribute: str) -> float | None:
        try:
            return float(self._elements(name, attribute)[0])
        except (IndexError, TypeError, ValueError):
            return None

    @user_errors
    def text(self, name: str, attribute: str) -> str | None:
        return next(iter(self.texts(name, attribute)), None)

    @user_errors
    def texts(self, name: str, attribute: str) -> list[str]:
        """All texts of an attribute beside an array or a group."""
        return [decoded(value) for value in self._elements(name, attribute)
                if isinstance(value, str | bytes)]  # fmt: skip

    @user_errors
    def numbers(self, name: str, attribute: str) -> np.ndarray:
        """All numbers of an attribute beside an array, float64; none where it has no numbers."""
        values = np.asarray(self._elements(name, attribute))
        return values.astype(np.float64) if values.dtype.kind in "fiu" else np.zeros(0)

    @user_errors
    def relative(self, name: str, other: str) -> str | None:
        """The array that one in the same group, or its file, calls `other`; None if not there."""
        dataset = self._find(name)
        if dataset is None or dataset.file != self._file:
            return None
        path = other if other.startswith("/") else f"{dataset.parent.name}/{other}"
        return path if self.has(path) else None

    @user_errors
    def is_null(self, name: str) -> bool:
        dataset = self._find(name)
        return dataset is not None and dataset.shape is None

    @user_errors
    def is_same(self, name: str, other: str) -> bool:
        """Whether two names lead to one dataset, over whatever links."""
        dataset = self._find(name)
        return dataset is not None and bool(dataset == self._find(other))

    @user_errors
    def has_text(self, name: str) -> bool:
        """Whether there is a text of this name, where formats may have numbers."""
        dataset = self._find(name)
        return dataset is not None and self._h5py.check_string_dtype(dataset.dtype) is not None

    # --- links ---------------------------------------------------------------------------------

    def _elements(self, name: str, attribute: str) -> list[Any]:
        """The elements of an attribute, whatever its shape."""
        thing = self._file if name == "/" else self._find(name, self._h5py.HLObject)
        if thing is None:
            return []
        try:
            return list(np.asarray(thing.attrs[attribute]).reshape(-1))
        except Exception:  # there is none, it is empty, or of a type that h5py does not know
            return []

    def _find(self, name: str, kind: type | None = None) -> Any:
        """What lies at a place, over links that stay in the folder; None where nothing does."""
        try:
            thing = self._follow(self._file, name, MAX_HOPS)
        except UserError as error:
            self._refused[name] = f"'{name}' {error}"
            return None
        except Exception as error:
            self._refused[name] = f"'{name}' cannot be read: {shortened(error)}"
            return None
        return thing if isinstance(thing, kind or self._h5py.Dataset) else None

    def _follow(self, group: Any, name: str, hops: int) -> Any:
        if hops == 0:
            raise UserError(f"leads over more than {MAX_HOPS} links")
        if name.startswith("/"):
            group = group.file
        parts = [part for part in name.split("/") if part not in ("", ".")]
        for number, part in enumerate(parts):
            if not isinstance(group, self._h5py.Group):
                return None
            link = group.get(part, getlink=True)
            if link is None:
                return None
            if isinstance(link, self._h5py.SoftLink | self._h5py.ExternalLink):
                rest = "/".join(parts[number + 1 :])
                if isinstance(link, self._h5py.ExternalLink):
                    group = self._beside(group.file.filename, link.filename)
                target = self._follow(group, f"{link.path}/{rest}".rstrip("/"), hops - 1)
                if target is None and not rest:
                    raise UserError(f"links to '{link.path}', which is not there")
                return target
            group = group[part]
        return group

    def _beside(self, from_file: str, name: str) -> Any:
        """Another file of the folder, which stays open.

        Raises:
            UserError: it lies elsewhere, or cannot be read.
        """
        folder, target = Path(from_file).parent, Path(name)
        if target.is_absolute():
            above = target.parent.resolve()
            if above.is_relative_to(folder.resolve()):
                target = above.relative_to(folder.resolve()) / target.name
        if target.is_absolute() or ".." in target.parts:
            raise UserError(f"links to another file, '{name}', which is not in its folder")
        path = folder / target
        if not path.is_file():
            raise UserError(f"links to another file, '{name}', which is not there")
        if path not in self._linked:
            try:
                self._linked[path] = self._h5py.File(path, "r")
            except OSError as error:
                raise UserError(f"links to '{name}': {shortened(error)}") from error
        return self._linked[path]

    # --- datasets --------------------------------------------------------------------------------

    def _dataset(self, name: str) -> Any:
        """A dataset of numbers whose claims can be true, and that can be unpacked.

        Raises:
            UserError: it is not; says why.
        """
        dataset = self._find(name)
        if dataset is None or not self._is_numbers(dataset):
            raise self.missing("an array", name)
        where = f"{self.path}: '{name}'"
        with self._user_errors(f"'{name}' cannot be read"):
            claimed = dataset.size * dataset.dtype.itemsize
            try:
                stored = self._stored(dataset, MAX_HOPS, itertools.count(1))
            except UserError as error:
                raise UserError(f"{where} {error}") from None
        if claimed > SMALL_BYTES and claimed > MAX_RATIO * stored:
            raise UserError(f"{where} claims {claimed:,} bytes, the file holds {stored:,}")
        return dataset

    def _stored(self, dataset: Any, hops: int, number: Iterator[int]) -> int:
        """How many bytes of the disk a dataset, or what a virtual one is made of, takes.

        Args:
            number: counts the datasets, as HDF5 opens each as often as others are made of it.
        """
        if next(number) > MAX_LINKS:
            raise UserError(f"is made of more than {MAX_LINKS:,} datasets")
        if dataset.external:
            raise UserError("has its data in another file, which is not read")
        if not dataset.is_virtual:
            self._check_filters(dataset)
            return int(dataset.id.get_storage_size())
        if hops == 0:
            raise UserError("is made of datasets that are made of each other")
        sources = {(source.file_name, source.dset_name) for source in dataset.virtual_sources()}
        parts = (self._virtual_source(dataset, *source) for source in sources)
        return sum(self._stored(part, hops - 1, number) for part in parts)

    def _virtual_source(self, dataset: Any, file: str, name: str) -> Any:
        """A dataset that a virtual one is made of: HDF5 shows zeros where it is missing."""
        source = dataset.file if file == "." else self._beside(dataset.file.filename, file)
        target = self._follow(source, f"/{name}", MAX_HOPS)
        if not isinstance(target, self._h5py.Dataset):
            raise UserError(f"is made of '{name}' in '{file}', which is not there")
        return target

    def _check_filters(self, dataset: Any) -> None:
        """Raises UserError where HDF5 could not unpack a dataset."""
        if dataset.chunks is None:
            return
        chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize
        if chunk > MAX_CHUNK:
            raise UserError(
                f"is stored in chunks of {chunk:,} bytes; at most {MAX_CHUNK:,} are read"
            )
        made = dataset.id.get_create_plist()
        for number in range(made.get_nfilters()):
            code, _, _, name = made.get_filter(number)
            if not self._h5py.h5z.filter_avail(code):
                said = name.decode("utf-8", "replace") or "no name"
                raise UserError(
                    f"is compressed by HDF5 filter {code} ({said}), which neither HDF5 nor "
                    f"hdf5plugin has here"
                )

    def _is_numbers(self, dataset: Any) -> bool:
        if dataset.shape is None:
            return False
        names = dataset.dtype.names
        return dataset.dtype.kind in "fciub" or (names is not None and names in COMPLEX)

    def _is_matlabs(self, dataset: Any) -> bool:
        return "MATLAB_class" in dataset.attrs

    @contextmanager
    def _user_errors(self, what: str) -> Iterator[None]:
        """While entered, whatever HDF5 raises becomes a UserError that names the file."""
        try:
            yield
        except (UserError, MemoryError):
            raise
        except Exception as error:
            raise UserError(f"{self.path}: {what}: {shortened(error)}") from error
