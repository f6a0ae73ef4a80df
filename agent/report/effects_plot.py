"""main_effects.png: what each swept key does to the quality, averaged over all else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agent.analysis.configurations import short_texts
from agent.analysis.effects import Effect
from agent.analysis.series import Series
from agent.report.figures import (
    MAX_SERIES,
    OKABE_ITO,
    around,
    log_axis,
    new_figure,
    spanning,
)
from agent.report.pareto_plot import against
from agent.study.quality import Array

PANEL = (2.5, 2.9)
"""Width and height of a panel [in]."""
MOST_KEYS = 8
MOST_LEVELS = 8
"""With more numbers than this a key has an axis of numbers, not a tick for each."""
MOST_LETTERS = 24
"""Of a panel's ticks beside each other; longer ones stand upright."""
MOST_LOG_LABELS = 3
"""Of a logarithmic axis, '0.0003' among them."""


def effects_figure(all_series: Sequence[Series]) -> Figure:
    """A panel a key, the most important first; the panels of a series share their y axis.

    A point is the mean of the configurations with that value, its bar the 95 % interval that the
    seeds leave. Series in which nothing varies are left out.
    """
    shown = [series for series in all_series if series.effects][:MAX_SERIES]
    columns = max(len(in_order(series)) for series in shown)
    with new_figure(columns * PANEL[0] + 0.6, len(shown) * PANEL[1]) as figure:
        axes = figure.subplots(len(shown), columns, squeeze=False, sharey="row")
        for series, row in zip(shown, axes, strict=True):
            keys = in_order(series)
            for effect, panel in zip(keys, row, strict=False):
                _panel(panel, effect)
            for panel in row[len(keys) :]:
                panel.set_visible(False)
            quality = series.reported.axis + against(series, series.reported)
            barred = any(np.isfinite(effect.low).any() for effect in series.effects)
            row[0].set_ylabel(quality + ("\nmean, 95 % interval" if barred else ""))
            low, high = row[0].get_ylim()
            row[0].set_ylim(*spanning(low, high, series.reported.least_span))
            if series.name:
                row[0].annotate(
                    series.name, (0, 1), xytext=(0, 22), xycoords="axes fraction",
                    textcoords="offset points", fontweight="bold",
                )  # fmt: skip
    return figure


def in_order(series: Series) -> list[Effect]:
    """The keys that are shown, the most important first."""
    known = np.nan_to_num([effect.importance for effect in series.effects])
    return [series.effects[i] for i in np.argsort(-known, kind="stable")[:MOST_KEYS]]


def note(effect: Effect) -> str:
    """What is said of a key: 'importance 62 %', and whether others may share in its effect."""
    said = f"importance {100 * effect.importance:.0f} %" if np.isfinite(effect.importance) else ""
    return ", ".join(filter(None, [said, "" if effect.balanced else "not balanced"]))


def is_ordered(effect: Effect) -> bool:
    """Whether a line between the values means something."""
    return all(isinstance(value, int | float) for value in effect.values)


def numbers_of(effect: Effect) -> Array | None:
    """Where the values lie on an axis of numbers; None where each has a place of its own."""
    if len(effect.values) <= MOST_LEVELS or not is_ordered(effect):
        return None
    return np.array(effect.values, dtype=float)


def is_logarithmic(numbers: Array) -> bool:
    """Whether numbers span so much that an even axis would crowd most of them at its foot."""
    return bool(numbers.min() > 0 and numbers.max() > 10 * numbers.min())


def _panel(axes: Axes, effect: Effect) -> None:
    numbers = numbers_of(effect)
    places = np.arange(len(effect.values)) if numbers is None else numbers
    arms = np.nan_to_num([effect.mean - effect.low, effect.high - effect.mean])
    axes.errorbar(
        places, effect.mean, yerr=arms, fmt="o", markersize=5, color=OKABE_ITO[0], elinewidth=1,
        capsize=2.5,
    )  # fmt: skip
    if is_ordered(effect):
        axes.plot(places, effect.mean, color="0.6", linewidth=0.8, zorder=1)
    if numbers is None:
        texts = short_texts(effect.values)
        upright = sum(len(text) + 1 for text in texts) > MOST_LETTERS
        axes.set_xticks(places, texts, rotation=90 if upright else 0)
        axes.set_xlim(-0.5, len(places) - 0.5)
    elif is_logarithmic(numbers):
        log_axis(axes, "x", *around(numbers), most=MOST_LOG_LABELS)
    axes.set_xlabel(effect.key)
    axes.set_title(note(effect), fontsize=8, color="0.3")
