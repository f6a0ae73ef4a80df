"""A network against a fit without one: quality against wall time, at equal knowledge.

    python -m benchmarks.race SCAN [--draws D] [--everything] [--share S] [--photons P]
    python -m benchmarks.race simulated [--draws D] [--overlap O] [--photons P] [--frames F]
    python -m benchmarks.race map SCAN --output OUT [--only WORDS]
        [--timings | --own | --others | --hindsight | --draw]

Every side gets the same frames and the same probe, and is judged by frames that none gets: R =
Σ|predicted − measured| / Σ measured, as its object predicts them. With --everything all get all
frames and are judged by them. The sides take turns; times are medians. Of several draws R has its
mean and 95 % interval, a time its median and range. OUT gets race.json, race.csv, race.png and
race.md. The map goes on where it stopped; its qualities may be made on a busy machine, its times
(--timings) may not.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import pty_chi
from benchmarks.contest import Contest, measured, simulated, training_frames
from benchmarks.race_map import make_map
from benchmarks.race_picture import draw_map
from benchmarks.race_report import Point, curves, draw_curves, table
from benchmarks.sides import Entry, Learnt, fits, learn, learnt_before, networks, others
from fno_runner.apply.model import TrainedModel, find_model
from fno_runner.cli import command, count_of
from fno_runner.device import pick_device
from fno_runner.errors import UserError
from fno_runner.files import write_text_atomically
from fno_runner.provenance import provenance

LONG = 4.0
"""[s]."""


def race(
    sides: Mapping[str, Sequence[Entry]], contest: Contest, turns: int, draw: int = 0
) -> list[Point]:
    """All efforts of all sides, in turns, each side warmed up by its first effort.

    What takes longer than `LONG` is timed once.
    """
    scores: dict[tuple[str, str], Mapping[str, float | None]] = {}
    seconds: dict[tuple[str, str], list[float]] = {}
    for entries in sides.values():
        entries[0][1]()
    for turn in range(turns):
        for side, entries in sides.items():
            for effort, work in entries:
                key = side, effort
                if turn and seconds[key][0] > LONG:
                    continue
                fit = work()
                seconds.setdefault(key, []).append(fit.seconds)
                if key not in scores:
                    scores[key] = contest.scores(fit)
                    told = scores[key]["r"] or scores[key]["r_kept"] or float("nan")
                    print(f"{side}, {effort}: R {told:.4f}, {fit.seconds:.2f} s", file=sys.stderr)
    return [Point(draw, *key, tuple(seconds[key]), scores[key]) for key in scores]


def _sides(
    given: argparse.Namespace, contest: Contest, device: torch.device, draw: int
) -> tuple[dict[str, list[Entry]], dict[str, float]]:
    """All sides that this contest can have, and how long networks learnt before [s]."""
    sides = dict(fits(contest, device))
    if contest.kept.probe is None:
        print(f"note: {given.scan} has no probe: only a blind fit can race", file=sys.stderr)
        return sides, {}
    if reason := pty_chi.missing():
        print(f"note: {reason}", file=sys.stderr)
    elif len(contest.kept.probe) > 1:
        print("note: pty-chi is left out: it moves the first mode only", file=sys.stderr)
    else:
        sides |= others(contest, device)
    training: dict[str, float] = {}
    if given.no_networks:
        return sides, training
    if given.model is not None:
        model = find_model(given.model)
        network = Learnt(model.load(device), model.config, _train_time(model))
        training["network given"] = network.seconds
        sides |= dict(networks("network given", network, contest, device, adapted=True))
    photons = float((contest.kept.amplitude**2).sum((1, 2)).mean())
    weak = given.scan != "simulated"
    before = learnt_before(
        given.output / f"network-{'weak' if weak else 'lines'}-{photons:.2g}.safetensors",
        lambda: training_frames(contest.kept, photons, 8, 1600, 1, weak=weak),
        device,
    )
    on_it = learn(contest.kept, device, seed=draw)
    for name, learnt in (("network of simulated objects", before), ("network of this scan", on_it)):
        training[name] = learnt.seconds
        sides |= dict(networks(name, learnt, contest, device, adapted=learnt is before))
    return sides, training


def _train_time(model: TrainedModel) -> float:
    seconds = model.record.timing.get("train_time_s")
    return math.nan if seconds is None else float(seconds)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Race, and write; the exit status."""
    given = _parser().parse_args(argv)
    given.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    device = pick_device(given.device)
    if given.scan == "map":
        if given.draw:
            draw_map(given.of, given.output)
            return 0
        make_map(given.of, given.output, device, given.only, kind=given.kind, seconds=given.seconds)
        return 0
    points: list[Point] = []
    training: dict[str, float] = {}
    for draw in range(given.draws):
        contest = _contest(given, draw)
        sides, learnt = _sides(given, contest, device, draw)
        words = given.sides.split(",")
        sides = {name: side for name, side in sides.items() if any(word in name for word in words)}
        points += race(sides, contest, given.turns, draw)
        training = learnt | training
    _write(given.output, _title(given, contest), points, training, device)
    return 0


