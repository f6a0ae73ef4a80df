"""pareto_plot.png: what each configuration costs, what it gives, and the front between the two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from agent.analysis.best_over import BEST
from agent.analysis.configurations import devices
from agent.analysis.pareto import Axis, Front
from agent.analysis.series import Series
from agent.report.figures import (
    MAX_SERIES,
    OKABE_ITO,
    around,
    log_axis,
    new_figure,
    spanning,
    wrapped,
)
from agent.study.quality import Array, Rows, by_key, numbers, words
from fno_runner.config import RunConfig, choices
from fno_runner.score.quantities import FLOORS, QUANTITIES, Quantity

TRANSFORMS = (*(choices(RunConfig.model_fields["input_transform"]) or ()), BEST)
ARCHITECTURES = (*(choices(RunConfig.model_fields["architecture"]) or ()), BEST)
COLOURS = dict(zip(TRANSFORMS, OKABE_ITO, strict=False))
SHAPES = dict(zip(ARCHITECTURES, "osD^vP", strict=False))
"""By input transform and by architecture; `BEST` is what --best-over puts in their place."""

PANEL = (4.0, 3.6)
"""Width and height of a panel [in]."""
LINE = 10 / (72 * PANEL[1] * 0.75)
"""Height of a line of text as a part of a panel's."""

MOST_BARS = 500
"""With more configurations their intervals would hide them."""

APART = {
    "collapsed": {"marker": "x", "color": "0.5", "linewidths": 1},
    "stopped": {"marker": "D", "facecolors": "none", "edgecolors": "0.5", "linewidths": 1},
}
"""How runs are drawn that are shown and never compared."""


