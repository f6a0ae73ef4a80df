"""What report.html's plots and table are drawn from: the configurations, as columns of JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agent.analysis.choice_options import COST
from agent.analysis.configurations import CONFIGURATION, FLOPS, TIME, label, short_texts
from agent.analysis.effects import Effect
from agent.analysis.pareto import Front
from agent.analysis.probabilities import whole_percents
from agent.analysis.series import Series
from agent.report.correlations import correlations
from agent.report.effects_plot import in_order, is_logarithmic, is_ordered, note, numbers_of
from agent.report.figures import MAX_SERIES, OKABE_ITO
from agent.report.gallery import Gallery, seed_records
from agent.report.pareto_plot import COLOURS, SHAPES, against, apart, floors
from agent.report.picks import choice_data
from agent.report.reconstructions import limits_of, thumbnail
from agent.study.quality import Array, numbers, words
from agent.study.records import NAMED
from fno_runner.result import RunResult
from fno_runner.score.quantities import FLOORS, QUANTITIES, Quantity

Json = dict[str, Any]

METRICS = (
    *("ssim_phase", "psnr_phase", "mae_phase", "pearson_phase", "val_ssim_phase"),
    *("r_held_out_from_object", "r_held_out", "r_train", TIME, "latency_s", "train_time_s"),
)
"""Means over seeds, with their intervals."""

PLAIN: dict[str, Json] = {
    "label": {"label": "configuration"},
    "status": {"label": "status"},
    "n_seeds": {"label": "seeds", "digits": 0, "better": "higher"},
    "n_lost": {"label": "not finished", "digits": 0, "better": "lower"},
    "on_front": {"label": "on the front", "unit": "%", "digits": 0, "better": "higher"},
}
"""Columns that are no quantities of a run; digits: behind the point, else four significant ones."""
PARALLEL = (COST, TIME, "ssim_phase", "psnr_phase", "r_held_out", "r_train")
"""Axes behind those of the configuration."""
ONLY_IN_DETAIL = ("mae_phase", "pearson_phase", "latency_s")
"""Left out of the table, so that it fits a screen."""
SYMBOLS = {"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down",
           "P": "cross"}  # fmt: skip
"""What plotly calls matplotlib's markers."""
MOST_APART = 500
"""Collapsed runs drawn in one plot."""


def page_data(all_series: Sequence[Series], galleries: Sequence[Gallery], study: Path) -> Json:
    """The page's `data`; strict JSON, the same for the same runs.

    columns: what a column is called, its unit, digits, which way is better.
    rows: a list a column, one element a configuration of any series; null where unknown.
    series: what differs between them: fronts, floors, the recommended row, the choice, collapsed
        and stopped runs.
    spans: of a quality that a plot's axis never falls below.
    styles: how an architecture with an input transform is drawn.
    table, detail, parallel: the columns that each shows.
    thumbnails: data URIs by row.
    losses, correlations: curves of the pictured runs.
    """
    offsets = np.cumsum([0, *(len(series.configs) for series in all_series)]).tolist()
    varied = [
        key
        for key in CONFIGURATION
        if key not in NAMED
        and len({str(v) for series in all_series for v in series.configs[key]}) > 1
    ]
    rows = _rows(all_series, varied)
    columns = {key: _key_column(all_series, key) for key in (*NAMED, *varied)}
    columns |= PLAIN | {key: _column(QUANTITIES[key]) for key in (COST, FLOPS, *METRICS)}
    told = [
        _series(series, first, rows, columns)
        for series, first in zip(all_series, offsets, strict=False)
    ]
    records = seed_records(galleries, study)
    known = {key for key, values in rows.items() if any(v is not None for v in values)}
    if not any(rows.get("n_lost", [])):
        known.discard("n_lost")
    measured = [key for key in (COST, FLOPS, *METRICS) if key in known]
    counts = [key for key in ("n_seeds", "n_lost", "on_front") if key in known]
    return {
        "columns": columns,
        "rows": {key: values for key, values in rows.items() if key in known},
        "series": told,
        "styles": {
            f"{architecture}, {transform}": {"color": colour, "symbol": SYMBOLS[shape]}
            for architecture, shape in SHAPES.items()
            for transform, colour in COLOURS.items()
        },
        "spans": {
            front.quality.column: front.quality.least_span
            for series in all_series
            for front in series.fronts
        },
        "table": ["label", *counts, *(key for key in measured if key not in ONLY_IN_DETAIL)],
        "detail": [*measured, *counts],
        "parallel": [*NAMED, *varied, *(key for key in PARALLEL if key in known)],
        "thumbnails": {
            str(first + config): source
            for gallery, first in zip(galleries, offsets, strict=False)
            for config, source in thumbnails(gallery).items()
        },
        "effects": [_effects(series) for series in all_series[:MAX_SERIES] if series.effects],
        "losses": _losses(records),
        "correlations": correlations(records),
    }


