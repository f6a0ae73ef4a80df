"""A recommendation in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from agent.analysis.choice_options import COST
from agent.analysis.configurations import COLLAPSE, TIME
from agent.analysis.pareto import Front
from agent.analysis.probabilities import percent
from agent.analysis.recommendation import Pick, Recommendation
from agent.analysis.series import Series
from agent.report.pareto_plot import floors
from agent.study.quality import numbers
from fno_runner.score.quantities import FLOORS, Quantity

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
    if_any = {
        "without a network": _no_better(series, chosen),
        "how sure": _certainty(series, chosen),
        "best over": "" if series.best_over is None else series.best_over.words,
        "caveat": chosen.choice.caveat,
        "provisional": chosen.provisional,
    }
    return [
        ("recommended", _describe(series, chosen.config)),
        ("rule", rule(chosen)),
        *((what, text) for what, text in if_any.items() if text),
        *((pick.name, _against(series, chosen, pick)) for pick in chosen.picks),
        ("prices", _prices(chosen)),
        *_verdicts(series, chosen),
        ("margin", _margin(series, chosen)),
        ("runner-up", "none by this rule" if chosen.runner_up is None
         else _describe(series, chosen.runner_up)),
        ("for more", _more(series, chosen)),
        *(("left out", f"{len(names)} {why}: {some_of(names)}")
          for why, names in chosen.left_out.items()),
        *(("front", _standing(series, chosen, front)) for front in series.fronts[:1]),
    ]  # fmt: skip


def _no_better(series: Series, chosen: Recommendation) -> str:
    """What reaches as much without a network, on the same data; empty where nothing does."""
    quality = series.reported
    reached, *_ = interval(series, chosen.config, quality)
    as_good = {
        FLOORS[name]: value
        for name, value in floors(series.runs, quality.column).items()
        if quality.sign * value >= quality.sign * reached
    }
    told = [f"{name} {quality.shown(value)}" for name, value in as_good.items()]
    return f"as good or better in {quality.label}: {', '.join(told)}" if told else ""


def rule(chosen: Recommendation) -> str:
    """The rule and its figures."""
    by, among = chosen.choice.by, count(chosen.compared, "configuration")
    limits = [limit.words for limit in chosen.options.limits]
    among += f" with {' and '.join(limits)}" if limits else ""
    is_size = chosen.options.cost == COST
    if (tolerance := chosen.options.tolerance) is not None:
        cheapest = "fewest trainable parameters" if is_size else f"least {chosen.cost.label}"
        return (
            f"{cheapest} among the {among} whose mean {by.label} is within "
            f"{tolerance:g} of the best"
        )
    what = "a network twice as large" if is_size else f"twice the {chosen.cost.label}"
    must = f"{what} must gain {chosen.price:g} in {by.label}"
    return f"{must}; {most(by)} at this price, of {among}"


def most(quality: Quantity) -> str:
    """'the most phase SSIM', 'the best R on held-out frames': more R is worse."""
    return f"the {'most' if quality.better == 'higher' else 'best'} {quality.label}"


def interval(series: Series, config: int, quality: Quantity) -> tuple[float, float, float]:
    """Mean of a configuration, and the ends of its 95 % interval; NaN where not known."""
    mean, low, high = (
        float(numbers(series.configs, f"{quality.column}_{s}")[config])
        for s in ("mean", "low", "high")
    )
    return mean, low, high


def trade(series: Series, chosen: Recommendation, of: int, to: int) -> str:
    """'0.0300 better in phase SSIM for 4 × the parameters', of what is chosen by."""
    by = chosen.choice.by
    gain, ratio = series.step(of, to, by, chosen.options.cost)
    word = "better" if gain >= 0 else "worse"
    times = f"{ratio:.3g} ×" if ratio >= 1 else f"1/{1 / ratio:.3g} of"
    return f"{by.shown(abs(gain))} {word} in {by.label} for {times} the {chosen.cost.label}"


def count(number: int, what: str) -> str:
    """'1 seed', '3 seeds'."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def signed(difference: float, quantity: Quantity) -> str:
    """'+0.0123', '−0.0123', and '0.0000' without a sign."""
    if not quantity.is_some(difference):
        return quantity.shown(difference)
    return f"{'−' if difference < 0 else '+'}{quantity.shown(abs(difference))}"


def writable(text: str) -> str:
    """The same for a file in UTF-8: with escapes where the name of a folder is none."""
    return text.encode(errors="backslashreplace").decode()


