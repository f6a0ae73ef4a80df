"""ladder.png: which configuration is the choice at which price, and how much seeds scatter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agent.analysis.price import FRUGAL
from agent.analysis.recommendation import Recommendation
from agent.analysis.series import Series
from agent.report.figures import MAX_SERIES, OKABE_ITO, around, log_axis, new_figure, wrapped
from agent.report.pareto_plot import SHAPES

PANEL = (5.2, 3.1)
"""Width and least height of a panel [in]."""
LINE = 0.15
"""Height of a line of a configuration's name [in]."""


def ladder_figure(all_series: Sequence[Series]) -> Figure:
    """Two panels a series: the ladder of prices, and the scatter of seeds against the cost.

    A bar of the ladder spans the prices at which its configuration is the choice; it is as thick as
    the others, and the asked price is a line. A point of the scatter is the standard deviation of a
    configuration's own seeds, the dash at its cost what all seeds let expect; a cross is a
    configuration of which a seed collapsed or diverged. Series without a choice are left out.
    """
    shown = [series for series in all_series if series.recommendation is not None][:MAX_SERIES]
    names = [_names(series) for series in shown]
    heights = [
        max(PANEL[1], 1 + LINE * sum(2 + name.count("\n") for name in of_one)) for of_one in names
    ]
    with new_figure(2 * PANEL[0], sum(heights)) as figure:
        axes = figure.subplots(len(shown), 2, squeeze=False, height_ratios=heights)
        for series, of_one, (rungs, scatter) in zip(shown, names, axes, strict=True):
            assert series.recommendation is not None
            _ladder(rungs, of_one, series.recommendation)
            _scatter(scatter, series, series.recommendation)
            if series.name:
                # Above the price, which stands at the panel's edge.
                rungs.set_title(series.name, loc="left", fontsize=9, fontweight="bold", pad=16)
    return figure


def _names(series: Series) -> list[str]:
    """Of the configurations on a series' ladder, the most frugal one first."""
    assert series.recommendation is not None
    names = series.configs["configuration"].tolist()
    return [wrapped(names[rung.config]) for rung in series.recommendation.rungs[::-1]]


def _ladder(axes: Axes, names: Sequence[str], chosen: Recommendation) -> None:
    """A bar a configuration of `names`, the first at the foot."""
    steps = [rung.low for rung in chosen.rungs if rung.low > 0]
    known = [*steps, *(p for p in (chosen.price, FRUGAL * chosen.price) if p > 0)]
    low, high = (min(known) / 2, max(known) * 2) if known else (1e-3, 1e-1)
    for place, rung in enumerate(chosen.rungs[::-1]):
        left, right = max(rung.low, low), min(rung.high, high)
        mine = rung.config == chosen.config
        axes.barh(
            place, right - left, left=left, height=0.62,
            color=OKABE_ITO[0] if mine else "0.75", edgecolor="black", linewidth=0.6,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=8)
    log_axis(axes, "x", low, high)
    axes.set_ylim(-0.6, len(names) - 0.4)
    if low < chosen.price < high:
        axes.axvline(chosen.price, color="black", linewidth=1, linestyle="--")
        axes.annotate(
            f"price {chosen.price:g}", (chosen.price, 1), xytext=(3, 3), fontsize=8,
            xycoords=("data", "axes fraction"), textcoords="offset points", annotation_clip=False,
        )  # fmt: skip
    axes.set_xlabel(f"what a doubling of the {chosen.cost.label}\nmust bring in "
                    f"{chosen.choice.by.heading}")  # fmt: skip


def _scatter(axes: Axes, series: Series, chosen: Recommendation) -> None:
    """The scatter of what is chosen by, on logarithmic axes; equal seeds have no place there."""
    scatter = series.of.means[chosen.choice.by.column].scatter
    cost = series.of.means[chosen.options.cost].mean
    failed = (series.configs["n_collapsed"] + series.configs["n_diverged"]).to_numpy(float) > 0
    drawn = np.isfinite(scatter.own) & (scatter.own > 0) & np.isfinite(cost)
    axes.set_xlabel(chosen.cost.axis)
    axes.set_ylabel(f"standard deviation of seeds,\n{chosen.choice.by.heading}")
    if not drawn.any():
        axes.text(0.5, 0.5, "no configuration has two seeds that differ", ha="center",
                  transform=axes.transAxes, color="0.3")  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks([])
        return
    for number, (name, rows) in enumerate(series.configs.groupby("architecture").groups.items()):
        mine = drawn & series.configs.index.isin(rows)
        if not mine.any():
            continue
        colour = OKABE_ITO[number % len(OKABE_ITO)]
        for some, marker in ((mine & ~failed, SHAPES.get(name, "o")), (mine & failed, "x")):
            axes.scatter(
                cost[some], scatter.own[some], s=22, color=colour, marker=marker, zorder=3,
                label=name if marker != "x" else None,
            )  # fmt: skip
        axes.scatter(
            cost[mine], scatter.expected[mine], s=70, color=colour, marker="_", linewidths=1.6,
            zorder=2,
        )  # fmt: skip
    log_axis(axes, "x", *around(cost[drawn]))
    log_axis(axes, "y", *around(np.concatenate([scatter.own[drawn], scatter.expected[drawn]])))
    axes.scatter([], [], marker="_", s=70, color="0.4", label="expected by the others")
    if (drawn & failed).any():
        axes.scatter([], [], marker="x", s=22, color="0.4", label="a seed collapsed or diverged")
    # Above: in the panel it would hide points, of which a large study has them everywhere.
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
