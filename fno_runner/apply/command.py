"""The command `python -m fno_runner.reconstruct`: options in, files and a line out."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from fno_runner.apply.adapt import Adapted, adapt, train_from_nothing, write_adapted
from fno_runner.apply.assemble import OnFrames, assemble
from fno_runner.apply.follow import Limits, arrivals, follow, output_folder
from fno_runner.apply.live import Opening
from fno_runner.apply.live_page import PAGE, served
from fno_runner.apply.model import TrainedModel, find_model
from fno_runner.apply.outputs import new_folder, write_product
from fno_runner.apply.prepared import Prepared, prepare
from fno_runner.apply.product import Product, record_of
from fno_runner.apply.refine import refine
from fno_runner.apply.stream import Stream
from fno_runner.apply.watch import Piece
from fno_runner.cli import Parser, command, count_of
from fno_runner.config import BINNINGS
from fno_runner.data.formats import open_scan, read_scan
from fno_runner.data.frames import Scan, bring_to_size
from fno_runner.data.recording import clean
from fno_runner.data.scan import fingerprint_of
from fno_runner.data.source import Hints
from fno_runner.device import pick_device
from fno_runner.errors import DivergedError, UserError
from fno_runner.terminal import log_to_terminal

log = logging.getLogger("fno_runner")

DESCRIPTION = """\
Reconstruct a scan with a network that was trained before.

  python -m fno_runner.reconstruct STUDY scan.npz       the study's recommended network
  python -m fno_runner.reconstruct STUDY/runs/0123456789ab scan.cxi -o OUT
  python -m fno_runner.reconstruct STUDY scan.npz --refine 5 --compare
  python -m fno_runner.reconstruct STUDY scan.npz --adapt 3
  python -m fno_runner.reconstruct STUDY scan.h5 --watch       while it is being written

Written into OUT, which is new:
  object.npz     objectGuess, probeGuess, xcoords, ycoords (raw layout); object_seen, object_light
  object.cxi     CXI 1.6: image_1, source_1/probe
  product.h5     ptychodus product, where the pixel's size is known
  phase.tif, amplitude.tif   32 bit, with the pixel's size; NaN where no light fell
  object.png     both, to look at
  reconstruction.json        R, rates, which network and which scan"""

EPILOG = """\
R = Σ|predicted − measured| / Σ measured amplitude, over all frames.

Exit status: 0 done; 1 a prediction is no number; 2 unusable input; 3 this machine cannot do it."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say; returns the exit status."""
    given = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    _check(given)
    log_to_terminal()
    try:
        if given.watch:
            return _watch(given)
        _reconstruct(given)
    except DivergedError as error:
        print(f"error: {given.model}: {error}", file=sys.stderr)
        return 1
    return 0


def _reconstruct(given: argparse.Namespace) -> None:
    model = find_model(given.model)
    start = perf_counter()
    scan, fingerprint = _scan(given, model)
    prepared = prepare(
        model,
        Stream.of(scan),
        pick_device(given.device),
        infer_batch_size=given.infer_batch_size,
        any_probe=given.any_probe,
    )
    adapted = None
    if given.adapt is not None:
        adapted = _adapt(given, prepared)
        prepared = replace(prepared, network=adapted.network)
    with _frames_bar(len(scan)) as on_frames:
        product = reconstruct(prepared, f"{given.scan.name}, by {model.name}", on_frames)
    if adapted is not None:
        told = {"layers": given.adapt_layers, "best_epoch": adapted.best}
        told |= {"r_held_out": adapted.r, "seconds": adapted.seconds}
        product.record["adapted"] = told
    if given.refine is not None:
        product = refine(
            prepared,
            product,
            given.refine,
            probe=given.refine_probe,
            positions=given.refine_positions,
            compare=given.compare,
        )
    left_out: list[str] = []
    wanted = _wanted(given)

    def fill(place: Path) -> None:
        left_out.extend(write_product(product, place))
        if adapted is not None:
            place = place / "network"
            write_adapted(
                adapted,
                prepared,
                given.scan,
                _hints(given),
                fingerprint,
                given.adapt_layers,
                place,
            )

    folder = new_folder(wanted, fill)
    seconds = perf_counter() - start
    if left_out:
        _tell_left_out(left_out)
    if folder != wanted:
        log.warning("%s is there already and is left as it is", wanted)
    # With a training or a fit in it, the time is no rate of frames.
    plain = given.adapt is None and given.refine is None
    rate = f": {len(scan) / seconds:.0f} frames/s" if plain else ""
    print(
        f"R {product.record['r']:.4f} of the object, {product.record['r_own']:.4f} of each frame's "
        f"own answer · {len(scan)} frames in {seconds:.2f} s{rate} · {folder}"
    )