def some_of(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """'a, b, c and 4 more'."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _describe(series: Series, config: int) -> str:
    """'fno sqrt modes 12 width 32 (3 seeds): 1,234 parameters, phase SSIM 0.6123 [0.60, 0.62]'."""
    row = series.configs.iloc[config]
    said = f"{row['configuration']} ({count(row['n_seeds'], 'seed')})"
    if row[COST] is not None:
        said += f": {row[COST]:,} parameters"
    parts = [said]
    for quality in dict.fromkeys((series.choice.reported, series.choice.by)):
        mean, low, high = interval(series, config, quality)
        ends = f" [{quality.shown(low)}, {quality.shown(high)}]" if math.isfinite(low) else ""
        parts.append(f"{quality.label} {quality.shown(mean)}{ends}")
    if row[COLLAPSE[0]] > 0:
        low, high = (100 * row[end] for end in COLLAPSE[1:])
        lost = row["n_collapsed"] + row["n_diverged"]
        whole = lost + row["n_seeds"]
        parts.append(f"{lost} of {whole} seeds failed to train ({low:.0f}–{high:.0f} %)")
    return ", ".join(parts)


def _certainty(series: Series, chosen: Recommendation) -> str:
    """How probably the recommended one is the choice, and what else may be; empty if unknown."""
    if not math.isfinite(chosen.probability[chosen.config]):
        return ""
    names = series.configs["configuration"].tolist()
    known = np.nan_to_num(chosen.probability)
    order = (int(i) for i in np.argsort(-known, kind="stable"))
    others = [f"{names[i]} ({percent(known[i])})" for i in order
              if i != chosen.config and known[i] >= UNLIKELY]  # fmt: skip
    if (none := 1 - float(known.sum())) >= UNLIKELY:
        others.insert(0, f"none meets the limits ({percent(none)})")
    said = f"{percent(chosen.probability[chosen.config])} that it is the choice by this rule"
    return f"{said}; else {some_of(others)}" if others else said


def _against(series: Series, chosen: Recommendation, pick: Pick) -> str:
    """A pick, and what one gains and pays with it against the recommended one."""
    said = series.configs["configuration"][pick.config]
    said += f", at {'no price' if pick.price == 0 else f'price {pick.price:g}'}"
    if math.isfinite(pick.probability):
        said += f" ({percent(pick.probability)})"
    if pick.config == chosen.config:
        return f"{said}: the recommended one"
    return f"{said}: {trade(series, chosen, chosen.config, pick.config)}"


def _prices(chosen: Recommendation) -> str:
    """Between which prices the recommended one is the choice."""
    rung = next((rung for rung in chosen.rungs if rung.config == chosen.config), None)
    if rung is None:
        return "it is the choice at no price"
    if rung.high == math.inf:
        return f"it is the choice at every price from {rung.low:.3g} up"
    if rung.low == 0:
        return f"it is the choice at every price below {rung.high:.3g}"
    return f"it is the choice at every price from {rung.low:.3g} to {rung.high:.3g}"


def _verdicts(series: Series, chosen: Recommendation) -> list[Line]:
    """What the seeds say of the contenders, each against the recommended one."""
    names, by = series.configs["configuration"].tolist(), chosen.choice.by
    return [
        (
            d.verdict,
            f"{names[d.config]}: {by.label} {'better' if d.gain >= 0 else 'worse'} by "
            f"{by.shown(abs(d.gain))} [{signed(d.low, by)}, {signed(d.high, by)}] "
            f"(equal is within {chosen.equal:g})",
        )
        for d in chosen.contenders
    ]


def _margin(series: Series, chosen: Recommendation) -> str:
    if chosen.config == chosen.best:
        return "it is the best"
    worse = "below" if chosen.choice.by.better == "higher" else "above"
    margin = chosen.choice.by.shown(chosen.margin)
    return f"{margin} {worse} the best, {_describe(series, chosen.best)}"


def _more(series: Series, chosen: Recommendation) -> str:
    """What one pays for the next better configuration."""
    by, better = chosen.choice.by, chosen.next_better
    if better is None:
        return "no configuration that was compared is better"
    gain, larger = series.step(chosen.config, better, by, COST)
    parts = [f"{larger:.3g} × the parameters"]
    if TIME in series.of.means:
        slower = series.step(chosen.config, better, by, TIME)[1]
        device = series.configs["time_device"][chosen.config]
        if math.isfinite(slower):
            on = f" on {device}" if device else ""
            parts.append(f"{slower:.3g} × the inference time{on}")
    return (
        f"{series.configs['configuration'][better]} is {by.shown(gain)} better in {by.label} "
        f"and takes {' and '.join(parts)}"
    )


def _standing(series: Series, chosen: Recommendation, front: Front) -> str:
    """Where the recommended configuration stands in a front, and whether the knee agrees."""
    what = f"the front of parameters and {front.quality.label}"
    said = f"{'on' if chosen.config in front.members else 'not on'} {what}"
    probability = front.probability[chosen.config]
    if np.isfinite(probability):
        said += f" (on it with a probability of {percent(probability)})"
    if front.knee is None:
        return f"{said}; the front has no knee"
    if front.knee == chosen.config:
        return f"{said}; it is the front's knee"
    return f"{said}; the front's knee is {series.configs['configuration'][front.knee]}"
