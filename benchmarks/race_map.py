"""The race along three axes: overlap, photons a frame, frames. Cell by cell, so that it can go on.

Qualities do not depend on how busy the machine is, times do: they are measured apart, of the
first draw of each cell (`timings`), and looked up.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, median, stdev
from time import perf_counter
from typing import Any

import torch
from scipy import stats

from benchmarks.contest import Contest, measured, simulated, training_frames
from benchmarks.sides import Learnt, answer, learn, learnt_before
from fno_runner.data.frames import Scan
from fno_runner.files import write_text_atomically
from fno_runner.scan.choice import Choice, choose
from fno_runner.scan.iterative import Fit, reconstruct

OVERLAPS, PHOTONS = (0.87, 0.75, 0.6, 0.45, 0.3), (1e9, 1e6, 1e5, 1e4)
FRAMES, SHARES = (1, 16, 64, 256, 13_689), (1.0, 0.5, 0.25, 0.125, 0.0625)
SEEDS, DRAWS = 3, 5
PASSES, AFTER = (1, 2, 3, 5, 10, 20, 40), (2, 5)
DETERMINED = 16
"""With fewer frames there are hardly more counts than unknowns: many objects fit equally."""
MANY, PASSES_OF_MANY = 10_000, (1, 2, 5)
"""From so many frames on a pass takes a second: a few are tried, and nothing is chosen. They need
no smooth term: with a weight of 0.01 R of 13,689 frames is five times as large."""
PLAIN, FIT, CHOSEN = "fit, plain", "fit", "fit, chosen"
NETWORK, NETWORK_CHOSEN, OWN = "network", "network, chosen", "network of this scan"
HINDSIGHT = "fit, in hindsight"
OTHERS: Mapping[str, Mapping[str, Any]] = {
    "seed 1": {"seed": 1},
    "seed 2": {"seed": 2},
    "width 32": {"width": 32},
    "hybrid": {"architecture": "hybrid"},
}
"""Networks of the frames kept that are not the one of seed 0."""
FEW = 0.125
"""The share of frames from which on networks win or are open: others are tried there."""
WEIGHT = 0.01
"""Of the total variation, where there is no time or are no frames to choose it by: it lies between
those that are chosen, 0 for many photons and 0.3 for few."""
WEIGHTS, LONG = (0.01, 0.03, 0.1, 0.2, 0.3, 0.6, 1.0), (10, 20, 40, 80, 160)
"""Among which hindsight looks."""


@dataclass(frozen=True)
class Cell:
    """A place of the map. network: which one learnt before. few: frames kept of the star."""

    name: str
    contest: Callable[[int], Contest]
    draws: int
    network: str
    few: bool = False


def cells(scan: Path) -> Iterator[Cell]:
    """All of them, the quickest answers first."""
    for share in SHARES[1:]:
        for coarse in (False, True):
            kind = "coarse" if coarse else "random"
            contest = partial(_star, scan, share, None, coarse)
            yield Cell(f"star-{kind}-{share:g}", contest, DRAWS, "star", share <= FEW)
    for frames in FRAMES:
        for photons in _photons_of(frames):
            contest = partial(simulated, 0.75, photons, frames)
            draws = DRAWS if frames == 1 else SEEDS
            name = f"lines-frames-{frames}-{photons:.0e}"
            yield Cell(name, contest, draws, f"lines-{photons:.0e}")
    for photons in PHOTONS:
        for overlap in OVERLAPS:
            contest = partial(simulated, overlap, photons, 64)
            name = f"lines-overlap-{overlap:g}-{photons:.0e}"
            yield Cell(name, contest, SEEDS, f"lines-{photons:.0e}")
    for photons in (1e5, 1e4):
        for share in (0.25, 1.0):
            contest = partial(_star, scan, share, photons, False)
            name = f"star-photons-{photons:.0e}-{share:g}"
            yield Cell(name, contest, SEEDS, f"star-{photons:.0e}")
    yield Cell("star-all", partial(_star, scan, 1.0, None, False), SEEDS, "star")


def _photons_of(frames: int) -> tuple[float, ...]:
    """64 frames have cells for each overlap."""
    return () if frames == 64 else PHOTONS[:1] if frames >= MANY else PHOTONS[::2]


def _star(scan: Path, share: float, photons: float | None, coarse: bool, draw: int) -> Contest:
    return measured(scan, share=share, photons=photons, coarse=coarse, draw=draw)


def make_map(
    scan: Path,
    output: Path,
    device: torch.device,
    only: str = "",
    *,
    kind: str = "cells",
    seconds: float = math.inf,
) -> None:
    """Make what is not there yet, and begin nothing new after so many seconds.

    Args:
        kind: "cells", qualities; "timings"; of the star's cells only, and about a minute each,
            "own", networks that learn from the frames kept, or "hindsight", the fit with every
            weight and number of passes; "others", of those with few frames, networks that learn
            from the frames kept with other seeds and sizes.
        only: of `Cell.name`, or, of "others", also of a network.
    """
    end = perf_counter() + seconds
    for place, make in _work(scan, output, device, kind):
        if only not in place.name or place.exists():
            continue
        if perf_counter() > end:
            print("more remains: the same command goes on", file=sys.stderr)
            return
        _write(place, make())
        print(place, file=sys.stderr)


def _work(
    scan: Path, output: Path, device: torch.device, kind: str
) -> Iterator[tuple[Path, Callable[[], Any]]]:
    """Each file of a kind, and what it is to hold."""
    for draw, cell in product(range(DRAWS), cells(scan)):
        of_star, once = cell.name.startswith("star"), kind == "timings"
        if draw >= cell.draws or (kind in ("own", "hindsight") and not of_star) or (once and draw):
            continue
        name = cell.name if once else f"{cell.name}.{draw}"
        if kind != "others":
            make = partial(_made, MAKERS[kind], cell, draw, output, device)
            yield output / kind / f"{name}.json", make
            continue
        for other, changes in OTHERS.items() if cell.few else ():
            make = partial(_other, cell, draw, other, changes, device)
            yield output / kind / f"{name}.{other}.json", make


def _made(make: Callable[..., Any], cell: Cell, draw: int, *where: Any) -> Any:
    return make(cell, cell.contest(draw), *where)


def _other(
    cell: Cell, draw: int, name: str, changes: Mapping[str, Any], device: torch.device
) -> list[dict[str, Any]]:
    contest = cell.contest(draw)
    learnt = learn(contest.kept, device, **changes)
    first = answer(learnt, contest.kept, device)
    told = _told(f"{OWN}, {name}", 0, 0.0, first.seconds)
    return [told | {"training_s": learnt.seconds} | contest.scores(first)]


def _qualities(
    cell: Cell, contest: Contest, output: Path, device: torch.device
) -> list[dict[str, Any]]:
    network = _network(cell, contest, output, device)
    fit, choice = _fit_and_choice(contest, device)
    made = _points(contest, network, choice, fit, device)
    return [told | contest.scores(answered) for told, answered in made]


def _own(cell: Cell, contest: Contest, output: Path, device: torch.device) -> list[dict[str, Any]]:
    """A network that learns from the frames kept, alone and then with passes of the fit."""
    learnt = learn(contest.kept, device)
    fit, choice = _fit_and_choice(contest, device)
    first = answer(learnt, contest.kept, device)
    made = [(0, first)] + [
        (n, fit(contest.kept, iterations=n, smooth=choice.smooth, first_object=first.obj))
        for n in AFTER
    ]
    return [
        _told(OWN, passes, choice.smooth, one.seconds)
        | {"training_s": learnt.seconds}
        | contest.scores(one)
        for passes, one in made
    ]


def _hindsight(
    cell: Cell, contest: Contest, output: Path, device: torch.device
) -> list[dict[str, Any]]:
    """What the fit could reach if the judging frames had chosen: no fair side, a bound of it."""
    fit = _fit(contest, device)
    told = []
    for weight, passes in product(WEIGHTS, LONG):
        made = fit(contest.kept, iterations=passes, smooth=weight)
        told.append(_told(HINDSIGHT, passes, weight, made.seconds) | contest.scores(made))
    return told


def _points(
    contest: Contest, network: Learnt, choice: Choice, fit: Callable[..., Fit], device: torch.device
) -> Iterator[tuple[dict[str, Any], Fit]]:
    """Every effort of the fit, with no smooth term, a fixed one and the chosen one, and of the
    network.
    """
    scan = contest.kept
    for weight, side in ((0.0, PLAIN), (WEIGHT, FIT)):
        for passes in _passes_of(scan):
            made = fit(scan, iterations=passes, smooth=weight)
            yield _told(side, passes, weight, made.seconds), made
    made = fit(scan, iterations=choice.passes, smooth=choice.smooth)
    yield _told(CHOSEN, choice.passes, choice.smooth, made.seconds), made
    first = answer(network, scan, device)
    yield _told(NETWORK, 0, 0.0, first.seconds), first
    for weight, side in ((WEIGHT, NETWORK), (choice.smooth, NETWORK_CHOSEN)):
        for passes in AFTER:
            made = fit(scan, iterations=passes, smooth=weight, first_object=first.obj)
            yield _told(side, passes, weight, first.seconds + made.seconds), made


def _told(side: str, passes: int, weight: float, seconds: float) -> dict[str, Any]:
    return {"side": side, "effort": passes, "weight": weight, "seconds": seconds}


def _fit(contest: Contest, device: torch.device) -> Callable[..., Fit]:
    """With the probe held."""
    assert contest.kept.probe is not None
    modes = len(contest.kept.probe)
    return partial(reconstruct, modes=modes, fit_probe=False, device=device)


def _fit_and_choice(contest: Contest, device: torch.device) -> tuple[Callable[..., Fit], Choice]:
    scan, fit = contest.kept, _fit(contest, device)
    if DETERMINED <= len(scan) < MANY:
        return fit, choose(fit, scan, None, None)
    weight = WEIGHT if len(scan) < DETERMINED else 0.0
    return fit, Choice(weight, _passes_of(scan)[-1], math.nan)


def _passes_of(scan: Scan) -> tuple[int, ...]:
    return PASSES if len(scan) < MANY else PASSES_OF_MANY


def _network(cell: Cell, contest: Contest, output: Path, device: torch.device) -> Learnt:
    photons = float((contest.kept.amplitude**2).sum((1, 2)).mean())
    weak = cell.network.startswith("star")
    return learnt_before(
        output / "networks" / f"{cell.network}.safetensors",
        lambda: training_frames(contest.kept, photons, 8, 1600, 1, weak=weak),
        device,
    )


def _times(cell: Cell, contest: Contest, output: Path, device: torch.device) -> dict[str, float]:
    """side and effort -> seconds, the median of three after one that warms up.

    Choosing counts in what is chosen; it is timed once.
    """
    network = _network(cell, contest, output, device)
    start = perf_counter()
    fit, choice = _fit_and_choice(contest, device)
    choosing = perf_counter() - start
    seconds: dict[str, list[float]] = {}
    for _ in range(4):
        for told, _fit in _points(contest, network, choice, fit, device):
            took = told["seconds"] + (choosing if told["side"] in (CHOSEN, NETWORK_CHOSEN) else 0)
            seconds.setdefault(_key(told), []).append(took)
    return {key: median(values[1:]) for key, values in seconds.items()}


MAKERS: dict[str, Callable[..., Any]] = {
    "cells": _qualities,
    "timings": _times,
    "own": _own,
    "hindsight": _hindsight,
}


def _write(place: Path, what: Any) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(place, json.dumps(what, indent=1) + "\n")


@dataclass(frozen=True)
class Verdict:
    """Who is best in a cell after a time: by how much the network's R is above the fit's.

    ratio: mean over draws of ln(R of the network / R of the fit). half: of its 95 % interval.
    Both are NaN where nobody has an answer by then, or times were not measured; the ratio is
    infinite where only one has.
    """

    ratio: float
    half: float


def verdict(output: Path, cell: Cell, seconds: float) -> Verdict:
    """Of the efforts that end in time the last to end counts, never the best."""
    times = _read(output / "timings" / f"{cell.name}.json")
    if times is None:  # the seconds in a cell may be of a busy machine
        return Verdict(math.nan, math.nan)
    ratios = []
    for points in points_of(output, cell):
        in_time = [p for p in points if _key(p) in times and times[_key(p)] <= seconds]
        in_time.sort(key=lambda p: times[_key(p)])
        last = [
            next((p for p in reversed(in_time) if p["side"] in sides), None)
            for sides in ((FIT, CHOSEN), (NETWORK, NETWORK_CHOSEN))
        ]
        if last[0] is None and last[1] is None:
            return Verdict(math.nan, math.nan)
        if last[0] is None or last[1] is None:
            return Verdict(math.inf if last[1] is None else -math.inf, math.nan)
        ratios.append(math.log(error_of(last[1]) / error_of(last[0])))
    if not ratios:
        return Verdict(math.nan, math.nan)
    return Verdict(mean(ratios), half_interval(ratios))


def error_of(point: dict[str, Any]) -> float:
    """R of frames left out; of a single frame 1 − the phase's correlation with the truth."""
    error: float = 1 - point["pearson"] if point["r"] is None else point["r"]
    return error


def half_interval(values: list[float]) -> float:
    """Half of the 95 % interval of a mean (Student's t); NaN for a single value."""
    if len(values) < 2:
        return math.nan
    reach = float(stats.t.ppf(0.975, len(values) - 1))
    return reach * stdev(values) / math.sqrt(len(values))


def points_of(output: Path, cell: Cell) -> list[list[dict[str, Any]]]:
    """Of each draw that is there all efforts of all sides."""
    draws = []
    for draw in range(cell.draws):
        name = f"{cell.name}.{draw}"
        points = _read(output / "cells" / f"{name}.json")
        if points is None:
            continue
        extra = [output / kind / f"{name}.json" for kind in ("own", "hindsight")]
        extra += [output / "others" / f"{name}.{other}.json" for other in OTHERS]
        draws.append(points + [point for place in extra for point in _read(place) or []])
    return draws


def _key(point: dict[str, Any]) -> str:
    """Of its time. How many passes were chosen differs from draw to draw."""
    chosen = point["side"] == CHOSEN
    return point["side"] if chosen else f"{point['side']} {point['effort']}"


def _read(place: Path) -> Any:
    return json.loads(place.read_text()) if place.exists() else None
