"""pareto_plot.png: what each configuration costs, what it gives, and the front between the two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.style
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

from agent.configurations import COST
from agent.criterion import PHASE_SSIM, numbers
from agent.pareto import front
from agent.series import Series
from fno_runner.config import RunConfig, choices
from fno_runner.files import write_atomically

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Colours that the colour-blind tell apart (Okabe and Ito, 2008), its black kept for the front."""

MARKERS = "osD^vP"
TRANSFORMS = choices(RunConfig.model_fields["input_transform"]) or ()
ARCHITECTURES = choices(RunConfig.model_fields["architecture"]) or ()
COLOURS = dict(zip(TRANSFORMS, OKABE_ITO, strict=False))
SHAPES = dict(zip(ARCHITECTURES, MARKERS, strict=False))

PANEL = (4.0, 3.6)
"""Width and height of a panel [in]."""

DPI = 200
MAX_SERIES = 12
"""More series than this are not drawn: a page has an end."""

STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


@dataclass(frozen=True)
class Scale:
    """One axis: its column, its label with unit, whether more is better, the least span shown."""

    column: str
    label: str
    more_is_better: bool = True
    least_span: float = 0.0


PARAMETERS = Scale(COST, "trainable parameters")
TIME = Scale("inference_time_s", "inference time of the test set [s]")
SSIM = Scale("ssim_phase", "phase SSIM", least_span=0.05)
PSNR = Scale("psnr_phase", "phase PSNR [dB]", least_span=1.0)
HELD_OUT = Scale("r_held_out", "R factor, held-out frames", False, least_span=0.005)
TRAINED = Scale("r_train", "R factor, training frames", False, least_span=0.005)

SIMULATED = ((PARAMETERS, SSIM), (PARAMETERS, PSNR), (TIME, SSIM))
SCAN = ((PARAMETERS, HELD_OUT), (PARAMETERS, TRAINED), (TIME, HELD_OUT))

FLOORS = {"flat": "flat", "projection_1": "1 proj.", "projection_50": "50 proj."}
"""Reconstructions that took no network, and what the picture calls them."""


def pareto_figure(all_series: Sequence[Series], title: str = "") -> Figure:
    """Three panels a series of comparable runs, one series below the other.

    Cost runs along a logarithmic axis; the front is a step line; the recommended run is ringed
    and named; floors are labelled in the right margin. The y axis shows the finished runs and at
    most as much again below and above them: a floor or a collapsed run beyond that is drawn at
    the edge, the floor with its value. Series without a comparable run are left out.
    """
    drawn = [one for one in all_series if one.fronts]
    with matplotlib.style.context(["default", STYLE]):
        rows = drawn[:MAX_SERIES]
        figure = Figure(
            figsize=(3 * PANEL[0], max(1, len(rows)) * PANEL[1] + 0.6),
            layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08),
        )
        FigureCanvasAgg(figure)
        axes = figure.subplots(max(1, len(rows)), 3, squeeze=False)
        for one, line in zip(rows, axes, strict=False):
            for (x, y), panel in zip(
                SIMULATED if one.criterion.column == PHASE_SSIM.column else SCAN, line, strict=True
            ):
                _panel(panel, one, x, y)
            if one.name:
                line[0].set_title(one.name, loc="left", fontsize=9, fontweight="bold")
        if len(drawn) > len(rows):
            title += f"; the first {len(rows)} of {len(drawn)} series"
        if title:
            figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        handles = _legend(rows)
        figure.legend(
            handles=handles, loc="outside lower center", ncols=10, frameon=False,
            columnspacing=1.4, handletextpad=0.4,
        )  # fmt: skip
        # Laid out here, so that the picture does not depend on the style of who saves it.
        figure.draw_without_rendering()
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure; the same figure gives the same bytes (no time, no version of a program).

    Raises:
        MachineError: the disk refuses the write.
    """
    with matplotlib.style.context(["default", STYLE]):
        write_atomically(
            path,
            lambda stream: figure.savefig(
                stream, format="png", dpi=DPI, metadata={"Software": None}
            ),
        )


def _panel(axes: Axes, one: Series, x: Scale, y: Scale) -> None:
    configs, runs = one.configs, one.runs
    cost, quality = numbers(configs, mean_column(x)), numbers(configs, mean_column(y))
    axes.set_xlabel(x.label)
    reference = " against the reference" if "reference" in set(runs["metrics_against"]) else ""
    axes.set_ylabel(y.label + (reference if y in (SSIM, PSNR) else ""))
    known = np.isfinite(cost) & np.isfinite(quality)
    if not known.any():
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
        return
    collapsed_cost = numbers(one.collapsed, x.column)
    collapsed_quality = numbers(one.collapsed, y.column)
    _log_axis(axes, np.concatenate([cost[known], collapsed_cost[np.isfinite(collapsed_cost)]]))
    floors = _floors(runs, y.column)
    low, high = _view(quality[known], list(floors.values()), collapsed_quality, y)
    axes.set_ylim(low, high)

    on_front = front(cost.tolist(), (quality if y.more_is_better else -quality).tolist())
    # Up to each next cost the front's last point is the best one can have: a step, not a slope.
    axes.step(
        [*cost[on_front], axes.get_xlim()[1]],
        [*quality[on_front], quality[on_front[-1]]],
        where="post", color="black", linewidth=1, zorder=2,
    )  # fmt: skip
    for architecture, transform in sorted(set(zip(*_names(configs), strict=True))):
        mine = known & np.array(
            [pair == (architecture, transform) for pair in zip(*_names(configs), strict=True)]
        )
        axes.scatter(
            cost[mine], quality[mine], s=26, marker=SHAPES[architecture], zorder=3,
            color=COLOURS[transform], edgecolors="white", linewidths=0.5,
        )  # fmt: skip
    edge = 0.03 * (high - low)
    axes.scatter(
        collapsed_cost, np.clip(collapsed_quality, low + edge, high - edge), s=26, marker="x",
        color="0.5", linewidths=1, zorder=3,
    )  # fmt: skip
    _label_floors(axes, floors)
    if one.recommendation is not None and known[one.recommendation.config]:
        chosen = one.recommendation.config
        place = float(cost[chosen]), float(quality[chosen])
        _mark(axes, place, configs["configuration"][chosen], above=y.more_is_better)


def mean_column(scale: Scale) -> str:
    """The column of a scale's mean in a table of configurations."""
    return scale.column if scale.column == COST else f"{scale.column}_mean"


