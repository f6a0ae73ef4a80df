"""The command `python -m fno_runner.reconstruct`: options in, files and a line out."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from fno_runner.apply.adapt import Adapted, adapt, train_from_nothing, write_adapted
from fno_runner.apply.assemble import OnFrames, assemble
from fno_runner.apply.follow import Limits, arrivals, follow, output_folder
from fno_runner.apply.live import Opening, recording_of
from fno_runner.apply.live_page import PAGE, served
from fno_runner.apply.model import TrainedModel, find_model
from fno_runner.apply.options import (
    FILES,
    AnyScan,
    add_scan_options,
    as_told,
    check_wanted,
    hints_of,
    parsed,
    positive,
    tell_left_out,
    wanted_folder,
    write_new,
)
from fno_runner.apply.outputs import write_product
from fno_runner.apply.prepared import Prepared, prepare, warm_up
from fno_runner.apply.product import Product, record_of
from fno_runner.apply.refine import refine
from fno_runner.apply.stream import Stream
from fno_runner.apply.watch import Piece
from fno_runner.cli import Parser, command, count_of
from fno_runner.data.formats import open_scan
from fno_runner.data.frames import bring_to_size, outline
from fno_runner.data.recording import clean
from fno_runner.data.scan import fingerprint_of
from fno_runner.device import pick_device
from fno_runner.errors import DivergedError, UserError, printable
from fno_runner.terminal import log_to_terminal

log = logging.getLogger("fno_runner")

DESCRIPTION = f"""\
Reconstruct a scan with a network that was trained before.

  python -m fno_runner.reconstruct STUDY scan.npz       the study's recommended network
  python -m fno_runner.reconstruct STUDY/runs/0123456789ab scan.cxi -o OUT
  python -m fno_runner.reconstruct STUDY scan.npz --refine 5 --compare
  python -m fno_runner.reconstruct STUDY scan.npz --adapt 3
  python -m fno_runner.reconstruct STUDY scan.h5 --watch       while it is being written
  python -m fno_runner.reconstruct --iterative scan.npz        without a network
  python -m fno_runner.reconstruct --iterative --help          … and the options of that

{FILES}"""

EPILOG = """\
R = Σ|predicted − measured| / Σ measured amplitude, over all frames.

Exit status: 0 done; 1 a prediction is no number; 2 unusable input; 3 this machine cannot do it;
128 + signal when stopped (with --watch the files are whole, and the same command goes on)."""


WAIT_S, IDLE_S = 60.0, 30.0
"""Of a scan that is watched: for its first frame, and without a new one [s]."""
GOES_WITH = {
    **dict.fromkeys(("wait", "idle", "frames", "serve"), ("watch",)),
    **dict.fromkeys(("refine_probe", "refine_positions"), ("refine",)),
    "adapt_layers": ("adapt",),
    "compare": ("refine", "adapt"),
}
"""An option -> those of which one has to be there, as it says nothing without them."""
WHOLE = ("refine", "adapt")
"""Options for which all frames have to be there; so have those that go with them."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say; returns the exit status."""
    given = parsed(_parser(), argv)
    _check(given)
    check_wanted(given)
    log_to_terminal()
    try:
        model = find_model(given.model)
        given.bin = given.bin or model.config.bin
        if given.watch:
            return _watch(given, model)
        _reconstruct(given, model)
    except DivergedError as error:
        print(f"error: {given.model}: {error}", file=sys.stderr)
        return 1
    return 0


def _reconstruct(given: argparse.Namespace, model: TrainedModel) -> None:
    start = perf_counter()
    adapted = None
    with _streamed(given, model) as (stream, fingerprint):
        prepared = _prepared(given, model, stream)
        if given.adapt is not None:
            adapted = _adapt(given, prepared)
            prepared = replace(prepared, network=adapted.network)
        with _frames_bar(len(stream)) as on_frames:
            made = assemble(prepared, on_frames)
        record = record_of(
            prepared,
            command=given.command,
            r=made.r,
            r_own=made.r_own,
            inference_s=made.seconds,
            frames_per_s=len(stream) / made.seconds,
        )
        if adapted is not None:
            record["adapted"] = {
                "layers": adapted.layers,
                "best_epoch": adapted.best,
                "r_held_out": adapted.r,
                "seconds": adapted.seconds,
            }
        title = f"{printable(given.scan.name)}, by {model.name}"
        product = Product(made.obj, made.seen, made.weight, stream.scan, title, record)
        if given.refine is not None:
            product = refine(
                prepared,
                product,
                given.refine,
                probe=given.refine_probe,
                positions=given.refine_positions,
                compare=given.compare,
            )

    def fill(place: Path) -> list[str]:
        left_out = write_product(product, place)
        if adapted is not None:
            hints, network = hints_of(given), place / "network"
            write_adapted(adapted, prepared, given.scan, hints, fingerprint, network)
        return left_out

    folder = write_new(given, fill)
    seconds = perf_counter() - start
    # With a training or a fit in it, the time is no rate of frames.
    plain = given.adapt is None and given.refine is None
    rate = f": {len(stream) / seconds:.0f} frames/s" if plain else ""
    print(
        f"R {product.record['r']:.4f} of the object, {product.record['r_own']:.4f} of each frame's "
        f"own answer · {len(stream)} frames in {seconds:.2f} s{rate} · {folder}"
    )


