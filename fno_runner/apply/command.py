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

from fno_runner.apply.assemble import OnFrames, assemble
from fno_runner.apply.model import TrainedModel, find_model
from fno_runner.apply.outputs import new_folder, write_product
from fno_runner.apply.prepared import Prepared, prepare
from fno_runner.apply.product import Product, record_of
from fno_runner.apply.stream import Stream
from fno_runner.cli import Parser, command, count_of
from fno_runner.config import BINNINGS
from fno_runner.data.formats import fingerprint_scan, read_scan
from fno_runner.data.frames import Scan
from fno_runner.device import pick_device
from fno_runner.errors import DivergedError, UserError
from fno_runner.terminal import log_to_terminal

log = logging.getLogger("fno_runner")

DESCRIPTION = """\
Reconstruct a scan with a network that was trained before.

  python -m fno_runner.reconstruct STUDY scan.npz       the study's recommended network
  python -m fno_runner.reconstruct STUDY/runs/0123456789ab scan.cxi -o OUT

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
    log_to_terminal()
    try:
        _reconstruct(given)
    except DivergedError as error:
        print(f"error: {given.model}: {error}", file=sys.stderr)
        return 1
    return 0


def _reconstruct(given: argparse.Namespace) -> None:
    model = find_model(given.model)
    start = perf_counter()
    scan = _scan(given, model)
    prepared = prepare(
        model,
        Stream.of(scan),
        pick_device(given.device),
        infer_batch_size=given.infer_batch_size,
        any_probe=given.any_probe,
    )
    with _frames_bar(len(scan)) as on_frames:
        product = reconstruct(prepared, f"{given.scan.name}, by {model.name}", on_frames)
    left_out: list[str] = []
    wanted = given.output or given.scan.with_name(f"{given.scan.stem}.reconstruction")
    folder = new_folder(wanted, lambda place: left_out.extend(write_product(product, place)))
    seconds = perf_counter() - start
    if left_out:
        names = ", ".join(left_out)
        log.warning("not written: %s (no pixel size is known; --pixel-size tells it)", names)
    if folder != wanted:
        log.warning("%s is there already and is left as it is", wanted)
    print(
        f"R {product.record['r']:.4f} of the object, {product.record['r_own']:.4f} of each frame's "
        f"own answer · {len(scan)} frames in {seconds:.2f} s: {len(scan) / seconds:.0f} frames/s · "
        f"{folder}"
    )


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


def _scan(given: argparse.Namespace, model: TrainedModel) -> Scan:
    """The scan with a probe, and told what is remarkable about it.

    Raises:
        UserError: it cannot be used.
    """
    binning = model.config.bin if given.bin is None else given.bin
    scan = read_scan(given.scan, size=model.config.size, binning=binning)
    for remark in scan.remarks:
        log.warning("%s: %s", given.scan, remark)
    if given.probe is not None:
        scan = replace(scan, probe=_probe(given.probe, scan))
    if scan.probe is None:
        raise UserError(
            f"{given.scan}: has no probe; --probe FILE takes another file's, --probe {given.model} "
            f"that of the training, and python -m fno_runner.data probe finds one"
        )
    if model.record.provenance.get("dataset") == fingerprint_scan(given.scan)[:32]:
        log.warning("%s: the network was trained on frames of this scan", given.scan)
    if given.pixel_size is not None:
        scan = replace(scan, pixel_size=given.pixel_size * 1e-9)
    return scan


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
    add("scan", type=Path, metavar="SCAN", help="NPZ, CXI, ptychodus product")
    add("-o", "--output", type=Path, metavar="OUT", help="folder [SCAN.reconstruction, new]")
    add("--probe", type=Path, metavar="PATH",
        help="take this file's probe, or that of this model's training [the scan's]")  # fmt: skip
    add("--any-probe", action="store_true",
        help="use a network that sees amplitudes only with any probe")  # fmt: skip
    add("--pixel-size", type=_positive, metavar="NM",
        help="of the object [what the scan tells]")  # fmt: skip
    add("--bin", type=int, choices=BINNINGS, help="detector pixels a side that are summed to one "
        "[as in the training]")  # fmt: skip
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="[auto]")
    add("--infer-batch-size", type=count_of(2**20), metavar="B",
        help="frames a slice [the network's]")  # fmt: skip
    return parser


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}': allowed is a number > 0")
    return number