def _contest(given: argparse.Namespace, draw: int) -> Contest:
    if given.scan == "simulated":
        return simulated(given.overlap, given.photons or 1e9, given.frames, draw)
    if given.everything and given.draws > 1:
        raise UserError(
            f"--draws {given.draws}: with --everything nothing is drawn, so only 1 is allowed"
        )
    return measured(
        Path(given.scan),
        share=given.share,
        photons=given.photons,
        draw=draw,
        everything=given.everything,
    )


def _title(given: argparse.Namespace, contest: Contest) -> str:
    title = f"{Path(given.scan).stem}: {len(contest.kept)} frames kept, {len(contest.judged)} judge"
    return title if given.draws == 1 else f"{title}, {given.draws} draws"


def _write(
    output: Path,
    title: str,
    points: Sequence[Point],
    training: Mapping[str, float],
    device: torch.device,
) -> None:
    """race.json, race.csv, race.md and race.png."""
    record: dict[str, Any] = {
        "title": title,
        "training_s": {name: None if math.isnan(s) else s for name, s in training.items()},
        "provenance": provenance(device),
        "points": [vars(p) for p in points],
    }
    write_text_atomically(output / "race.json", json.dumps(record, indent=1) + "\n")
    with (output / "race.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["draw", "side", "effort", "seconds", *points[0].scores])
        writer.writerows([p.draw, p.side, p.effort, p.time, *p.scores.values()] for p in points)
    text = f"{title}\n\n{table(points, training)}\n{curves(points)}"
    write_text_atomically(output / "race.md", text)
    draw_curves(points, title, output / "race.png")
    print(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.race",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("scan", help="a scan's file; or simulated; or map")
    add("of", type=Path, nargs="?", help="the map's scan")
    add("--output", type=Path, default=Path("outputs/race"),
        help="a folder (default: outputs/race)")  # fmt: skip
    add("--device", choices=("auto", "cpu", "cuda"), default="auto",
        help="where to compute (default: auto, a GPU if there is one)")  # fmt: skip
    add("--everything", action="store_true", help="keep all frames, and judge by all")
    add("--share", type=float, default=1.0,
        help="part of the frames that is kept (default: 1, all but the tenth that "
        "judges)")  # fmt: skip
    add("--photons", type=float,
        help="photons a frame (default: the scan's; simulated, 1e9)")  # fmt: skip
    add("--overlap", type=float, default=0.75,
        help="of neighbours in the simulated raster, part of the beam (default: 0.75)")  # fmt: skip
    add("--frames", type=count_of(), default=64,
        help="how many the simulated raster has (default: 64)")  # fmt: skip
    add("--turns", type=count_of(), default=3,
        help="how often each side is timed (default: 3)")  # fmt: skip
    words = "of frames that judge (simulated: of the object), each with another seed of the network"
    add("--draws", type=count_of(), default=1, help=f"{words} (default: 1)")
    add("--model", type=Path, help="a run's folder: its network races, too")
    add("--sides", default="", metavar="A,B,C",
        help="only sides whose name holds one of these words")  # fmt: skip
    add("--no-networks", action="store_true", help="only the fits without a network")
    for kind, words in (
        ("timings", "measure the times, on a quiet machine"),
        ("own", "networks that learn from the star's frames"),
        ("hindsight", "the star's best fit, of all weights and passes"),
        ("others", "the same networks with other seeds and sizes, where frames are few"),
    ):
        add(f"--{kind}", dest="kind", action="store_const", const=kind, default="cells",
            help=f"of the map: {words}")  # fmt: skip
    add("--seconds", type=float, default=math.inf,
        help="of the map: begin nothing after so many seconds")  # fmt: skip
    add("--draw", action="store_true", help="of the map: only draw what is there already")
    add("--only", default="", help="of the map: cells whose name holds this")
    return parser


if __name__ == "__main__":
    sys.exit(main())