def _watch(given: argparse.Namespace) -> int:
    """Follow a scan in progress; the exit status, which is a signal's where that ended it."""
    model = find_model(given.model)
    binning = model.config.bin if given.bin is None else given.bin

    def prepared(scan: Scan) -> Prepared:
        return prepare(
            model,
            Stream.of(scan),
            pick_device(given.device),
            infer_batch_size=given.infer_batch_size,
            any_probe=given.any_probe,
        )

    def begin(pieces: list[Piece]) -> Opening:
        return Opening.of(
            pieces, model, binning, lambda scan: _as_told(given, model, scan), prepared
        )

    limits = Limits(given.wait, given.idle, given.frames)
    title = f"{given.scan.name}, by {model.name}"
    source = arrivals(given.scan, _hints(given))
    with output_folder(_wanted(given)) as (folder, kept), served(folder, given.serve) as address:
        log.info("watching %s; the page is %s", given.scan, address or folder / PAGE)
        watched = follow(source, begin, folder, kept, limits, title)
    if watched.left_out:
        _tell_left_out(watched.left_out)
    r = "" if watched.r_own is None else f"R {watched.r_own:.4f} of each frame's own answer · "
    print(f"{r}{watched.frames} frames · {watched.state} · {folder}")
    return 128 + watched.signal if watched.signal else 0


def _wanted(given: argparse.Namespace) -> Path:
    scan: Path = given.scan
    return given.output or scan.with_name(f"{scan.stem}.reconstruction")


def _tell_left_out(names: Sequence[str]) -> None:
    known = "no pixel size is known; --pixel-size tells it"
    log.warning("not written: %s (%s)", ", ".join(names), known)


def _adapt(given: argparse.Namespace, prepared: Prepared) -> Adapted:
    """Train the network on, and say what came of it."""

    def told(epoch: int, r: float) -> None:
        log.info("epoch %d: R of held-out frames %.4f", epoch, r)

    adapted = adapt(prepared, given.adapt, given.adapt_layers, on_epoch=told)
    best = adapted.best
    log.info(
        "adapted: R of held-out frames %.4f, before %.4f; %s",
        adapted.r[best],
        adapted.r[0],
        f"epoch {best} is kept, {adapted.seconds[best]:.1f} s" if best else "left as it was",
    )
    if given.compare:
        log.info("the same network from nothing, %d epochs:", prepared.model.config.epochs)
        other = train_from_nothing(prepared, on_epoch=told)
        goal, took = other.r[other.best], other.seconds[other.best]
        pairs = zip(adapted.r, adapted.seconds, strict=True)
        reached = next((seconds for r, seconds in pairs if r <= goal), None)
        words = "does not reach it" if reached is None else f"reaches it in {reached:.1f} s"
        log.info("from nothing R %.4f in %.1f s; adapting %s", goal, took, words)
    return adapted


def reconstruct(prepared: Prepared, title: str, on_frames: OnFrames | None = None) -> Product:
    """The object of a whole scan.

    Raises:
        DivergedError: a prediction is not a finite number.
    """
    stream = prepared.stream
    made = assemble(
        prepared.network,
        stream,
        prepared.scale,
        prepared.device,
        prepared.infer_batch_size,
        on_frames,
    )
    scan = stream.scan
    assert scan.probe is not None
    return Product(
        obj=made.obj,
        seen=made.seen,
        weight=made.weight,
        probe=scan.probe,
        positions=scan.positions,
        pixel_size=scan.pixel_size,
        energy=None,
        distance=None,
        title=title,
        record=record_of(
            prepared,
            r=made.r,
            r_own=made.r_own,
            inference_s=made.seconds,
            frames_per_s=len(stream) / made.seconds,
        ),
    )


def _scan(given: argparse.Namespace, model: TrainedModel) -> tuple[Scan, str]:
    """The scan with a probe and its fingerprint, told what is remarkable about it.

    Raises:
        UserError: it cannot be used.
    """
    binning = model.config.bin if given.bin is None else given.bin
    hints = _hints(given)
    with open_scan(given.scan, hints) as opened:
        scan = bring_to_size(clean(opened.measured), model.config.size, binning)
        fingerprint = fingerprint_of(opened, scan.crop, hints)
    scan = _as_told(given, model, scan)
    if model.record.provenance.get("dataset") == fingerprint:
        log.warning("%s: the network was trained on frames of this scan", given.scan)
    return scan, fingerprint


