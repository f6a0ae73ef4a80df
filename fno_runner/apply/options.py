"""The options that `reconstruct` has with a network and without one, and what both say."""

from __future__ import annotations

import argparse
import logging
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, get_args

from fno_runner.apply.other_probe import other_probe
from fno_runner.apply.outputs import check_place, new_folder
from fno_runner.cli import Parser, number_where
from fno_runner.config import BINNINGS
from fno_runner.data.frames import Outline
from fno_runner.data.measured import Kind
from fno_runner.data.source import Hints
from fno_runner.data.units import OBJECT_PIXEL
from fno_runner.errors import MachineError, printable
from fno_runner.files import named

log = logging.getLogger("fno_runner")

AnyScan = TypeVar("AnyScan", bound=Outline)

NM = 1e-9
"""[m]"""
SHORTEST, LONGEST = (bound / NM for bound in OBJECT_PIXEL)
# The types of options:
positive = number_where(lambda number: 0 < number < math.inf, "a number > 0")
not_negative = number_where(lambda number: 0 <= number < math.inf, "a number ≥ 0")
pixel_width = number_where(
    lambda number: SHORTEST <= number <= LONGEST,
    f"a width in nm, {SHORTEST:g} … {LONGEST:g}",
)

FILES = """\
Written into OUT, which is new:
  object.npz     objectGuess, probeGuess, xcoords, ycoords (raw layout); object_seen, object_light;
                 frame_indexes: which frames of SCAN these are
  object.cxi     CXI 1.6: image_1, source_1/probe
  product.h5     ptychodus product, where the pixel's size is known
  phase.tif, amplitude.tif   32 bit, with the pixel's size; NaN where no light fell
  object.png     both, to look at
  reconstruction.json        R, rates, how and of which scan"""


def add_scan_options(parser: Parser) -> None:
    """SCAN, what its file means, and where the products go."""
    add = parser.add_argument
    add("scan", type=Path, metavar="SCAN", help="of any format of docs/scan-formats.md")
    add("--data", choices=get_args(Kind),
        help="what the scan's frames hold (default: what its format says)")  # fmt: skip
    add("--entry", metavar="NAME", help="which entry of the scan's file (default: the first)")
    add("-o", "--output", type=Path, metavar="OUT",
        help="a new folder; of one that is there, …-2 (default: SCAN.reconstruction)")  # fmt: skip
    add("--probe", type=Path, metavar="PATH",
        help="take this file's probe (a scan, object.npz, product.h5), or that of this model's "
        "training (default: the scan's)")  # fmt: skip
    add("--pixel-size", type=pixel_width, metavar="NM",
        help="width of the object's pixel [nm] (default: what the scan tells)")  # fmt: skip
    add("--bin", type=int, choices=BINNINGS, help="detector pixels a side that are summed to one "
        "(default: as in the network's training, without a network 1)")  # fmt: skip
    add("--device", choices=("auto", "cpu", "cuda"), default="auto",
        help="where to compute (default: auto, a GPU if there is one)")  # fmt: skip


def parsed(parser: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The options, and as `command` the whole line, for whoever wants to do it again."""
    words = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(words)
    given.command = printable(shlex.join(["python", "-m", "fno_runner.reconstruct", *words]))
    return given


def hints_of(given: argparse.Namespace) -> Hints:
    """What the user says of the file."""
    return Hints(data=given.data, entry=given.entry)


def as_told(given: argparse.Namespace, scan: AnyScan) -> AnyScan:
    """The scan with the pixel size and the probe that options give; its remarks are logged.

    Raises:
        UserError: the other probe cannot be used.
    """
    for remark in scan.remarks:
        log.warning("%s: %s", given.scan, remark)
    if given.pixel_size is not None:
        scan = replace(scan, pixel_size=given.pixel_size * NM)
    if given.probe is not None:
        scan = replace(scan, probe=other_probe(given.probe, scan))
    return scan


def wanted_folder(given: argparse.Namespace) -> Path:
    """Where the products shall go."""
    if given.output is not None:
        return Path(given.output)
    scan = named(given.scan)
    return scan.with_name(f"{scan.stem}.reconstruction")


def check_wanted(given: argparse.Namespace) -> None:
    """Find out before any work whether the products can be written.

    Raises:
        UserError: their folder has no name. MachineError: the disk refuses.
    """
    if given.output is not None:
        check_place(given.output)
    elif given.scan.exists():  # else reading it will say so
        try:
            check_place(wanted_folder(given))
        except MachineError as error:
            raise MachineError(f"{error}; --output names another place") from None


def write_new(given: argparse.Namespace, fill: Callable[[Path], Sequence[str]]) -> Path:
    """A new folder of products, told what it lacks and where it does not lie as wanted.

    Args:
        fill: writes into the folder; returns the names of what it did not write.
    """
    wanted, left_out = wanted_folder(given), list[str]()
    folder = new_folder(wanted, lambda place: left_out.extend(fill(place)))
    tell_left_out(left_out)
    if folder != wanted:
        log.warning("%s is there already and is left as it is", wanted)
    return folder


def tell_left_out(names: Sequence[str]) -> None:
    """Say which files were not written, and why."""
    if names:
        known = "no pixel size is known; --pixel-size tells it"
        log.warning("not written: %s (%s)", ", ".join(names), known)
