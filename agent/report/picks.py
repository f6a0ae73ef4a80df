"""The choice on the page: its three picks as a table, and what its program asks the front with."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np

from agent.analysis.choice_options import ChoiceOptions
from agent.analysis.recommendation import Pick, Recommendation
from agent.analysis.series import Series
from agent.report.words import most, trade

Json = dict[str, Any]


def pick_table(series: Series, chosen: Recommendation) -> Json:
    """What the rule gives at a high price, at the asked one and at none, in a reader's words.

    heads: of its columns. rows: the name of a pick, its configuration, what it must bring, its
    quality, its cost, and what one gains and pays against the row before it.
    """
    # Of a scan's object nothing but the held-out frames is known, by which it is chosen as well.
    choice, cost = chosen.choice, chosen.cost
    shown = choice.by if choice.reported.of == "scan" else choice.reported
    names = series.configs["configuration"].tolist()
    quality, paid = series.of.means[shown.column].mean, series.of.means[cost.column].mean
    rows = [
        {
            "name": pick.name,
            "configuration": names[pick.config],
            "when": _when(chosen, pick),
            "quality": shown.shown(float(quality[pick.config])),
            "cost": cost.shown(float(paid[pick.config])),
            "step": "" if before is None else _step(series, chosen, before.config, pick.config),
            "is_chosen": pick.config == chosen.config,
        }
        for before, pick in zip([None, *chosen.picks], chosen.picks, strict=False)
    ]
    return {
        "heads": ("", "configuration", shown.heading, cost.heading, "against the row above"),
        "rows": rows,
    }


def choice_data(series: Series, first: int) -> Json | None:
    """What the page's program needs of the choice; None where there is none.

    price, tolerance: the rule. candidates: rows of the page, the cheapest first, with their `gain`
        (more is better) and what is `paid`.
    rungs: the choice at every price; `high` is None where it has no end. picks: their prices.
    axis: what a price is. options: what the export was asked, as `export_options`.

    Args:
        first: the page's row of the series' first configuration.
    """
    chosen = series.recommendation
    if chosen is None:
        return None
    by, cost = chosen.choice.by, chosen.cost
    gain = by.sign * series.of.means[by.column].mean
    paid = series.of.means[cost.column].mean
    candidates = np.flatnonzero(chosen.candidates)
    candidates = candidates[np.argsort(paid[candidates], kind="stable")]
    return {
        "price": chosen.price,
        "tolerance": chosen.options.tolerance,
        "candidates": (first + candidates).tolist(),
        "gain": gain[candidates].tolist(),
        "paid": paid[candidates].tolist(),
        "rungs": [
            {
                "row": first + rung.config,
                "low": rung.low,
                "high": None if rung.high == math.inf else rung.high,
            }
            for rung in chosen.rungs
        ],
        "picks": [pick.price for pick in chosen.picks],
        "axis": f"price: what a doubling of the {cost.label} must bring in {by.heading}",
        "options": export_options(chosen.options),
    }


def export_options(options: ChoiceOptions) -> str:
    """The options of a command that asks for the same: '--price 0.02 --allow-collapse'."""
    said = []
    for option in fields(options):
        name, value = "--" + option.name.replace("_", "-"), getattr(options, option.name)
        if option.name == "limits":
            said += [f"--at-{'least' if limit.least else 'most'} {limit.column}={limit.bound!r}"
                     for limit in value]  # fmt: skip
        elif value != option.default:
            said.append(name if value is True else f"{name} {value}")
    return " ".join(said)


def _when(chosen: Recommendation, pick: Pick) -> str:
    """What a doubling of the cost must bring so that this is the choice."""
    if pick.price == 0:
        return f"{most(chosen.choice.by)}, whatever it costs"
    return f"if twice the {chosen.cost.label} must bring {pick.price:g}"


def _step(series: Series, chosen: Recommendation, of: int, to: int) -> str:
    return "the same configuration" if of == to else trade(series, chosen, of, to)