def thumbnails(gallery: Gallery) -> dict[int, str]:
    """Phases as data URIs by row of `configs`, all on the scale of what they are compared with."""
    if not gallery.reconstructions:
        return {}
    first = next(iter(gallery.reconstructions.values()))
    limits = limits_of(first.phase if first.against is None else first.against[1])
    return {
        config: thumbnail(reconstruction.phase, limits)
        for config, reconstruction in gallery.reconstructions.items()
    }


def _key_column(all_series: Sequence[Series], key: str) -> Json:
    """A key of the configuration: what it takes is named, a few numbers too."""
    values = {value for series in all_series for value in series.configs[key]} - {None}
    are_numbers = bool(values) and all(isinstance(value, int | float) for value in values)
    log = are_numbers and is_logarithmic(np.array([*values], dtype=float))
    return {"label": key.replace("_", " "), "is_key": True, "log": log}


def _column(quantity: Quantity) -> Json:
    column = {"label": quantity.label, "better": quantity.better, "log": quantity.logarithmic}
    column |= {"unit": quantity.unit} if quantity.unit else {}
    return column | ({} if quantity.digits is None else {"digits": quantity.digits})


def _rows(all_series: Sequence[Series], varied: Sequence[str]) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = {"series": []}
    for index, series in enumerate(all_series):
        configs = series.configs
        rows["series"] += [index] * len(configs)
        own: dict[str, list[Any]] = {
            "label": configs["configuration"].tolist(),
            "kind": [", ".join(kind) for kind in words(configs, NAMED[:2])],
            "status": _statuses(series),
            "n_seeds": configs["n_seeds"].tolist(),
            "n_lost": _lost(series),
            "on_front": [None] * len(configs),
        }
        if series.fronts:
            own["on_front"] = _short(whole_percents(series.fronts[0].probability))
        for key in (*NAMED, *varied):
            told = configs[key].tolist()
            own[key] = [
                float(text) if isinstance(value, float) else value
                for value, text in zip(told, short_texts(told), strict=True)
            ]
        for key in (COST, FLOPS):
            own[key] = _short(numbers(configs, key))
        for key in METRICS:
            for end, statistic in (("", "mean"), ("_low", "low"), ("_high", "high")):
                own[key + end] = _short(numbers(configs, f"{key}_{statistic}"))
        for key, values in own.items():
            rows.setdefault(key, []).extend(values)
    return rows