def _watch(given: argparse.Namespace, model: TrainedModel) -> int:
    """Follow a scan in progress; the exit status, which is a signal's where that ended it."""

    def begin(pieces: list[Piece]) -> Opening:
        recording = recording_of(pieces)
        scan = bring_to_size(recording, model.config.size, given.bin)
        scan = _with_probe(given, model, scan)
        prepared = _prepared(given, model, Stream.of(scan))
        keys = [piece.key for piece in pieces]
        return Opening(recording, scan, prepared, keys, given.command)

    limits = Limits(given.wait or WAIT_S, given.idle or IDLE_S, given.frames)
    title = f"{printable(given.scan.name)}, by {model.name}"
    warm_up(model, pick_device(given.device))
    source = arrivals(given.scan, hints_of(given))
    with (
        output_folder(wanted_folder(given)) as (folder, kept),
        served(folder, given.serve) as address,
    ):
        log.info("watching %s; the page is %s", given.scan, address or folder / PAGE)
        watched = follow(source, begin, folder, kept, limits, title)
    tell_left_out(watched.left_out)
    r = "" if watched.r_own is None else f"R {watched.r_own:.4f} of each frame's own answer · "
    print(f"{r}{watched.frames} frames · {watched.state} · {folder}")
    return 128 + watched.signal if watched.signal else 0


def _prepared(given: argparse.Namespace, model: TrainedModel, stream: Stream) -> Prepared:
    return prepare(
        model,
        stream,
        pick_device(given.device),
        infer_batch_size=given.infer_batch_size,
        any_probe=given.any_probe,
    )


def _adapt(given: argparse.Namespace, prepared: Prepared) -> Adapted:
    """Train the network on, and say what came of it."""
    adapted = adapt(prepared, given.adapt, given.adapt_layers or "all")
    best = adapted.best
    log.info(
        "adapted: R of held-out frames %.4f, before %.4f; %s",
        adapted.r[best],
        adapted.r[0],
        f"epoch {best} is kept, {adapted.seconds[best]:.1f} s" if best else "left as it was",
    )
    if given.compare:
        log.info("the same network from nothing, %d epochs:", prepared.model.config.epochs)
        other = train_from_nothing(prepared)
        goal, took = other.r[other.best], other.seconds[other.best]
        pairs = zip(adapted.r, adapted.seconds, strict=True)
        reached = next((seconds for r, seconds in pairs if r <= goal), None)
        words = "does not reach it" if reached is None else f"reaches it in {reached:.1f} s"
        log.info("from nothing R %.4f in %.1f s; adapting %s", goal, took, words)
    return adapted


@contextmanager
def _streamed(given: argparse.Namespace, model: TrainedModel) -> Iterator[tuple[Stream, str]]:
    """The scan's frames, still in its file, and its fingerprint; its remarks are logged.

    Raises:
        UserError: it cannot be used.
    """
    with open_scan(given.scan, hints_of(given)) as opened:
        recording = clean(opened.measured)
        scan = _with_probe(given, model, outline(recording, model.config.size, given.bin))
        fingerprint = fingerprint_of(opened, scan.crop)
        if model.record.provenance.get("dataset") == fingerprint:
            log.warning("%s: the network was trained on frames of this scan", given.scan)
        yield Stream.reading(scan, recording), fingerprint


def _with_probe(given: argparse.Namespace, model: TrainedModel, scan: AnyScan) -> AnyScan:
    """The scan with the pixel size and the probe that options give; its remarks are logged.

    Raises:
        UserError: it has no probe, or not that one.
    """
    scan = as_told(given, scan)
    if scan.probe is None:
        raise UserError(
            f"{given.scan}: has no probe; --probe FILE takes another file's, --probe {given.model} "
            f"that of the training, and python -m fno_runner.data probe finds one"
        )
    return scan


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
    add_scan_options(parser)
    add("--any-probe", action="store_true",
        help="use a network that sees amplitudes only with any probe")  # fmt: skip
    add("--refine", type=count_of(10_000), metavar="PASSES",
        help="go on from the network's object with the fit without a network")  # fmt: skip
    add("--refine-probe", action="store_true", help="… and fit the probe, too")
    add("--refine-positions", action="store_true", help="… and fit the positions, too")
    add("--adapt", type=count_of(10_000), metavar="EPOCHS",
        help="train the network on, without labels, on this scan; kept in OUT/network")  # fmt: skip
    add("--adapt-layers", choices=("all", "last"),
        help="… which layers: all, or those after the Fourier blocks (default: all)")  # fmt: skip
    add("--compare", action="store_true",
        help="do the same without the network as well, and say what it saves")  # fmt: skip
    add("--watch", action="store_true", help="SCAN is still being written: an HDF5 file in SWMR "
        "mode, or a folder of files")  # fmt: skip
    add("--wait", type=positive, metavar="S",
        help=f"… wait so long for its first frame [s] (default: {WAIT_S:g})")  # fmt: skip
    add("--idle", type=positive, metavar="S",
        help=f"… it has ended when so long no frame came [s] (default: {IDLE_S:g})")  # fmt: skip
    add("--frames", type=count_of(), metavar="F",
        help="… it has so many frames (default: what it declares)")  # fmt: skip
    add("--serve", type=count_of(65535), metavar="PORT",
        help="… show the page to browsers of this machine, http://127.0.0.1:PORT")  # fmt: skip
    add("--infer-batch-size", type=count_of(2**20), metavar="B",
        help="frames that the network works on at a time (default: as the run "
        "had it)")  # fmt: skip
    return parser


def _check(given: argparse.Namespace) -> None:
    """
    Raises:
        UserError: options that do not go together.
    """
    for option, others in GOES_WITH.items():
        needed = " or ".join(_named(other) for other in others)
        if getattr(given, option) and not any(getattr(given, other) for other in others):
            raise UserError(f"{_named(option)} goes with {needed}")
    for option in WHOLE if given.watch else ():
        if getattr(given, option):
            raise UserError(f"{_named(option)} needs a whole scan, not --watch")


def _named(option: str) -> str:
    return f"--{option.replace('_', '-')}"
