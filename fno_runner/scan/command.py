"""The commands of `python -m fno_runner.data`: look at a scan, and find its probe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fno_runner.cli import Parser, command, count_of
from fno_runner.config import BINNINGS, SIZES
from fno_runner.data.formats import read_scan
from fno_runner.data.frames import Scan
from fno_runner.data.npz import write_npz
from fno_runner.data.scan import hold_out
from fno_runner.errors import UserError
from fno_runner.scan.inspection import describe, draw, draw_fit
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

Formats, told by content: raw NPZ (diff3d, xcoords, ycoords, probeGuess), CXI, and
ptychodus products (.h5, .npz) with their diffraction file beside them.

Exit status: 0 done; 2 unusable input; 3 this machine cannot do it."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say; returns the exit status."""
    console = Console(highlight=False, soft_wrap=True)
    given = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    scan = read_scan(given.file, given.data, given.start, given.patch_size, given.bin)
    scan = orient(scan, given.orientation, given.sign)
    for remark in scan.remarks:
        print(f"note: {remark}", file=sys.stderr)
    if given.command == "inspect":
        _inspect(given, scan, console)
    else:
        _probe(given, scan, console)
    return 0


def _inspect(given: argparse.Namespace, scan: Scan, console: Console) -> None:
    table = Table(show_header=False, box=None)
    for fact in describe(scan):
        table.add_row(*fact)
    console.print(table)
    picture = given.picture or given.file.with_suffix(".png")
    draw(scan, picture)
    console.print(f"picture  {picture}", markup=False)
    if given.check_orientation:
        _check_orientation(scan, console)


def _check_orientation(scan: Scan, console: Console) -> None:
    console.print("\nshort fits of every way round the positions may be meant:", markup=False)
    found = check(scan)
    table = Table("orientation", "sign", "R of the fit", "over the best")
    for one in found:
        table.add_row(one.orientation, one.sign, f"{one.r:.4f}", f"{one.r / found[0].r:.2f}")
    console.print(table)
    best, second = found[:2]
    if scan.probe is None:
        console.print(
            "Without a probe a way and its opposite (both axes backwards) fit equally, and so do "
            "both signs.",
            markup=False,
        )
    clear = second.r / best.r >= CLEAR
    stored = best.orientation == "as-stored" and best.sign == "+"
    words = "as stored" if stored else f"--orientation={best.orientation} --sign={best.sign}"
    verdict = "clearly" if clear else "not clearly"
    console.print(
        f"best     {words}, {verdict}: the next one's residual is {second.r / best.r:.2f} times "
        f"as large ({CLEAR} is clear)",
        markup=False,
    )


def _probe(given: argparse.Namespace, scan: Scan, console: Console) -> None:
    output = given.output or given.file.with_name(f"{given.file.stem}.probe{given.modes}.npz")
    if output.exists():
        raise UserError(f"{output}: is there already; --output names another file")
    held_out, region = hold_out(scan.positions, 0)
    frames = ~(held_out | region) if given.leave_out else None

    def told(done: int, of: int, r: float) -> None:
        if done == of or done % max(1, of // 8) == 0:
            console.print(f"pass {done}/{of}: R {r:.4f}", markup=False)

    fit = reconstruct(
        scan,
        modes=given.modes,
        iterations=given.iterations,
        fit_positions=given.positions,
        frames=frames,
        on_iteration=told,
    )
    all_frames = np.ones(len(scan), bool) if frames is None else frames
    r = residual(fit, scan, all_frames)
    rate = len(scan) / fit.seconds
    console.print(f"R        {r:.4f} on the {int(all_frames.sum())} frames it was fitted to")
    if given.leave_out:
        console.print(f"R        {residual(fit, scan, held_out):.4f} on frames left out")
    power = np.square(np.abs(fit.probe)).sum(axis=(1, 2))
    shares = ", ".join(f"{100 * share:.0f} %" for share in power / power.sum())
    console.print(f"probe    {len(power)} mode{'s' * (len(power) > 1)} ({shares})", markup=False)
    console.print(f"time     {fit.seconds:.1f} s: {rate:.1f} patterns/s", markup=False)
    arrays = {
        "diff3d": scan.amplitude,
        "probeGuess": fit.probe[0] if len(fit.probe) == 1 else fit.probe,
        "objectGuess": fit.obj,
        "xcoords": fit.positions[:, 1],
        "ycoords": fit.positions[:, 0],
        "counts_held": np.array(scan.crop.counts),
        "iterative_r": np.array(r),
        "iterative_seconds": np.array(fit.seconds),
    }
    if scan.mask is not None:
        arrays["mask"] = scan.mask
    if scan.pixel_size is not None:
        arrays["pixel_size_m"] = np.array(scan.pixel_size)
    write_npz(output, arrays)
    picture = output.with_suffix(".png")
    draw_fit(fit, scan, picture)
    console.print(f"written  {output}, {picture}", markup=False)


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
    for one in (inspect, probe):
        one.add_argument("file", type=Path, metavar="FILE", help="the scan")
        one.add_argument(
            "--data",
            choices=("amplitude", "intensity"),
            help="what the frames are [what the format says]",
        )
        one.add_argument(
            "--patch-size",
            "--patch_size",
            type=int,
            choices=SIZES,
            help="side of the frames [px; the smallest that holds 99 %% of the counts]",
        )
        one.add_argument(
            "--bin",
            type=int,
            choices=BINNINGS,
            default=1,
            help="detector pixels a side that are summed to one [1]",
        )
        one.add_argument(
            "--start", metavar="ARRAY", help="take this array of the file as the probe [its own]"
        )
        one.add_argument(
            "--orientation",
            choices=ORIENTATIONS,
            default="as-stored",
            metavar="|".join(ORIENTATIONS),
            help="what is done to the positions [as-stored]",
        )
        one.add_argument("--sign", choices=SIGNS, default="+", help="of the Fourier transform [+]")
    inspect.add_argument("--picture", type=Path, metavar="PNG", help="where to draw [FILE.png]")
    inspect.add_argument(
        "--check-orientation",
        action="store_true",
        help="try the eight ways round of the positions with both signs; some seconds",
    )
    probe.add_argument("--modes", type=count_of(16), default=1, help="incoherent probe modes [1]")
    probe.add_argument(
        "--iterations",
        type=count_of(10_000),
        default=ITERATIONS,
        help=f"passes over all frames [{ITERATIONS}]",
    )
    probe.add_argument("--positions", action="store_true", help="correct the positions, too")
    probe.add_argument(
        "--leave-out",
        action="store_true",
        help="leave out the frames that training holds out (data_seed 0), and say R on them",
    )
    probe.add_argument(
        "--output", type=Path, metavar="NPZ", help="what to write [FILE.probeM.npz, new]"
    )
    return parser