def _as_told(given: argparse.Namespace, model: TrainedModel, scan: Scan) -> Scan:
    """The scan with what the options say of it, told what is remarkable about it.

    Raises:
        UserError: it has no probe, or not that one.
    """
    for remark in scan.remarks:
        log.warning("%s: %s", given.scan, remark)
    if given.probe is not None:
        scan = replace(scan, probe=_probe(given.probe, scan))
    if scan.probe is None:
        raise UserError(
            f"{given.scan}: has no probe; --probe FILE takes another file's, --probe {given.model} "
            f"that of the training, and python -m fno_runner.data probe finds one"
        )
    if given.pixel_size is not None:
        scan = replace(scan, pixel_size=given.pixel_size * 1e-9)
    return scan


def _hints(given: argparse.Namespace) -> Hints:
    return Hints(data=given.data, entry=given.entry)


def _probe(path: Path, scan: Scan) -> np.ndarray:
    """The probe of another file, or the one that a model was trained with.

    Raises:
        UserError: there is none, or it is of another size.
    """
    probe = find_model(path).training_probe() if path.is_dir() else read_scan(path).probe
    if probe is None:
        raise UserError(f"{path}: has no probe")
    if probe.shape[1:] != scan.amplitude.shape[1:]:
        sides = f"{probe.shape[1]} px, the frames have {scan.amplitude.shape[1]}"
        raise UserError(f"{path}: its probe has {sides}")
    return probe


@contextmanager
def _frames_bar(frames: int) -> Iterator[OnFrames]:
    """A bar on a terminal; nothing where there is none."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed}/{task.total} frames"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task("reconstructing", total=frames)
        yield lambda some: bar.advance(task, some)


def _parser() -> Parser:
    parser = Parser("python -m fno_runner.reconstruct", DESCRIPTION, EPILOG)
    add = parser.add_argument
    add(
        "model",
        type=Path,
        metavar="MODEL",
        help="a run's folder; a study's: its recommended configuration, the seed best on "
        "validation; or an exported model's",
    )
    add("scan", type=Path, metavar="SCAN", help="of any format of docs/scan-formats.md")
    add("--data", choices=("amplitude", "intensity"),
        help="what the scan's frames hold [what its format says]")  # fmt: skip
    add("--entry", metavar="NAME", help="which entry of the scan's file [the first]")
    add("-o", "--output", type=Path, metavar="OUT", help="folder [SCAN.reconstruction, new]")
    add("--probe", type=Path, metavar="PATH",
        help="take this file's probe, or that of this model's training [the scan's]")  # fmt: skip
    add("--any-probe", action="store_true",
        help="use a network that sees amplitudes only with any probe")  # fmt: skip
    add("--refine", type=count_of(10_000), metavar="PASSES",
        help="go on from the network's object with the fit without a network")  # fmt: skip
    add("--refine-probe", action="store_true", help="… of the probe, too")
    add("--refine-positions", action="store_true", help="… of the positions, too")
    add("--adapt", type=count_of(10_000), metavar="EPOCHS",
        help="train the network on, without labels, on this scan; kept in OUT/network")  # fmt: skip
    add("--adapt-layers", choices=("all", "last"), default="all",
        help="which ones: all, or those after the Fourier blocks [all]")  # fmt: skip
    add("--compare", action="store_true",
        help="do the same without the network as well, and say what it saves")  # fmt: skip
    add("--watch", action="store_true", help="SCAN is still being written: an HDF5 file in SWMR "
        "mode, or a folder of files")  # fmt: skip
    add("--wait", type=_positive, default=60.0, metavar="S",
        help="… for its first frame so long [60 s]")  # fmt: skip
    add("--idle", type=_positive, default=30.0, metavar="S",
        help="… without a new frame, after which it has ended [30 s]")  # fmt: skip
    add("--frames", type=count_of(), metavar="F", help="… it has so many [what it declares]")
    add("--serve", type=count_of(65535), metavar="PORT",
        help="… show the page to browsers of this machine, http://127.0.0.1:PORT")  # fmt: skip
    add("--pixel-size", type=_positive, metavar="NM",
        help="of the object [what the scan tells]")  # fmt: skip
    add("--bin", type=int, choices=BINNINGS, help="detector pixels a side that are summed to one "
        "[as in the training]")  # fmt: skip
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="[auto]")
    add("--infer-batch-size", type=count_of(2**20), metavar="B",
        help="frames a slice [the network's]")  # fmt: skip
    return parser


def _check(given: argparse.Namespace) -> None:
    """
    Raises:
        UserError: options that do not go together.
    """
    whole = ("refine", "refine_probe", "refine_positions", "adapt", "compare")
    for name in whole if given.watch else ("serve", "frames"):
        if getattr(given, name):
            option = f"--{name.replace('_', '-')}"
            why = "needs a whole scan, not --watch" if given.watch else "goes with --watch"
            raise UserError(f"{option} {why}")


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}': allowed is a number > 0")
    return number
