"""growth.png: what grows how steeply, beside what was to be expected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from agent.report.figures import OKABE_ITO, new_figure, save_png
from benchmarks.growth import MEMORY, PASS, STEP, Grown

AXES = {
    "width": "width [channels]",
    "modes": "modes a dimension",
    "batch": "batch [patterns]",
    "patterns": "patterns of the set",
}
ROWS = {
    STEP: "training step [s]",
    PASS: "inference, one pass [s]",
    MEMORY: "peak memory of training [MiB]",
}
LOOKS: dict[str, tuple[str, str, Literal["--", ":"]]] = {
    "fno": (OKABE_ITO[0], "o", "--"),
    "hybrid": (OKABE_ITO[5], "s", ":"),
}
"""Colour, marker and, for the floor, dashes: the two can be told apart without colour."""
PANEL = (2.9, 2.5)
"""Width and height of a panel [in]."""


def draw_growth(grown: Sequence[Grown], title: str, path: Path) -> None:
    """A panel for each quantity and axis, log-log, with the floor and the slopes at the right end.

    Raises:
        MachineError: the disk refuses the picture.
    """
    with new_figure(PANEL[0] * len(AXES), PANEL[1] * len(ROWS) + 0.6) as figure:
        panels = figure.subplots(len(ROWS), len(AXES), sharex="col", sharey="row")
        for row, (quantity, y_label) in zip(panels, ROWS.items(), strict=True):
            row[0].set_ylabel(y_label)
            for panel, axis in zip(row, AXES, strict=True):
                here = [g for g in grown if (g.measurement.quantity, g.axis) == (quantity, axis)]
                _panel(panel, here)
            low, high = row[0].get_ylim()
            row[0].set_ylim(low, high * (high / low) ** 0.25)  # the slopes are written there
        for panel, label in zip(panels[-1], AXES.values(), strict=True):
            panel.set_xlabel(label)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        handles = [
            Line2D([], [], color=colour, marker=marker, label=f"{name}, measured")
            for name, (colour, marker, _) in LOOKS.items()
        ]
        handles += [
            Line2D([], [], color=colour, linestyle=dashes, label=f"{name}, floor")
            for name, (colour, _, dashes) in LOOKS.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    save_png(figure, path)


def _panel(panel: Axes, grown: Sequence[Grown]) -> None:
    panel.set(xscale="log", yscale="log")
    ticks = sorted({g.at for g in grown})
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    panel.grid(which="major", linewidth=0.4, alpha=0.5)
    for height, (name, (colour, marker, dashes)) in enumerate(LOOKS.items()):
        mine = sorted(
            (g for g in grown if g.measurement.network.startswith(f"{name} ")), key=lambda g: g.at
        )
        at = [g.at for g in mine]
        measured, expected = [g.measurement.value for g in mine], [g.expected for g in mine]
        panel.plot(at, measured, color=colour, marker=marker, markersize=4, linewidth=1.2)
        panel.plot(at, expected, color=colour, linestyle=dashes, linewidth=1.2)
        text = f"slope {_slope(at, measured)}, floor {_slope(at, expected)}"
        panel.text(
            0.04, 0.97 - 0.09 * height, text, color=colour, fontsize=7.5, va="top",
            transform=panel.transAxes,
        )  # fmt: skip


def last_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """d ln y / d ln x between the last two points; not a number where there are none."""
    if len(x) < 2:
        return float("nan")
    return float(np.log(y[-1] / y[-2]) / np.log(x[-1] / x[-2]))


def _slope(x: Sequence[float], y: Sequence[float]) -> str:
    # + 0.0: no minus before a zero.
    return f"{round(last_slope(x, y), 1) + 0.0:.1f}".replace("-", "−")
