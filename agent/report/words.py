"""A recommendation in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from agent.analysis.configurations import COLLAPSE, COST, TIME
from agent.analysis.pareto import Front
from agent.analysis.price import Tolerance
from agent.analysis.recommendation import Pick, Recommendation
from agent.analysis.series import Series
from agent.study.quality import numbers
from fno_runner.score.quantities import QUANTITIES, Quantity

MOST_NAMED = 3
"""Configurations that a line names."""
UNLIKELY = 0.01
"""What is the choice with less than this is not told beside it."""

Line = tuple[str, str]
"""What a line is about, and what it says."""


def advice(series: Series) -> list[Line]:
    """A series' recommendation: the configuration, the rule, how sure it is, what else there is.

    Empty where there is nothing to recommend.
    """
    chosen = series.recommendation
    if chosen is None:
        return []
    lines = [("recommended", describe(series, chosen.config)), ("rule", rule(series))]
    if sure := certainty(series):
        lines.append(("how sure", sure))
    if series.best_over is not None:
        lines.append(("best over", series.best_over.words))
    if chosen.choice.caveat:
        lines.append(("caveat", chosen.choice.caveat))
    if chosen.provisional:
        lines.append(("provisional", chosen.provisional))
    lines += [(pick.name, against(series, pick)) for pick in chosen.picks]
    lines.append(("prices", prices(series)))
    lines += [(verdict, text) for verdict, text in verdicts(series)]
    lines += [
        ("margin", _margin(series)),
        ("runner-up", "none by this rule" if chosen.runner_up is None
         else describe(series, chosen.runner_up)),
        ("for more", _more(series)),
    ]  # fmt: skip
    lines += [("left out", _left_out(why, names)) for why, names in chosen.left_out.items()]
    lines += [("front", _standing(series, front)) for front in series.fronts[:1]]
    return lines


def describe(series: Series, config: int) -> str:
    """'fno sqrt modes 12 width 32 (3 seeds): 1,234 parameters, phase SSIM 0.6123 [0.60, 0.62]'."""
    row = series.configs.iloc[config]
    said = f"{row['configuration']} ({_count(row['n_seeds'], 'seed')})"
    if row[COST] is not None:
        said += f": {row[COST]:,} parameters"
    shown = {
        series.choice.reported.column: series.choice.reported,
        series.choice.by.column: series.choice.by,
    }
    parts = [said, *(_interval(series, config, criterion) for criterion in shown.values())]
    if row[COLLAPSE[0]] > 0:
        low, high = (100 * row[end] for end in COLLAPSE[1:])
        lost = row["n_collapsed"] + row["n_diverged"]
        whole = lost + row["n_seeds"]
        parts.append(f"{lost} of {whole} seeds failed to train ({low:.0f}–{high:.0f} %)")
    return ", ".join(parts)


def rule(series: Series) -> str:
    """The rule and its figures."""
    chosen = series.recommendation
    if chosen is None:
        return series.why_not
    by, among = chosen.choice.by, _count(chosen.compared, "configuration")
    limits = [limit.words for limit in chosen.asked.limits]
    among += f" with {' and '.join(limits)}" if limits else ""
    if isinstance(chosen.rule, Tolerance):
        cheapest = "fewest trainable parameters" if _is_size(chosen) else f"least {_cost(chosen)}"
        return (
            f"{cheapest} among the {among} whose mean {by.label} is within "
            f"{chosen.rule.amount:g} of the best"
        )
    return f"{_must(series)}; the most {by.label} at this price, of {among}"


def certainty(series: Series) -> str:
    """How probably the recommended one is the choice, and what else may be; empty if unknown."""
    chosen = series.recommendation
    if chosen is None or not math.isfinite(chosen.probability[chosen.config]):
        return ""
    names = series.configs["configuration"].tolist()
    said = f"{percent(chosen.probability[chosen.config])} that it is the choice by this rule"
    known = np.nan_to_num(chosen.probability)
    others = [int(i) for i in np.argsort(-known, kind="stable") if i != chosen.config]
    others = [i for i in others if known[i] >= UNLIKELY]
    if others:
        some = [f"{names[i]} ({percent(known[i])})" for i in others[:MOST_NAMED]]
        more = len(others) - MOST_NAMED
        said += f"; else {', '.join(some)}{f' and {more} more' if more > 0 else ''}"
    return said


def against(series: Series, pick: Pick) -> str:
    """A pick, and what one gains and pays with it against the recommended one."""
    chosen = series.recommendation
    assert chosen is not None
    name = series.configs["configuration"][pick.config]
    price = "no price" if pick.price == 0 else f"price {pick.price:g}"
    said = f"{name}, at {price}"
    if math.isfinite(pick.probability):
        said += f" ({percent(pick.probability)})"
    return f"{said}: {gain_and_cost(series, pick.config)}"


def gain_and_cost(series: Series, config: int) -> str:
    """'0.0300 more phase SSIM for 4 × the parameters', against the recommended one."""
    chosen = series.recommendation
    assert chosen is not None
    if config == chosen.config:
        return "the recommended one"
    by = chosen.choice.by
    gain = by.sign * float(np.diff(series.of.means[by.column].mean[[chosen.config, config]])[0])
    paid = series.of.means[chosen.asked.cost].mean
    ratio = float(paid[config] / paid[chosen.config])
    better = "better" if gain >= 0 else "worse"
    return f"{abs(gain):.4f} {better} in {by.label} for {_times(ratio)} the {_cost(chosen)}"


def prices(series: Series) -> str:
    """Between which prices the recommended one is the choice."""
    chosen = series.recommendation
    assert chosen is not None
    rung = next((rung for rung in chosen.rungs if rung.config == chosen.config), None)
    if rung is None:
        return "it is the choice at no price"
    if rung.high == math.inf:
        return f"it is the choice at every price from {rung.low:.3g} up"
    if rung.low == 0:
        return f"it is the choice at every price below {rung.high:.3g}"
    return f"it is the choice at every price from {rung.low:.3g} to {rung.high:.3g}"


def verdicts(series: Series) -> list[Line]:
    """What the seeds say of the contenders, each against the recommended one."""
    chosen = series.recommendation
    if chosen is None:
        return []
    names = series.configs["configuration"].tolist()
    by = chosen.choice.by
    return [
        (
            d.verdict,
            f"{names[d.config]}: {by.label} {'better' if d.gain >= 0 else 'worse'} by "
            f"{abs(d.gain):.4f} [{d.low:+.4f}, {d.high:+.4f}] (equal is within {chosen.equal:g})",
        )
        for d in chosen.contenders
    ]


def percent(probability: float) -> str:
    """'87 %'; neither 0 nor 100, which draws cannot tell."""
    return f"{min(99.0, max(1.0, 100 * probability)):.0f} %"


def _interval(series: Series, config: int, criterion: Quantity) -> str:
    mean, low, high = (
        numbers(series.configs, f"{criterion.column}_{s}")[config] for s in ("mean", "low", "high")
    )
    if not math.isfinite(low):
        return f"{criterion.label} {mean:.4f}"
    return f"{criterion.label} {mean:.4f} [{low:.4f}, {high:.4f}]"


def _must(series: Series) -> str:
    """'a network twice as large must gain 0.01 in phase SSIM'."""
    chosen = series.recommendation
    assert chosen is not None
    what = "a network twice as large" if _is_size(chosen) else f"twice the {_cost(chosen)}"
    return f"{what} must gain {chosen.price:g} in {chosen.choice.by.label}"


def _is_size(chosen: Recommendation) -> bool:
    return chosen.asked.cost == COST


def _cost(chosen: Recommendation) -> str:
    return QUANTITIES[chosen.asked.cost].label


def _times(ratio: float) -> str:
    return f"{ratio:.3g} ×" if ratio >= 1 else f"1/{1 / ratio:.3g} of"


def _margin(series: Series) -> str:
    chosen = series.recommendation
    assert chosen is not None
    if chosen.config == chosen.best:
        return "it is the best"
    worse = "below" if chosen.choice.by.better == "higher" else "above"
    return f"{chosen.margin:.4f} {worse} the best, {describe(series, chosen.best)}"


def _more(series: Series) -> str:
    """What one pays for the next better configuration."""
    chosen = series.recommendation
    assert chosen is not None
    if chosen.next_better is None:
        return "no configuration that was compared is better"
    by = chosen.choice.by
    quality = by.sign * numbers(series.configs, f"{by.column}_mean")
    gain = quality[chosen.next_better] - quality[chosen.config]
    names = series.configs["configuration"].tolist()
    parts = [f"{_ratio(series, COST):.3g} × the parameters"]
    slower = _ratio(series, f"{TIME}_mean")
    if math.isfinite(slower):
        device = series.configs["time_device"][chosen.config]
        parts.append(f"{slower:.3g} × the inference time" + (f" on {device}" if device else ""))
    return (
        f"{names[chosen.next_better]} is {gain:.4f} better in {by.label} and takes "
        f"{' and '.join(parts)}"
    )


def _ratio(series: Series, column: str) -> float:
    """The next better configuration's number over the recommended one's."""
    chosen = series.recommendation
    assert chosen is not None and chosen.next_better is not None
    values = numbers(series.configs, column)
    return float(values[chosen.next_better] / values[chosen.config])


def _left_out(why: str, names: Sequence[str]) -> str:
    some = ", ".join(names[:MOST_NAMED])
    more = len(names) - MOST_NAMED
    return f"{len(names)} {why}: {some}{f' and {more} more' if more > 0 else ''}"


def _standing(series: Series, front: Front) -> str:
    """Where the recommended configuration stands in a front, and whether the knee agrees."""
    chosen = series.recommendation
    assert chosen is not None
    names = series.configs["configuration"].tolist()
    what = f"the front of parameters and {front.quality.label}"
    said = [f"{'on' if chosen.config in front.members else 'not on'} {what}"]
    probability = front.probability[chosen.config]
    if np.isfinite(probability):
        said.append(f"{percent(probability)} that it is")
    if front.knee is None:
        said.append("which has no knee")
    elif front.knee == chosen.config:
        said.append("whose knee it is")
    else:
        said.append(f"whose knee is {names[front.knee]}")
    return ", ".join(said)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
