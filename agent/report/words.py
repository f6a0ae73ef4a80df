"""A recommendation in words, and as recommendation.json."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from agent.analysis.configurations import CONFIGURATION, COST, FLOPS, STATISTICS, TIME
from agent.analysis.pareto import Front
from agent.analysis.series import Series
from agent.study.quality import Criterion, numbers

SCHEMA_VERSION = 1

Line = tuple[str, str]
"""What a line is about, and what it says."""


def advice(one: Series) -> list[Line]:
    """A series' recommendation: the configuration, the rule, its margin, what more would cost.

    Empty where there is nothing to recommend.
    """
    chosen = one.recommendation
    if chosen is None:
        return []
    lines = [("recommended", describe(one, chosen.config)), ("rule", rule(one))]
    if chosen.choice.caveat:
        lines.append(("caveat", chosen.choice.caveat))
    if chosen.provisional:
        lines.append(("provisional", chosen.provisional))
    lines += [
        ("margin", _margin(one)),
        ("runner-up", "none by this rule" if chosen.runner_up is None
         else describe(one, chosen.runner_up)),
        ("for more", _price(one)),
    ]  # fmt: skip
    lines += [("front", _standing(one, front)) for front in one.fronts[:1]]
    return lines


def describe(one: Series, config: int) -> str:
    """'fno sqrt modes 12 width 32 (3 seeds): 1,234 parameters, phase SSIM 0.6123 [0.60, 0.62]'."""
    row = one.configs.iloc[config]
    said = f"{row['configuration']} ({_count(row['n_seeds'], 'seed')}): {row[COST]:,} parameters"
    shown = {one.choice.reported.column: one.choice.reported, one.choice.by.column: one.choice.by}
    return ", ".join([said, *(_interval(one, config, criterion) for criterion in shown.values())])


def rule(one: Series) -> str:
    """The rule and its figures."""
    chosen = one.recommendation
    if chosen is None:
        return "no configuration has finished with parameters and a quality"
    by = chosen.choice.by
    best = numbers(one.configs, f"{by.column}_mean")[chosen.best]
    near = (
        f"one standard error ({chosen.allowance:.2g})"
        if chosen.standard_error
        else f"{chosen.allowance:g}"
    )
    return (
        f"fewest trainable parameters among the {chosen.near} of "
        f"{_count(chosen.compared, 'configuration')} whose mean {by.label} is within {near} "
        f"of the best ({best:.4g})"
    )


def to_json(study: str, all_series: Sequence[Series]) -> str:
    """recommendation.json: strict JSON, the same for the same runs.

    Args:
        study: the study's name.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "study": study,
        "series": [_series(one) for one in all_series],
    }
    return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _series(one: Series) -> dict[str, Any]:
    chosen = one.recommendation
    content: dict[str, Any] = {
        "name": one.name,
        "chosen_by": one.choice.by.column,
        "reported": one.choice.reported.column,
        "better": one.choice.by.better,
        "caveat": one.choice.caveat,
        "recommended": None,
    }
    if chosen is not None:
        content |= {
            "provisional": chosen.provisional,
            "rule": rule(one),
            "allowance": chosen.allowance,
            "allowance_is": "standard error" if chosen.standard_error else "tolerance",
            "margin": chosen.margin,
            "recommended": _configuration(one, chosen.config),
            "best": _configuration(one, chosen.best),
            "runner_up": _configuration(one, chosen.runner_up),
            "next_better": _configuration(one, chosen.next_better),
            "in_words": [f"{what}: {text}" for what, text in advice(one)],
        }
    names = one.configs["configuration"].tolist()
    content["fronts"] = [
        {
            "cost": front.cost.column,
            "quality": front.quality.column,
            "device": front.device,
            "members": [names[i] for i in front.members],
            "probability": {
                name: p for name, p in zip(names, front.probability, strict=True) if np.isfinite(p)
            },
            "hypervolume": front.hypervolume,
            "reference": front.reference,
            "knee": None if front.knee is None else names[front.knee],
        }
        for front in one.fronts
    ]
    return content


def _configuration(one: Series, config: int | None) -> dict[str, Any] | None:
    if config is None:
        return None
    row = one.configs.iloc[config]
    metrics = [c.removesuffix("_mean") for c in map(str, one.configs) if c.endswith("_mean")]
    return {
        "configuration": row["configuration"],
        **{key: row[key] for key in CONFIGURATION},
        "seeds": [int(seed) for seed in row["seeds"].split()],
        "run_ids": row["run_ids"].split(),
        COST: row[COST],
        FLOPS: row[FLOPS],
        "time_device": row["time_device"],
        "metrics": {name: {s: row[f"{name}_{s}"] for s in STATISTICS} for name in metrics},
    }


def _interval(one: Series, config: int, criterion: Criterion) -> str:
    mean, low, high = (
        numbers(one.configs, f"{criterion.column}_{s}")[config] for s in ("mean", "low", "high")
    )
    if not math.isfinite(low):
        return f"{criterion.label} {mean:.4f}"
    return f"{criterion.label} {mean:.4f} [{low:.4f}, {high:.4f}]"


def _margin(one: Series) -> str:
    chosen = one.recommendation
    assert chosen is not None
    if chosen.config == chosen.best:
        return "it is the best"
    worse = "below" if chosen.choice.by.better == "higher" else "above"
    return f"{chosen.margin:.4f} {worse} the best, {describe(one, chosen.best)}"


def _price(one: Series) -> str:
    """What one pays for the next better configuration."""
    chosen = one.recommendation
    assert chosen is not None
    if chosen.next_better is None:
        return "no configuration that was compared is better"
    by = chosen.choice.by
    quality = by.sign * numbers(one.configs, f"{by.column}_mean")
    gain = quality[chosen.next_better] - quality[chosen.config]
    names = one.configs["configuration"].tolist()
    prices = [f"{_ratio(one, COST):.3g} × the parameters"]
    slower = _ratio(one, f"{TIME}_mean")
    if math.isfinite(slower):
        device = one.configs["time_device"][chosen.config]
        prices.append(f"{slower:.3g} × the inference time" + (f" on {device}" if device else ""))
    return (
        f"{names[chosen.next_better]} is {gain:.4f} better in {by.label} and takes "
        f"{' and '.join(prices)}"
    )


def _ratio(one: Series, column: str) -> float:
    """The next better configuration's number over the recommended one's."""
    chosen = one.recommendation
    assert chosen is not None and chosen.next_better is not None
    values = numbers(one.configs, column)
    return float(values[chosen.next_better] / values[chosen.config])


def _standing(one: Series, front: Front) -> str:
    """Where the recommended configuration stands in a front, and whether the knee agrees."""
    chosen = one.recommendation
    assert chosen is not None
    names = one.configs["configuration"].tolist()
    what = f"the front of parameters and {front.quality.label}"
    said = [f"{'on' if chosen.config in front.members else 'not on'} {what}"]
    probability = front.probability[chosen.config]
    if np.isfinite(probability):
        said.append(f"in {100 * probability:.0f} % of the resamples of its seeds on it")
    if front.knee is None:
        said.append("which has no knee")
    elif front.knee == chosen.config:
        said.append("whose knee it is")
    else:
        said.append(f"whose knee is {names[front.knee]}")
    return ", ".join(said)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _plain(value: Any) -> Any:
    """JSON's own types; null for a number that is not finite."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
