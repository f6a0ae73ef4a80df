"""The commands of `python -m fno_runner.data`: look at a scan, and find its probe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from rich.console import Console
from rich.table import Table

from fno_runner.cli import Parser, command, count_of
from fno_runner.config import BINNINGS, SIZES
from fno_runner.data.formats import raw_npz, read_scan
from fno_runner.data.frames import Scan
from fno_runner.data.measured import Kind
from fno_runner.data.npz import write_npz
from fno_runner.data.scan import hold_out
from fno_runner.data.source import Hints
from fno_runner.errors import MachineError, UserError
from fno_runner.files import make_folder, named
from fno_runner.scan.inspection import describe, draw, draw_fit, is_drawn, modes_in_words
from fno_runner.scan.iterative import ITERATIONS, reconstruct, residual
from fno_runner.scan.orientation import ORIENTATIONS, SIGNS, check, orient

CLEAR = 1.3
"""The best way round is believed where the next one's residual is larger by this factor."""

DESCRIPTION = """\
Look at an experimental scan, and reconstruct it without a network.

  python -m fno_runner.data inspect scan.cxi
  python -m fno_runner.data inspect scan.cxi --check-orientation
  python -m fno_runner.data probe scan.cxi --modes 2 --positions
  python -m fno_runner.data probe scan.npz --start probeAnalytic --leave-out
  python -m fno_runner --scan scan.probe2.npz

Formats, told by content: raw NPZ of PtychoPINN, CXI and NXcxi_ptycho, ptychodus products and
training data, ptyd, pty-chi's pair, tike, NSLS-II's diffamp (docs/scan-formats.md). What is written
goes beside the file; where that folder is read-only, --output names another place.

Exit status: 0 done; 2 unusable input; 3 this machine cannot do it."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say; returns the exit status."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    given = _parser().parse_args(argv)
    output = _output(given)
    hints = Hints(data=given.data, entry=given.entry, probe=given.start)
    scan = read_scan(given.file, hints, given.patch_size, given.bin)
    scan = orient(scan, given.orientation, given.sign)
    for remark in scan.remarks:
        print(f"note: {remark}", file=sys.stderr)
    if given.command == "inspect":
        _inspect(given, scan, output, console)
    else:
        assert output is not None
        _probe(given, scan, output, console)
    return 0


def _output(given: argparse.Namespace) -> Path | None:
    """Where to write, found out before any work; None where a picture can go nowhere by itself.

    Raises:
        UserError: what is there already was not drawn by an inspection, or belongs to a fit.
        MachineError: the folder cannot be written to.
    """
    inspects = given.command == "inspect"
    beside = f"{given.file.stem}.{'png' if inspects else f'probe{given.modes}.npz'}"
    output: Path = given.output or named(given.file).with_name(beside)
    for path in (output,) if inspects else (output, _picture(output)):
        if path.exists() and not (inspects and is_drawn(path)):
            there = f"{path}: is there already"
            if inspects and given.output is None:
                _tell_of_no_picture(there)
                return None
            raise UserError(f"{there}; --output names another file")
    if given.output is None and not given.file.exists():
        return output  # which reading it will say
    try:
        make_folder(output.parent)
    except MachineError as error:
        if given.output is not None:
            raise
        if not inspects:
            raise MachineError(f"{error}; --output names another file") from None
        _tell_of_no_picture(str(error))
        return None
    return output


def _tell_of_no_picture(why: str) -> None:
    print(f"note: no picture is drawn: {why}; --output names another place", file=sys.stderr)


def _picture(output: Path) -> Path:
    """What the fit that is written to this file is drawn in."""
    return output.with_name(f"{output.name.removesuffix('.npz')}.png")


def _inspect(given: argparse.Namespace, scan: Scan, picture: Path | None, console: Console) -> None:
    table = Table(show_header=False, box=None)
    for fact in describe(scan):
        table.add_row(*fact)
    console.print(table)
    if picture is not None:
        draw(scan, picture)
        console.print(f"picture  {picture}")
    if given.check_orientation:
        _check_orientation(scan, console)


def _check_orientation(scan: Scan, console: Console) -> None:
    console.print("\nshort fits of every way round the positions may be meant:")
    candidates = check(scan)
    best, second = candidates[:2]
    table = Table("orientation", "sign", "R of the fit", "over the best")
    for way in candidates:
        table.add_row(way.orientation, way.sign, f"{way.r:.4f}", f"{way.r / best.r:.2f}")
    console.print(table)
    if scan.probe is None:
        console.print(
            "Without a probe a way and its opposite (both axes backwards) fit equally, and so do "
            "both signs."
        )
    clear = second.r / best.r >= CLEAR
    stored = best.orientation == "as-stored" and best.sign == "+"
    words = "as stored" if stored else f"--orientation={best.orientation} --sign={best.sign}"
    verdict = "clearly" if clear else "not clearly"
    console.print(
        f"best     {words}, {verdict}: the next one's residual is {second.r / best.r:.2f} times "
        f"as large ({CLEAR} is clear)"
    )


def _probe(given: argparse.Namespace, scan: Scan, output: Path, console: Console) -> None:
    held_out, region = hold_out(scan.positions, 0)
    frames = ~(held_out | region) if given.leave_out else np.ones(len(scan), bool)

    def told(done: int, of: int, r: float) -> None:
        if done == of or done % max(1, of // 8) == 0:
            console.print(f"pass {done}/{of}: R {r:.4f}")

    fit = reconstruct(
        scan,
        modes=given.modes,
        iterations=given.iterations,
        fit_positions=given.positions,
        frames=frames,
        on_iteration=told,
    )
    r = residual(fit, scan, frames)
    console.print(f"R        {r:.4f} on the {int(frames.sum())} frames it was fitted to")
    if given.leave_out:
        console.print(f"R        {residual(fit, scan, held_out):.4f} on frames left out")
    console.print(f"probe    {modes_in_words(fit.probe)}")
    rate = len(scan) / fit.seconds
    console.print(f"time     {fit.seconds:.1f} s: {rate:.1f} patterns/s")
    arrays = {
        "diff3d": scan.amplitude,
        **raw_npz.arrays_of(fit.fitted(scan), fit.obj),
        "counts_held": np.array(scan.crop.counts),
        "iterative_r": np.array(r),
        "iterative_seconds": np.array(fit.seconds),
    }
    if scan.mask is not None:
        arrays["mask"] = scan.mask
    write_npz(output, arrays)
    picture = _picture(output)
    draw_fit(fit, scan, picture)
    console.print(f"written  {output}, {picture}")


def _parser() -> Parser:
    parser = Parser("python -m fno_runner.data", DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="inspect|probe")
    inspect = commands.add_parser(
        "inspect", description="Print what a file holds, and draw it beside the file."
    )
    probe = commands.add_parser(
        "probe",
        description="Fit probe and object to a scan by gradient descent, and write both, with the "
        "frames,\nas a raw NPZ that python -m fno_runner --scan takes.",
    )
    for add in (inspect.add_argument, probe.add_argument):
        add("file", type=Path, metavar="FILE", help="the scan")
        add("--data", choices=get_args(Kind),
            help="what the frames hold (default: what the format says)")  # fmt: skip
        add("--entry", metavar="NAME",
            help="which of several scans in the file (default: the first)")  # fmt: skip
        add("--patch-size", "--patch_size", type=int, choices=SIZES, help="side of the frames "
            "[px] (default: the smallest that holds 99 %% of the counts)")  # fmt: skip
        add("--bin", type=int, choices=BINNINGS, default=1,
            help="detector pixels a side that are summed to one (default: 1)")  # fmt: skip
        add("--start", metavar="ARRAY",
            help="take this array of the file as the probe (default: its own)")  # fmt: skip
        add("--orientation", choices=ORIENTATIONS, default="as-stored",
            metavar="|".join(ORIENTATIONS), help="what is done to the positions "
            "(default: as-stored)")  # fmt: skip
        add("--sign", choices=SIGNS, default="+", help="sign of the Fourier transform (default: +)")
    add = inspect.add_argument
    add("--output", "--picture", type=Path, metavar="PNG",
        help="where to draw (default: FILE.png, beside it)")  # fmt: skip
    add("--check-orientation", action="store_true",
        help="try the eight ways round of the positions with both signs; some seconds")  # fmt: skip
    add = probe.add_argument
    add("--modes", type=count_of(16), default=1, help="incoherent probe modes (default: 1)")
    add("--iterations", type=count_of(10_000), default=ITERATIONS,
        help=f"passes over all frames (default: {ITERATIONS})")  # fmt: skip
    add("--positions", action="store_true", help="correct the positions, too")
    add("--leave-out", action="store_true",
        help="leave out the frames that training holds out (data_seed 0), and say R on "
        "them")  # fmt: skip
    add("--output", type=Path, metavar="NPZ",
        help="what to write, which must be new (default: FILE.probeM.npz)")  # fmt: skip
    return parser
