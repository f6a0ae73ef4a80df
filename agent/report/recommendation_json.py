"""recommendation.json: the choice of each series, for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from agent.analysis.choice_options import COST
from agent.analysis.configurations import COLLAPSE, CONFIGURATION, FLOPS, STATISTICS
from agent.analysis.recommendation import Recommendation
from agent.analysis.series import Series
from agent.report.words import advice, rule
from fno_runner.result import finite

SCHEMA_VERSION = 2


def to_json(study: str, all_series: Sequence[Series]) -> str:
    """recommendation.json: strict JSON, the same for the same runs.

    Args:
        study: the study's name.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "study": study,
        "series": [_series(series) for series in all_series],
    }
    return json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _series(series: Series) -> dict[str, Any]:
    chosen = series.recommendation
    names = series.configs["configuration"].tolist()
    content: dict[str, Any] = {
        "name": series.name,
        "chosen_by": series.choice.by.column,
        "reported": series.choice.reported.column,
        "better": series.choice.by.better,
        "caveat": series.choice.caveat,
        "recommended": None,
        "why_not": series.why_not,
    }
    if series.best_over is not None:
        values = dict(zip(names, series.best_over.of(series.configs), strict=True))
        content["best_over"] = {
            "key": series.best_over.key,
            "rule": series.best_over.words,
            "values": values,
        }
    if chosen is not None:
        content |= {
            "provisional": chosen.provisional,
            "rule": rule(chosen),
            "allowance": chosen.options.tolerance,
            "allowance_is": "price" if chosen.options.tolerance is None else "tolerance",
            "margin": chosen.margin,
            "recommended": _configuration(series, chosen.config),
            "best": _configuration(series, chosen.best),
            "runner_up": _configuration(series, chosen.runner_up),
            "next_better": _configuration(series, chosen.next_better),
            "cost": chosen.options.cost,
            "price": {
                "value": chosen.price,
                "unit": f"{chosen.choice.by.column} per doubling of {chosen.options.cost}",
            },
            "picks": {
                pick.name.replace(" ", "_"): {
                    "configuration": names[pick.config],
                    "price": pick.price,
                    "probability": pick.probability,
                    **_gain_and_cost(series, chosen, pick.config),
                }
                for pick in chosen.picks
            },
            "ladder": [
                {"configuration": names[r.config], "from_price": r.low, "to_price": r.high}
                for r in chosen.rungs
            ],
            "probability": _by_name(names, chosen.probability),
            "equal_within": chosen.equal,
            "contenders": [
                {
                    "configuration": names[d.config],
                    "gain": d.gain,
                    "low": d.low,
                    "high": d.high,
                    "p": d.p,
                    "verdict": d.verdict,
                }
                for d in chosen.contenders
            ],
            "limits": [limit.words for limit in chosen.options.limits],
            "left_out": chosen.left_out,
            "in_words": [f"{what}: {text}" for what, text in advice(series)],
        }
    content["fronts"] = [
        {
            "cost": front.cost.column,
            "quality": front.quality.column,
            "device": front.device,
            "members": [names[i] for i in front.members],
            "probability": _by_name(names, front.probability),
            "hypervolume": front.hypervolume,
            "reference": front.reference,
            "knee": None if front.knee is None else names[front.knee],
        }
        for front in series.fronts
    ]
    return content


def _by_name(names: Sequence[str], probability: np.ndarray) -> dict[str, float]:
    return {name: p for name, p in zip(names, probability, strict=True) if np.isfinite(p)}


def _gain_and_cost(series: Series, chosen: Recommendation, config: int) -> dict[str, float]:
    """Against the recommended one, in what is chosen by."""
    gain, ratio = series.step(chosen.config, config, chosen.choice.by, chosen.options.cost)
    return {"gain": gain, "times_the_cost": ratio}


def _configuration(series: Series, config: int | None) -> dict[str, Any] | None:
    if config is None:
        return None
    row = series.configs.iloc[config]
    metrics = [c.removesuffix("_mean") for c in map(str, series.configs) if c.endswith("_mean")]
    return {
        "configuration": row["configuration"],
        **{key: row[key] for key in CONFIGURATION},
        "seeds": [int(seed) for seed in row["seeds"].split()],
        "run_ids": row["run_ids"].split(),
        COST: row[COST],
        FLOPS: row[FLOPS],
        "time_device": row["time_device"],
        **{key: row[key] for key in COLLAPSE},
        "metrics": {name: {s: row[f"{name}_{s}"] for s in STATISTICS} for name in metrics},
    }
