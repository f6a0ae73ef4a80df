"""The files that beamlines and programs write, each as a `Scan`. Detection is by content.

One small file a format, behind one interface (`format.Format`); docs/scan-formats.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fno_runner.config import SIZES
from fno_runner.data.crop import choose_size
from fno_runner.data.formats import (
    cxi,
    dp_para,
    nsls2,
    ptychodus,
    ptychodus_training,
    ptyd,
    raw_npz,
    tike,
)
from fno_runner.data.formats.format import Format, modes
from fno_runner.data.frames import Scan, bring_to_size
from fno_runner.data.measured import Measured
from fno_runner.data.recording import clean
from fno_runner.data.source import Hints, Source
from fno_runner.errors import UserError

FORMATS: tuple[Format, ...] = tuple(
    module.FORMAT
    for module in (raw_npz, cxi, ptychodus, ptychodus_training, ptyd, dp_para, tike, nsls2)
)

NONE = Hints()


@dataclass(frozen=True)
class OpenScan:
    """A scan whose frames are still in its files, which are open."""

    source: Source
    measured: Measured


@contextmanager
def open_scan(path: Path, hints: Hints = NONE) -> Iterator[OpenScan]:
    """A scan of any known format, its frames not yet read.

    Raises:
        UserError: the file is of no known format, cannot be used, or has changed meanwhile; says
            why in one line.
    """
    # Numbers that are none, or too large, are found by what checks them.
    with np.errstate(all="ignore"), Source(path, hints) as source:
        form = recognise(source)
        if hints.entry is not None and not form.entries:
            raise UserError(
                f"{path}: --entry (scan_entry) is '{hints.entry}', and {form.name} has no entries"
            )
        measured = form.read(source)
        if hints.probe is not None:
            try:
                name = source.file.needed("the probe to begin with", hints.probe)
            except UserError as error:
                raise UserError(f"{error}; it holds {source.file.tree()}") from None
            probe = modes(source.file.read(name))
            measured = replace(measured, probe=probe, probe_named=True)
        if hints.data is not None:
            measured = replace(measured, kind=hints.data, settled=True)
        yield OpenScan(source, measured)
        source.check_unchanged()


def read_scan(path: Path, hints: Hints = NONE, size: int | None = None, binning: int = 1) -> Scan:
    """A scan of any known format, checked and brought to N × N.

    Args:
        size, binning: as `bring_to_size` takes them.

    Raises:
        UserError: the file is of no known format or cannot be used; says why in one line.
    """
    with open_scan(path, hints) as opened:
        return bring_to_size(clean(opened.measured), size, binning)


def size_of_scan(path: Path, hints: Hints = NONE, binning: int = 1) -> int:
    """The size that `read_scan` brings a scan to by itself [px].

    Raises:
        UserError: the file is of no known format or cannot be used; says why in one line.
    """
    with open_scan(path, hints) as opened:
        if max(opened.measured.frames.shape[1:]) <= SIZES[0] * binning:
            return SIZES[0]  # whatever is in them: no need to read them
        return choose_size(clean(opened.measured), binning)


def fingerprint_scan(path: Path, hints: Hints = NONE) -> str:
    """What a scan's data are, 64 hex digits, whatever the file's name and place.

    A file that can be read without hints has one fingerprint whatever is said of it.

    Raises:
        UserError: the file cannot be read, with these hints or without.
    """
    try:
        with open_scan(path) as opened:
            return opened.source.fingerprint()
    except UserError:
        with open_scan(path, hints) as opened:
            return opened.source.fingerprint()


def recognise(source: Source) -> Format:
    """The format of a file.

    Raises:
        UserError: it is of none, or of several.
    """
    claiming = [form for form in FORMATS if form.claims(source)]
    if len(claiming) == 1:
        return claiming[0]
    if claiming:
        both = " and ".join(f"{form.name} ({form.wanted})" for form in claiming)
        raise UserError(f"{source.path}: could be read as {both}; it has to be one of them")
    if source.file.has("coords_offsets"):
        raise UserError(
            f"{source.path}: simulated grid lines, no scan: --train-npz and --test-npz take them"
        )
    wanted = "; ".join(f"{form.name}: {form.wanted}" for form in FORMATS)
    raise UserError(
        f"{source.path}: no scan that is known. It has {source.file.tree()}. Looked for was "
        f"{wanted}"
    )
