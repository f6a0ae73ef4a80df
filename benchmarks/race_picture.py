"""The map of the race as pictures and as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.race_map import (
    CHOSEN,
    FIT,
    HINDSIGHT,
    NETWORK,
    NETWORK_CHOSEN,
    OTHERS,
    OVERLAPS,
    OWN,
    PHOTONS,
    PLAIN,
    SHARES,
    WEIGHT,
    Cell,
    Verdict,
    cells,
    error_of,
    half_interval,
    points_of,
    verdict,
)
from fno_runner.files import write_text_atomically

TIMES = {0.1: "after 0.1 s", 1.0: "after 1 s", 10.0: "after 10 s", math.inf: "in the end"}
"""When it is asked who is best [s]."""
Chosen = Callable[[dict[str, Any]], bool]
LINES: dict[str, Chosen] = {
    "fit, no term, 10 passes": lambda p: p["side"] == PLAIN and p["effort"] == 10,
    f"fit, weight {WEIGHT}, 10 passes": lambda p: p["side"] == FIT and p["effort"] == 10,
    "fit, weight and passes chosen": lambda p: p["side"] == CHOSEN,
    "network of simulated objects": lambda p: p["side"] == NETWORK and p["effort"] == 0,
    "the same, then 5 passes": lambda p: p["side"] == NETWORK_CHOSEN and p["effort"] == 5,
    "network trained on these frames": lambda p: p["side"] == OWN and p["effort"] == 0,
    "that one, then 5 passes": lambda p: p["side"] == OWN and p["effort"] == 5,
}
MEAN, BEST = f"{OWN}, mean of seeds", f"{OWN}, best of seeds"
SEEDS_OF_ONE = (OWN, *(f"{OWN}, {name}" for name in OTHERS if name.startswith("seed")))
NETWORKS = {
    "seed 0": OWN,
    **{name: f"{OWN}, {name}" for name in OTHERS},
    f"mean of {len(SEEDS_OF_ONE)} seeds": MEAN,
    f"of {len(SEEDS_OF_ONE)} seeds the one that explains its own frames best": BEST,
}
"""In the table of networks that learn from the frames kept -> its side."""
AGAINST = "network trained on these frames", "fit, weight and passes chosen"


def draw_map(scan: Path, output: Path) -> None:
    """map.md, map_overlap.png and map_frames.png, of the cells that are there."""
    every = list(cells(scan))
    text = f"{table(output, every)}\n{networks_table(output, every)}"
    write_text_atomically(output / "map.md", text)
    _draw_overlap(output, {cell.name: cell for cell in every})
    _draw_frames(output, {cell.name: cell for cell in every})


def table(output: Path, every: Sequence[Cell]) -> str:
    """Markdown: each side's error in each cell, with its 95 % interval, and who is best when."""
    lines = [
        f"| cell | draws | {' | '.join(LINES)} | fit, best in hindsight "
        f"| {' against '.join(AGAINST)} | best {' | '.join(TIMES.values())} |",
        "| --- " * (4 + len(TIMES) + len(LINES)) + "|",
    ]
    for cell in every:
        draws = points_of(output, cell)
        if draws:
            values = [interval(draws, chosen) for chosen in LINES.values()]
            told = [_words(v) for v in values]
            told += [_hindsight(draws), against(draws, *(LINES[name] for name in AGAINST))]
            best = [who(verdict(output, cell, seconds)) for seconds in TIMES]
            lines.append(f"| {cell.name} | {len(draws)} | {' | '.join(told + best)} |")
    return "\n".join(lines) + "\n"