def _series(
    series: Series, first: int, rows: dict[str, list[Any]], columns: dict[str, Json]
) -> Json:
    """What the page knows of a series; a front over another device's time adds a column."""
    count = len(series.configs)
    told = []
    for front in series.fronts:
        x = front.cost.column
        if front.device is not None:
            x = f"{x} on {front.device}"
            columns[x] = {**columns[front.cost.column], "label": f"inference on {front.device}"}
            for end, values in (("", front.cost.mean), ("_low", front.cost.low),
                                ("_high", front.cost.high)):  # fmt: skip
                column = rows.setdefault(x + end, [None] * len(rows["series"]))
                column[first : first + count] = _short(values)
        told.append(
            {
                "x": x,
                "y": front.quality.column,
                "rows": [first + i for i in front.members],
                # An export's limits are on times of most runs' device.
                "asks": x in QUANTITIES,
                **{how: _places(runs, front) for how, runs in apart(series, front).items()},
            }
        )
    chosen = series.recommendation
    return {
        "name": series.name,
        "reported": series.reported.column,
        "suffix": against(series, series.reported),
        "recommended": None if chosen is None else first + chosen.config,
        "choice": choice_data(series, first),
        "fronts": told,
        "floors": {
            y: {FLOORS[key]: value for key, value in floors(series.runs, y).items()}
            for y in sorted({front.quality.column for front in series.fronts})
        },
    }


def _effects(series: Series) -> Json:
    """Main effects on what is reported, the most important key first."""
    return {
        "name": series.name,
        "quality": series.reported.axis + against(series, series.reported),
        "factors": [_factor(effect) for effect in in_order(series)],
    }


def _factor(effect: Effect) -> Json:
    """An effect; its levels lie at `numbers`, or in their order where those are null."""
    places = numbers_of(effect)
    return {
        "name": effect.key,
        "note": note(effect),
        "levels": short_texts(effect.values),
        "numbers": None if places is None else places.tolist(),
        "log": places is not None and is_logarithmic(places),
        "ordered": is_ordered(effect),
        "mean": _short(effect.mean),
        "low": _short(effect.low),
        "high": _short(effect.high),
    }


def _places(runs: pd.DataFrame, front: Front) -> Json:
    """Where runs that are shown and never compared would lie in a front's plane."""
    x, y = numbers(runs, front.cost.column), numbers(runs, front.quality.column)
    known = np.isfinite(x) & np.isfinite(y)
    labels = [label(run) for _, run in runs[known].head(MOST_APART).iterrows()]
    return {
        "label": labels,
        "x": _short(x[known][:MOST_APART]),
        "y": _short(y[known][:MOST_APART]),
    }


def _statuses(series: Series) -> list[str]:
    """A configuration has finished if a seed has."""
    ways = ("finished", "collapsed", "stopped", "diverged", "failed", "open")
    none = pd.Series(0, index=series.configs.index)
    counted = ["n_seeds", *(f"n_{word}" for word in ways[1:-1])]
    columns = [series.configs.get(key, none) for key in counted]
    return [
        next((word for word, n in zip(ways, counts, strict=False) if n), ways[-1])
        for counts in zip(*columns, strict=True)
    ]


def _lost(series: Series) -> list[int]:
    """How many runs of each configuration did not finish; a seed that did so twice is not lost."""
    lost = series.runs[series.runs["status"] != "finished"]
    counted = Counter(words(lost, CONFIGURATION))
    return [counted[own] for own in words(series.configs, CONFIGURATION)]


def _losses(records: Sequence[tuple[str, RunResult]]) -> list[Json]:
    """The training of as many named runs as there are colours."""
    trained = [(label, record.history) for label, record in records if record.history]
    return [
        {
            "label": label,
            "epochs": [epoch.get("epoch") for epoch in epochs],
            "train": [epoch.get("train_loss") for epoch in epochs],
            "validation": [epoch.get("val_loss") for epoch in epochs],
            "colour": colour,
        }
        for (label, epochs), colour in zip(trained, OKABE_ITO, strict=False)
    ]


def _short(values: Array) -> list[int | float | None]:
    """Six significant digits, more than a page can show; counts whole; None where not finite."""
    return [
        None if not math.isfinite(v) else int(v) if v.is_integer() else float(f"{v:.6g}")
        for v in values.tolist()
    ]