def _names(runs: pd.DataFrame) -> tuple[list[str], list[str]]:
    return runs["architecture"].tolist(), runs["input_transform"].tolist()


def _log_axis(axes: Axes, values: npt.NDArray[np.float64]) -> None:
    """A logarithmic axis around `values` with labels at 1, 2 and 5 that read as plain numbers."""
    low, high = float(values.min()), float(values.max())
    # A factor of five at least, or the axis could end up with a single label.
    pad = max(1.25, math.sqrt(max(1.0, 5 / (high / low))))
    axes.set_xscale("log")
    axes.set_xlim(low / pad, high * pad)
    decades = math.log10(high / low * pad**2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(
        EngFormatter(sep="") if low >= 1000 else FuncFormatter(lambda value, _: f"{value:g}")
    )


def _view(
    values: npt.NDArray[np.float64],
    floors: list[float],
    collapsed: npt.NDArray[np.float64],
    scale: Scale,
) -> tuple[float, float]:
    """Limits of the y axis: all `values`, and of the others what is less than a span away."""
    low, high = float(values.min()), float(values.max())
    if high - low < scale.least_span:
        low, high = (low + high - scale.least_span) / 2, (low + high + scale.least_span) / 2
    span = high - low
    near = [v for v in (*floors, *collapsed) if low - span <= v <= high + span]
    below = sum(floor < low - span for floor in floors)
    low, high = min([low, *near]), max([high, *near])
    # On the better side of the front is room, free of points, for the recommended run's name.
    under, over = (0.06, 0.2) if scale.more_is_better else (0.2, 0.06)
    if any(floor in near for floor in floors):
        # Names of floors below the view stand at its foot: a floor in view must lie above them.
        under += 0.045 * below
    return low - under * (high - low), high + over * (high - low)


def _floors(runs: pd.DataFrame, column: str) -> dict[str, float]:
    """Floors that all runs agree on, to four digits (threads may round differently)."""
    agreed = {}
    runs = runs[runs["status"] == "finished"]
    for floor, name in FLOORS.items():
        values = numbers(runs, f"{column}_{floor}")
        if np.isfinite(values).all() and np.allclose(values, values[0], rtol=1e-4, atol=0):
            agreed[name] = float(values[0])
    return agreed


def _label_floors(axes: Axes, floors: dict[str, float]) -> None:
    """Thin lines, named in the right margin, the names pushed apart where they would touch."""
    low, high = axes.get_ylim()
    # A line of text as a part of the panel's height.
    gap = 10 / (72 * PANEL[1] * 0.75)
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
        lowest_free = height + gap
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
    axes.annotate(
        text, place, xytext=(0.5, 0.96 if above else 0.04), textcoords="axes fraction",
        ha="center", va="center", fontsize=8, zorder=1,
        arrowprops={"arrowstyle": "-", "color": "0.4", "linewidth": 0.7, "shrinkB": 5,
                    "relpos": (leave, 0 if above else 1)},
    )  # fmt: skip


def _legend(rows: Sequence[Series]) -> list[Line2D]:
    """One entry for each colour, shape and line that the picture has."""
    if not rows:
        return []
    runs = pd.concat([one.configs[one.configs["n_seeds"] > 0] for one in rows])
    used_shapes, used_colours = (set(names) for names in _names(runs))

    def entry(text: str, **style: object) -> Line2D:
        return Line2D([], [], label=text, **{"linestyle": "none", **style})  # type: ignore[arg-type]

    entries = [
        entry(f"input {name}", marker="o", color=colour, markersize=6)
        for name, colour in COLOURS.items()
        if name in used_colours
    ]
    entries += [
        entry(name, marker=shape, color="0.4", markersize=5)
        for name, shape in SHAPES.items()
        if name in used_shapes
    ]
    entries.append(entry("front", linestyle="-", color="black", linewidth=1))
    entries.append(
        entry("recommended", marker="o", markersize=9, markerfacecolor="none", color="black")
    )
    if any(len(one.collapsed) for one in rows):
        entries.append(
            entry("collapsed (at the edge: off scale)", marker="x", color="0.5", markersize=5)
        )
    if any(_floors(one.runs, column) for one in rows for column in ("ssim_phase", "psnr_phase")):
        entries.append(entry("without a network", linestyle=(0, (1, 2)), color="0.45", linewidth=1))
    return entries