def networks_table(output: Path, every: Sequence[Cell]) -> str:
    """Markdown: networks of the frames kept, of several seeds and sizes, against the fit."""
    lines = ["| cell | network of these frames | draws | R | against the fit, chosen |"]
    lines.append("| --- " * 5 + "|")
    fit = LINES[AGAINST[1]]
    for cell in every:
        draws = [[*points, *_of_seeds(points)] for points in points_of(output, cell)]
        for name, side in NETWORKS.items() if cell.few else ():
            network = partial(_is_answer, side)
            count = sum(any(map(network, points)) for points in draws)
            if count:
                told = _words(interval(draws, network)), against(draws, network, fit)
                lines.append(f"| {cell.name} | {name} | {count} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def _is_answer(side: str, point: dict[str, Any]) -> bool:
    return bool(point["side"] == side) and point["effort"] == 0


def _of_seeds(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where all seeds are there: their mean, and the one with the least R of the frames kept.

    To choose so uses nothing of the frames that judge.
    """
    seeds = [p for side in SEEDS_OF_ONE for p in points if _is_answer(side, p)]
    if len(seeds) < len(SEEDS_OF_ONE):
        return []
    best = min(seeds, key=lambda p: p["r_kept"])
    return [
        {"side": MEAN, "effort": 0, "r": mean(p["r"] for p in seeds)},
        {"side": BEST, "effort": 0, "r": best["r"]},
    ]


def interval(draws: Sequence[Sequence[dict[str, Any]]], chosen: Chosen) -> tuple[float, float]:
    """Mean and half of the 95 % interval, over draws, of a side's error; NaN where none is."""
    errors = [error_of(p) for points in draws for p in points if chosen(p)]
    if not errors:
        return math.nan, math.nan
    return mean(errors), half_interval(errors)


def against(draws: Sequence[Sequence[dict[str, Any]]], ours: Chosen, theirs: Chosen) -> str:
    """By how much one side's error is above another's, draw by draw: mean and 95 % interval."""
    ratios = [
        math.log(error_of(a) / error_of(b))
        for points in draws
        for a in points
        for b in points
        if ours(a) and theirs(b)
    ]
    if not ratios:
        return "–"
    middle, half = mean(ratios), half_interval(ratios)
    by = [f"{100 * (math.exp(x) - 1):+.1f}" for x in (middle, middle - half, middle + half)]
    return f"{by[0]} % ({by[1]} … {by[2]})" if len(ratios) > 1 else f"{by[0]} %"


def _hindsight(draws: Sequence[Sequence[dict[str, Any]]]) -> str:
    """The fit's smallest error in each draw, at whatever weight and passes."""
    tried = [[error_of(p) for p in points if p["side"] == HINDSIGHT] for points in draws]
    return ", ".join(f"{min(errors):.4f}" for errors in tried if errors) or "–"


def who(found: Verdict) -> str:
    """'fit by 12 %', 'network by 5 %', 'fit alone' has an answer, or that it is open."""
    if math.isnan(found.ratio):
        return "–"
    better = "fit" if found.ratio > 0 else "network"
    if math.isinf(found.ratio):
        return f"{better} alone"
    worse = 100 * (math.exp(abs(found.ratio)) - 1)
    by = f"{worse:.0f} %" if worse >= 2 else f"{worse:.1f} %"
    if math.isnan(found.half):
        return f"{better} by {by} (one draw)"
    return "open" if abs(found.ratio) <= found.half else f"{better} by {by}"


def _words(value: tuple[float, float]) -> str:
    middle, half = value
    if math.isnan(middle):
        return "–"
    return f"{middle:.4f}" if math.isnan(half) else f"{middle:.4f} ± {half:.4f}"


def _draw_overlap(output: Path, by_name: dict[str, Cell]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 5.6), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True, sharex=True)
    for axes, (seconds, when) in zip(panels.flat, TIMES.items(), strict=True):
        shade = np.full((len(PHOTONS), len(OVERLAPS)), np.nan)
        for row, photons in enumerate(PHOTONS):
            for col, overlap in enumerate(OVERLAPS):
                found = verdict(
                    output, by_name[f"lines-overlap-{overlap:g}-{photons:.0e}"], seconds
                )
                told = who(found).replace(" by ", "\n").replace(" alone", "\nalone")
                decided = told not in ("open", "–")
                shade[row, col] = (found.ratio < 0) + 1.0 if decided else 0.0
                dark = shade[row, col] == 2
                axes.text(col, row, told, ha="center", va="center", fontsize=7,
                          color="white" if dark else "black")  # fmt: skip
        axes.imshow(shade, cmap="Greys", vmin=0, vmax=2.4, aspect="auto")
        axes.set_xticks(range(len(OVERLAPS)), [f"{o:.0%}" for o in OVERLAPS])
        axes.set_title(when, fontsize=10)
    for below, left in zip(panels[1], panels[:, 0], strict=True):
        below.set_xlabel("overlap")
        left.set_yticks(range(len(PHOTONS)), [f"{p:.0e}" for p in PHOTONS])
        left.set_ylabel("photons a frame")
    figure.savefig(output / "map_overlap.png", dpi=130, metadata={"Software": None})


def _draw_frames(output: Path, by_name: dict[str, Cell]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    styles = ("o:", "P:", "s-", "^--", "v-.", "D-", "X-")
    for axes, kind in zip(panels, ("random", "coarse"), strict=True):
        for i, (label, chosen) in enumerate(LINES.items()):
            there = []
            for share in SHARES[1:]:
                cell = by_name[f"star-{kind}-{share:g}"]
                middle, half = interval(points_of(output, cell), chosen)
                if not math.isnan(middle):
                    there.append((share * (1 + 0.02 * (i - 3)), middle, half))
            if there:
                x, y, error = zip(*there, strict=True)
                axes.errorbar(x, y, error, fmt=styles[i], color=f"C{i}", label=label,
                              markersize=5, capsize=2, linewidth=1.2)  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="share of the star's 516 frames kept")
        axes.set_xticks(SHARES[1:], ["1/2", "1/4", "1/8", "1/16"])
        axes.minorticks_off()
        axes.set_yticks((0.085, 0.1, 0.12, 0.15, 0.2), ("0.085", "0.1", "0.12", "0.15", "0.2"))
        axes.set_title(
            "frames drawn at random" if kind == "random" else "a coarser raster", fontsize=10
        )
    panels[0].set_ylabel("R of the frames left out")
    panels[0].legend(fontsize=7)
    figure.savefig(output / "map_frames.png", dpi=130, metadata={"Software": None})
