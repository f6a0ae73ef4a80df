"""A sweep's saved workspace at Weights & Biases: its panels, its table, and saving it only once.

Needs wandb-workspaces, an optional package; `agent.dashboard` says so where it is missing.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Sequence
from urllib.parse import quote

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces.reports.v2.interface import PanelTypes

from agent.server.client import Place
from agent.study.records import NAMED
from agent.study.sweepfile import LOG_UNIFORM, USUAL_METRIC, Metric, Range, Sweep
from fno_runner.score.quantities import QUANTITIES

COSTS = ("model_params", "inference_time_s")
LOSSES = ("train_loss", "val_loss")
PICTURE = "reconstruction"
MOST_LINES = 10
"""A panel of single runs shows so many, the first of the table."""


def save_workspace(place: Place, sweep: Sweep) -> str:
    """Make a sweep's workspace, or bring it up to date; its URL.

    Its table and the sections made here become what they were at first, whatever they are now;
    its name and the sections that somebody added stay.

    Raises:
        Exception: whatever the client and the package meet; `in_one_line` tells it.
    """
    workspace = _workspace(place, sweep)
    sections = _sections(sweep)
    made_here = {section.name for section in sections}
    added = [section for section in workspace.sections if section.name not in made_here]
    workspace.sections = [*sections, *added]
    workspace.runset_settings = _table(place, sweep)
    # A filter that reads the same would stay switched off where somebody switched it off.
    workspace._stashed_filters_v2 = None
    workspace.save()
    return quote(str(workspace.url), safe="/:?=&")  # a project's name may have spaces, say


def _workspace(place: Place, sweep: Sweep) -> ws.Workspace:
    """The sweep's workspace as the server has it, or an empty one that will be found again."""
    # What it is called in its URL: the same for everybody.
    identifier = hashlib.sha256(str(place.sweep).encode()).hexdigest()[:11]
    try:
        return ws.Workspace.from_url(f"/{place.entity}/{place.project}?nw={identifier}")
    except ValueError as error:
        if "not found in project" not in str(error):
            raise
    # The package takes every symbol (×, +, =) for an emoji, and refuses the name.
    letters = [" " if unicodedata.category(c)[0] in "SC" else c for c in sweep.name]
    workspace = ws.Workspace(
        entity=place.entity,
        project=place.project,
        name=f"{' '.join(''.join(letters).split())} (sweep {place.sweep})",
    )
    # Without a name it would draw one by chance, a new one in every call. There is no public way
    # to give it one: the package's own message names this attribute.
    workspace._internal_name = f"nw-{identifier}-v"
    return workspace


def _sections(sweep: Sweep) -> list[ws.Section]:
    quality = _quality(sweep)
    return [
        _section("Parallel coordinates", [_parallel(sweep, quality)]),
        _section("Pareto", [_front(cost, quality) for cost in COSTS]),
        _section("Loss curves", _losses(sweep)),
        _section(
            "Reconstructions",
            [wr.MediaBrowser(title=PICTURE, media_keys=[PICTURE], num_columns=2)],
        ),
    ]


def _section(name: str, panels: Sequence[PanelTypes]) -> ws.Section:
    """Panels of one size, up to three side by side."""
    columns = min(len(panels), 3)
    layout = ws.SectionLayoutSettings(columns=columns, rows=math.ceil(len(panels) / columns))
    return ws.Section(name=name, panels=[*panels], is_open=True, layout_settings=layout)


def _parallel(sweep: Sweep, quality: Metric) -> wr.ParallelCoordinatesPlot:
    """From the swept keys to what they cost and what they bring."""

    def logarithmic(key: str) -> bool:
        values = sweep.parameters.get(key)
        return isinstance(values, Range) and values.distribution == LOG_UNIFORM

    column = wr.ParallelCoordinatesPlotColumn
    return wr.ParallelCoordinatesPlot(
        title=f"{', '.join(_axes(sweep))} to {quality.name}",
        columns=[
            *(column(wr.Config(key), log=logarithmic(key)) for key in _axes(sweep)),
            *(column(wr.SummaryMetric(cost), log=True) for cost in COSTS),
            column(wr.SummaryMetric(quality.name)),
        ],
    )


def _front(cost: str, quality: Metric) -> wr.ScatterPlot:
    """Quality against cost; the running best is the Pareto front."""
    return wr.ScatterPlot(
        title=f"{quality.name} against {cost}",
        x=wr.SummaryMetric(cost),
        y=wr.SummaryMetric(quality.name),
        log_x=True,
        running_ymax=quality.maximize,
        running_ymin=not quality.maximize,
    )


def _losses(sweep: Sweep) -> list[wr.LinePlot]:
    """The best runs' own curves, then the mean and the span of all runs with a value of a key."""
    best = wr.LinePlot(
        title="loss of the best runs", x="epoch", y=[*LOSSES], max_runs_to_show=MOST_LINES
    )
    by_key = [
        wr.LinePlot(
            title=f"loss by {key}",
            x="epoch",
            y=[*LOSSES],
            groupby=wr.Config(key),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )
        for key in _axes(sweep)
        if not isinstance(sweep.parameters.get(key), Range)  # every run would be its own group
    ]
    return [best, *by_key]


def _table(place: Place, sweep: Sweep) -> ws.RunsetSettings:
    """The sweep's runs, the best first."""
    quality = _quality(sweep)
    measured = (quality.name, "psnr_phase", "mae_phase", *COSTS, "train_time_s", "status", "error")
    return ws.RunsetSettings(
        filters=ws.And(ws.Metric("Sweep") == place.sweep),
        order=[ws.Ordering(ws.Summary(quality.name), ascending=not quality.maximize)],
        pinned_columns=[
            *("run:displayName", "run:state"),
            *(f"config:{key}.value" for key in _axes(sweep)),
            *(f"summary:{key}" for key in dict.fromkeys(measured)),
        ],
    )


def _axes(sweep: Sweep) -> tuple[str, ...]:
    return sweep.swept or NAMED


def _quality(sweep: Sweep) -> Metric:
    """The sweep's metric, unless it is a cost, which is an axis of its own."""
    metric = sweep.metric or USUAL_METRIC
    return USUAL_METRIC if QUANTITIES[metric.name].of == "cost" else metric