def pareto_figure(all_series: Sequence[Series], title: str = "") -> Figure:
    """A panel a front, the series of comparable runs one below the other.

    A point is a configuration at the mean of its seeds, with the 95 % interval of the mean where
    there are several. Cost runs along a logarithmic axis; the front is a step line; the recommended
    configuration is ringed and named; floors are labelled in the right margin. The y axis shows the
    finished ones with their intervals and at most as much again below and above them: what lies
    beyond that (a floor, a collapsed or stopped run) is drawn at the edge, a floor with its value.
    Times of different devices are in different panels. Series without a front are left out.
    """
    drawn = [series for series in all_series if series.fronts]
    shown = drawn[:MAX_SERIES]
    most = max((len(series.fronts) for series in shown), default=1)
    # Four stand in a square, so that the picture still fits a page.
    columns = 2 if most == 4 else min(3, max(1, most))
    heights = [-(-len(series.fronts) // columns) for series in shown]
    rows = max(1, sum(heights))
    with new_figure(columns * PANEL[0], rows * PANEL[1] + 0.7) as figure:
        axes = figure.subplots(rows, columns, squeeze=False)
        first = 0
        for series, height in zip(shown, heights, strict=True):
            panels = axes[first : first + height].ravel()
            first += height
            for panel, front in zip(panels, series.fronts, strict=False):
                _panel(panel, series, front)
            for panel in panels[len(series.fronts) :]:
                panel.set_axis_off()
            if series.name:
                panels[0].set_title(series.name, loc="left", fontsize=9, fontweight="bold")
        if len(drawn) > len(shown):
            title += f"; the first {len(shown)} of {len(drawn)} series"
        if title:
            figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        _draw_legend(figure, _legend(shown), 2 + 2 * columns)
    return figure


def floors(runs: pd.DataFrame, column: str) -> dict[str, float]:
    """By the keys of `FLOORS`, those that all runs agree on, to four digits (threads round)."""
    agreed = {}
    runs = runs[runs["status"] == "finished"]
    for floor in FLOORS:
        values = numbers(runs, f"{column}_{floor}")
        if np.isfinite(values).all() and np.allclose(values, values[:1], rtol=1e-4, atol=0):
            agreed[floor] = float(values[0])
    return agreed


def has_bars(front: Front) -> bool:
    """Whether the intervals of a front's plane are drawn: some are known, and they hide nothing."""
    known = np.isfinite(front.cost.mean) & np.isfinite(front.value.mean)
    ends = np.concatenate([front.value.low[known], front.cost.low[known]])
    return bool(known.sum() <= MOST_BARS and np.isfinite(ends).any())


def is_reference(series: Series) -> bool:
    """Whether what runs are compared with is a scan's reference, which is no truth."""
    return "reference" in set(series.runs["metrics_against"])


def against(series: Series, quality: Quantity) -> str:
    """What is said behind a quality that is not against the truth."""
    return " against the reference" if quality.of == "object" and is_reference(series) else ""


def apart(series: Series, front: Front) -> dict[str, pd.DataFrame]:
    """Runs that are shown in a front's plane and never compared, by the keys of `APART`."""
    runs = {"collapsed": series.collapsed, "stopped": series.stopped}
    if front.device is None:
        return runs
    return {
        how: own[[device == front.device for device in devices(own)]] for how, own in runs.items()
    }


def _panel(axes: Axes, series: Series, front: Front) -> None:
    cost, quality = front.cost.mean, front.value.mean
    column, more_is_better = front.quality.column, front.quality.better == "higher"
    axes.set_xlabel(
        QUANTITIES[front.cost.column].axis + (f"\non {front.device}" if front.device else "")
    )
    axes.set_ylabel(front.quality.axis + against(series, front.quality))
    known = np.isfinite(cost) & np.isfinite(quality)
    places = {
        how: (numbers(runs, front.cost.column), numbers(runs, column))
        for how, runs in apart(series, front).items()
    }
    all_costs = np.concatenate([cost[known], *(of_runs for of_runs, _ in places.values())])
    log_axis(axes, "x", *around(all_costs[np.isfinite(all_costs)]))
    drawn = {FLOORS[key]: value for key, value in floors(series.runs, column).items()}
    bars = [front.value.low[known], front.value.high[known]] if has_bars(front) else []
    ends = np.concatenate([quality[known], *bars])
    qualities = np.concatenate([of_runs for _, of_runs in places.values()])
    chosen = series.recommendation
    marked = None if chosen is None or not known[chosen.config] else chosen.config
    name = "" if marked is None else wrapped(series.configs["configuration"][marked])
    lines = 1 + name.count("\n")
    low, high = _view(ends[np.isfinite(ends)], list(drawn.values()), qualities, front, lines)
    axes.set_ylim(low, high)

    # Up to each next cost the front's last point is the best one can have: a step, not a slope.
    axes.step(
        [*cost[front.members], axes.get_xlim()[1]],
        [*quality[front.members], quality[front.members[-1]]],
        where="post", color="black", linewidth=1, zorder=2,
    )  # fmt: skip
    kinds = by_key(words(series.configs[known], ("architecture", "input_transform")))
    for (architecture, transform), places_of_kind in sorted(kinds.items()):
        mine = np.flatnonzero(known)[places_of_kind]
        if has_bars(front):
            _intervals(axes, front, mine, COLOURS[transform])
        axes.scatter(
            cost[mine], quality[mine], s=26, marker=SHAPES[architecture], zorder=3,
            color=COLOURS[transform], edgecolors="white", linewidths=0.5,
        )  # fmt: skip
    edge = 0.03 * (high - low)
    for how, (of_cost, of_quality) in places.items():
        inside = np.clip(of_quality, low + edge, high - edge)
        axes.scatter(of_cost, inside, s=26, zorder=3, **APART[how])  # type: ignore[arg-type]
    _label_floors(axes, drawn)
    if marked is not None:
        place = float(cost[marked]), float(quality[marked])
        _mark(axes, place, name, above=more_is_better)


def _intervals(axes: Axes, front: Front, rows: Rows, colour: str) -> None:
    """Thin bars from end to end of the 95 % intervals, of the cost too where seeds change it."""

    def arms(axis: Axis, some: Rows) -> Array:
        return np.stack([axis.mean[some] - axis.low[some], axis.high[some] - axis.mean[some]])

    style: dict[str, Any] = {"fmt": "none", "ecolor": colour, "elinewidth": 0.8, "alpha": 0.6,
                             "zorder": 2.5}  # fmt: skip
    cost, quality = front.cost, front.value
    if (some := rows[np.isfinite(quality.low[rows])]).size:
        axes.errorbar(cost.mean[some], quality.mean[some], yerr=arms(quality, some), **style)
    if (some := rows[np.isfinite(cost.low[rows])]).size:
        # A logarithmic axis has no place for an end that is not positive.
        whole = Axis(cost.column, cost.mean, np.maximum(cost.low, 1e-3 * cost.mean), cost.high)
        axes.errorbar(cost.mean[some], quality.mean[some], xerr=arms(whole, some), **style)


def _view(
    values: Array, floors: list[float], apart: Array, front: Front, lines: int
) -> tuple[float, float]:
    """Limits of the y axis: all `values`, and of the others what is less than a span away.

    Args:
        lines: of the recommended one's name.
    """
    low, high = spanning(float(values.min()), float(values.max()), front.quality.least_span)
    span = high - low
    near = [v for v in (*floors, *apart) if low - span <= v <= high + span]
    below = sum(floor < low - span for floor in floors)
    low, high = min([low, *near]), max([high, *near])
    # On the better side of the front is room, free of points, for the recommended one's name.
    room = 0.2 + 0.09 * (lines - 1)
    under, over = (0.06, room) if front.quality.better == "higher" else (room, 0.06)
    if any(floor in near for floor in floors):
        # Names of floors below the view stand at its foot: a floor in view must lie above them.
        under += 0.045 * below
    return low - under * (high - low), high + over * (high - low)


def _label_floors(axes: Axes, floors: dict[str, float]) -> None:
    """Thin lines, named in the right margin, the names pushed apart where they would touch."""
    low, high = axes.get_ylim()
    lowest_free = 0.0
    for name, value in sorted(floors.items(), key=lambda item: item[1]):
        height = (value - low) / (high - low)
        text = name
        if 0 <= height <= 1:
            axes.axhline(value, color="0.45", linewidth=0.7, linestyle=(0, (1, 2)), zorder=1)
        else:
            text = f"{'↓' if height < 0 else '↑'} {name} {value:.3g}"
            height = min(1.0, max(0.0, height))
        height = max(height, lowest_free)
        lowest_free = height + LINE
        axes.annotate(
            text, (1, height), xycoords="axes fraction", xytext=(3, 0), color="0.3",
            textcoords="offset points", va="center", fontsize=8, annotation_clip=False,
        )  # fmt: skip


def _mark(axes: Axes, place: tuple[float, float], text: str, above: bool) -> None:
    """Ring the recommended run and name it in the room kept free above or below all points."""
    axes.scatter(*place, s=95, facecolors="none", edgecolors="black", linewidths=1.2, zorder=4)
    across = float(axes.transAxes.inverted().transform(axes.transData.transform(place))[0])
    # The text takes about the panel's middle two thirds; the line leaves it nearest to the run.
    leave = min(0.98, max(0.02, (across - 0.17) / 0.66))
    # Its first or its last line stands at the panel's edge.
    inwards = text.count("\n") * LINE / 2
    height = 0.96 - inwards if above else 0.04 + inwards
    named = axes.annotate(
        text, place, xytext=(0.5, height), textcoords="axes fraction",
        ha="center", va="center", fontsize=8, zorder=1,
        arrowprops={"arrowstyle": "-", "color": "0.4", "linewidth": 0.7, "shrinkB": 5,
                    "relpos": (leave, 0 if above else 1)},
    )  # fmt: skip
    # Else panels shrink for a long name.
    named.set_in_layout(False)


def _draw_legend(figure: Figure, entries: list[Line2D], columns: int) -> None:
    """Below all panels, in at most so many columns, and in fewer where they would be cut off."""
    for count in range(columns, 0, -1):
        legend = figure.legend(
            handles=entries, loc="outside lower center", ncols=count,
            frameon=False, columnspacing=1.4, handletextpad=0.4,
        )  # fmt: skip
        if legend.get_window_extent().width <= figure.bbox.width or count == 1:
            return
        legend.remove()


def _legend(rows: Sequence[Series]) -> list[Line2D]:
    """One entry for each colour, shape and line that the picture has."""
    if not rows:
        return []
    used = pd.concat([series.configs[series.configs["n_seeds"] > 0] for series in rows])

    def entry(text: str, **style: object) -> Line2D:
        return Line2D([], [], label=text, **{"linestyle": "none", **style})  # type: ignore[arg-type]

    entries = [
        entry(f"input {name}", marker="o", color=colour, markersize=6)
        for name, colour in COLOURS.items()
        if name in set(used["input_transform"])
    ]
    entries += [
        entry(name, marker=shape, color="0.4", markersize=5)
        for name, shape in SHAPES.items()
        if name in set(used["architecture"])
    ]
    if any(has_bars(front) for series in rows for front in series.fronts):
        entries.append(entry("95 % interval of the mean", marker="|", markersize=11, color="0.4"))
    entries.append(entry("front", linestyle="-", color="black", linewidth=1))
    if any(series.recommendation is not None for series in rows):
        hollow = {"markerfacecolor": "none", "color": "black", "markersize": 9}
        entries.append(entry("recommended", marker="o", **hollow))
    off_scale = " (at the edge: off scale)"
    if any(len(series.collapsed) for series in rows):
        entries.append(entry(f"collapsed{off_scale}", marker="x", color="0.5", markersize=5))
        off_scale = ""  # said once
    if any(len(series.stopped) for series in rows):
        hollow = {"markerfacecolor": "none", "color": "0.5", "markersize": 5}
        entries.append(entry(f"stopped early{off_scale}", marker="D", **hollow))
    if any(floors(series.runs, front.quality.column) for series in rows for front in series.fronts):
        entries.append(entry("without a network", linestyle=(0, (1, 2)), color="0.45", linewidth=1))
    return entries
