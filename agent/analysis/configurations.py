"""One row a configuration: its seeds counted, their metrics and times as means with intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pandas as pd
from scipy import stats

from agent.analysis.choice_options import COST
from agent.analysis.means import CONFIDENCE, Means, exact, means
from agent.analysis.objects import interaction, object_samples
from agent.analysis.scatter import scale_of, trend_terms
from agent.study.quality import PHASE_SSIM, VALIDATED_SSIM, Array, by_key, cells, numbers, words
from agent.study.records import ACTIVE, NAMED
from fno_runner.config import IN_NO_RUN_ID, RunConfig
from fno_runner.result import Status
from fno_runner.score.quantities import COSTS, QUANTITIES

CONFIGURATION = tuple(
    key
    for key in RunConfig.model_fields
    if key not in ("seed", "replicates", "data_seed", *IN_NO_RUN_ID)
)
"""Columns that make two runs the same configuration; runs may differ in their seeds beyond it."""

FLOPS = "flops_per_pattern"
TIME = "inference_time_s"
TIMES = tuple(cost.column for cost in COSTS if cost.unit == "s")
"""Means of these are over runs of one device, and a run counts once however many seeds it has."""

SHORT, MOST_DIGITS = 4, 17
"""Significant digits of a number in a name, and those of a float."""

STATISTICS = ("mean", "std", "low", "high", "n")
"""Of each metric: mean, standard deviation (n − 1), ends of the 95 % interval of the mean,
how many numbers."""
LOST = ("collapsed", "diverged")
"""How a training ends that went on to its end and failed."""
COLLAPSE = ("collapse", "collapse_low", "collapse_high")
"""The part of the seeds whose training failed, and the ends of its 95 % interval."""
MOST_PAIRED = 2_000_000
"""Configurations times seeds; beyond it seeds are not told apart, and nothing is paired."""


@dataclass(frozen=True)
class Configurations:
    """The configurations of comparable runs.

    table: one a row; the columns are those that `configurations` names.
    seeds: for each the positions in the table of runs of the seeds that its means are over.
    means: by column what is known of the means, counts that the configuration decides included.
    terms: what the scatter of seeds may follow (k, t).
    """

    table: pd.DataFrame
    seeds: list[list[int]]
    means: dict[str, Means]
    terms: Array


def configurations(runs: pd.DataFrame) -> Configurations:
    """The configurations of comparable runs, one a row, in the order of their names.

    Means are over the finished runs of different seeds that have the number; failed, diverged,
    collapsed and stopped runs are counted and enter no mean. Intervals use the scatter of all
    configurations (agent.analysis.scatter); where none has two seeds they are NaN.

    Args:
        runs: rows of a table of `agent.study.records`, of any status, that differ in nothing that
            forbids to compare them.

    Returns:
        Them, in a table with the columns
        configuration: its name in words, unique in the table.
        the keys of `CONFIGURATION`.
        n_runs: rows; n_seeds: finished ones of different seeds; n_collapsed; n_diverged;
            n_failed: other rows that ended without a result; n_stopped, where a run of the table
            was stopped on purpose.
        collapse, _low, _high: the part of the seeds that were trained to their end whose training
            failed, collapsed or diverged, and its 95 % interval (Jeffreys).
        seeds, run_ids: of the finished ones, separated by blanks, in the same order.
        model_params, flops_per_pattern: counts, None where unknown.
        time_device, n_timed: the device whose times these are (that of most of the study's finished
            runs), and the runs timed on it.
        <metric>_mean, _std, _low, _high, _n: of every phase metric (of the validation object with
            `val_` before it), R factors [1], train_time_s [s of a seed], inference_time_s [s],
            latency_s [s].
    """
    if runs.empty:
        empty = pd.DataFrame(columns=["configuration", *CONFIGURATION])
        return Configurations(empty, [], {}, np.empty((0, 0)))
    groups = by_key(words(runs, CONFIGURATION))
    names = configuration_names(runs.iloc[[rows[0] for rows in groups.values()]])
    # In the order of names, so that it depends on no order of rows.
    in_order = sorted(zip(map(_natural, names), names, groups.values(), strict=True))
    members = [rows for _, _, rows in in_order]
    run_ids, seed, status = (runs[key].tolist() for key in ("run_id", "seed", "status"))
    counted = [_finished_seeds(rows, run_ids, seed, status) for rows in members]
    device, on = time_device(runs), devices(runs)
    timed = [timed_rows(rows, run_ids, on, device) for rows in counted]
    table: dict[str, list[Any]] = {"configuration": [name for _, name, _ in in_order]}
    first = runs.iloc[[rows[0] for rows in members]]
    table |= {key: cells(first, key) for key in CONFIGURATION}
    statuses = [Counter(status[row] for row in rows) for rows in members]
    table |= _counts(statuses, [len(rows) for rows in counted])
    table["seeds"] = [" ".join(str(seed[row]) for row in rows) for rows in counted]
    table["run_ids"] = [" ".join(run_ids[row] for row in rows) for rows in counted]
    for key in (COST, FLOPS):
        # A count that the configuration decides is the same in all runs: the first known one.
        counts = cells(runs, key)
        table[key] = [
            next((counts[row] for row in rows if counts[row] is not None), None) for rows in members
        ]
    table |= dict(zip(COLLAPSE, _collapse(members, seed, status), strict=True))
    table["time_device"] = [device if rows else "" for rows in timed]
    table["n_timed"] = [len(rows) for rows in timed]
    terms = trend_terms(
        list(map(str, table["architecture"])),
        np.array(table[COST], dtype=float),
        np.array(table["n_collapsed"]) > 0,
    )
    means = {key: exact(np.array(table[key], dtype=float)) for key in (COST, FLOPS)}
    metrics = [c for c in map(str, runs) if c.endswith("_phase") and c in QUANTITIES]
    metrics += [c for c, q in QUANTITIES.items() if (q.of == "scan" or c in TIMES) and c in runs]
    for metric in dict.fromkeys(metrics):
        measured = seconds(runs, metric) if metric in TIMES else numbers(runs, metric)
        rows_of = timed if metric in TIMES else counted
        of = means[metric] = seed_means(metric, measured, seed, rows_of, terms)
        ends = of.interval(QUANTITIES[metric].low, QUANTITIES[metric].high)
        columns = of.mean, of.scatter.own, *ends, of.counts
        for name, statistic in zip(STATISTICS, columns, strict=True):
            table[f"{metric}_{name}"] = statistic.tolist()
    validated = float(np.nan_to_num(numbers(runs, "nimgs_val"), nan=1.0).min())
    _allow_for_objects(means, object_samples(PHASE_SSIM.column, runs, counted), validated)
    return Configurations(pd.DataFrame(table, dtype=object), counted, means, terms)


def _allow_for_objects(means: dict[str, Means], samples: list[Array], validated: float) -> None:
    """Let draws of the phase SSIM tell what holds for other objects, too, as test objects show it.

    Args:
        samples: the quality of each test object, as of `interaction`; what is reported is a mean.
        validated: over how many objects that of validation is a mean.
    """
    change = interaction(samples, scale_of(PHASE_SSIM))
    objects = max((sample.shape[1] for sample in samples), default=1)
    for quality, of in ((VALIDATED_SSIM, validated), (PHASE_SSIM, objects)):
        if change is not None and quality.column in means:
            own, common = change.own / math.sqrt(of), change.common / math.sqrt(of)
            means[quality.column] = replace(
                means[quality.column], change=replace(change, own=own, common=common)
            )


def configuration_names(configs: pd.DataFrame) -> list[str]:
    """Configurations in a few words each: 'fno sqrt modes 12 width 32', and what else varies."""
    names = [label(row) for _, row in configs.iterrows()]
    for key in CONFIGURATION:
        if key not in NAMED and key in configs and configs[key].map(str).nunique() > 1:
            values = short_texts(configs[key].tolist())
            names = [f"{name}, {key} {value}" for name, value in zip(names, values, strict=True)]
    return names


def short_texts(values: Sequence[Any]) -> list[str]:
    """Values as texts; a long float with four significant digits, or as many as tell all apart."""
    whole = list(map(str, values))
    for digits in range(SHORT, MOST_DIGITS):
        texts = [
            f"{value:.{digits}g}" if isinstance(value, float) and len(text) > SHORT + 2 else text
            for value, text in zip(values, whole, strict=True)
        ]
        if len(set(texts)) == len(set(whole)):
            return texts
    return whole


def label(run: pd.Series) -> str:
    """A configuration in a few words: 'fno sqrt modes 12 width 32'."""
    return (
        f"{run['architecture']} {run['input_transform']} modes {run['modes']} width {run['width']}"
    )


def devices(runs: pd.DataFrame) -> list[str]:
    """The device that each run was timed on; empty where it is not known."""
    column = next((c for c in ("device_name", "device") if c in runs), None)
    return [""] * len(runs) if column is None else [d or "" for d in runs[column].tolist()]


def time_device(runs: pd.DataFrame) -> str:
    """The device of most of the finished runs; of equally many, the first by name."""
    finished = (runs["status"] == "finished").tolist()
    counted = Counter(d for d, ok in zip(devices(runs), finished, strict=True) if ok)
    return min(counted, key=lambda d: (-counted[d], d), default="")


def seconds(runs: pd.DataFrame, column: str) -> Array:
    """A time of `TIMES` of each run [s]; training time is that of one seed of several."""
    values = numbers(runs, column)
    if column == "train_time_s":
        one_seed = numbers(runs, "train_time_per_seed_s")
        return np.where(np.isfinite(one_seed), one_seed, values)
    return values


def _finished_seeds(
    rows: Sequence[int], run_ids: list[str], seed: list[Any], status: list[str]
) -> list[int]:
    """The finished rows, by seed; of several of one seed the first by run_id: no new evidence."""
    finished = [row for row in rows if status[row] == "finished"]
    finished.sort(key=lambda row: (seed[row], run_ids[row]))
    return [finished[same[0]] for same in by_key(seed[row] for row in finished).values()]


def timed_rows(rows: Sequence[int], run_ids: list[str], on: list[str], device: str) -> list[int]:
    """The rows of one device, one a run: replicates share a clock."""
    timed = [row for row in rows if on[row] == device]
    return [timed[same[0]] for same in by_key(run_ids[row] for row in timed).values()]


def _counts(statuses: list[Counter[str]], seeds: list[int]) -> dict[str, list[Any]]:
    known = (*get_args(Status), *ACTIVE)  # what is under way has not failed
    counts: dict[str, list[Any]] = {
        "n_runs": [count.total() for count in statuses],
        "n_seeds": seeds,
        "n_failed": [
            count.total() - sum(count[s] for s in known if s != "failed") for count in statuses
        ],
        "n_collapsed": [count["collapsed"] for count in statuses],
        "n_diverged": [count["diverged"] for count in statuses],
    }
    if any(count["stopped"] for count in statuses):
        counts["n_stopped"] = [count["stopped"] for count in statuses]
    return counts


def seed_means(
    column: str,
    values: Array,
    seeds: Sequence[Any],
    members: Sequence[Sequence[int]],
    terms: Array,
) -> Means:
    """What is known of the means of a quantity.

    Args:
        values: of each run. seeds: of each run.
        members: for each configuration its runs, of different seeds.
        terms: what the scatter may follow (k, t).
    """
    places = {
        seed: n for n, seed in enumerate(sorted({seeds[r] for rows in members for r in rows}))
    }
    paired = len(places) * len(members) <= MOST_PAIRED
    width = len(places) if paired else max(map(len, members), default=0)
    by_seed = np.full((len(members), max(1, width)), math.nan)
    for config, rows in enumerate(members):
        for number, row in enumerate(rows):
            by_seed[config, places[seeds[row]] if paired else number] = values[row]
    return means(by_seed, scale_of(QUANTITIES[column]), terms, paired)


def _collapse(
    members: Sequence[Sequence[int]], seed: list[Any], status: list[str]
) -> tuple[list[float], list[float], list[float]]:
    """The part of the seeds that failed to train, with Jeffreys' interval; NaN without a seed.

    Brown, Cai & DasGupta, Statistical Science 16 (2001) 101: quantiles of Beta(x + ½, n − x + ½);
    the end is 0 where none failed, and 1 where all did.

    Args:
        members: for each configuration its rows; a seed counts once however many rows it has.
    """
    lost = [{seed[r] for r in rows if status[r] in LOST} for rows in members]
    ended = [{seed[r] for r in rows if status[r] in ("finished", *LOST)} for rows in members]
    failed, whole = (np.array(list(map(len, seeds)), dtype=float) for seeds in (lost, ended))
    with np.errstate(invalid="ignore"):
        part = failed / whole
    law = stats.beta(failed + 0.5, whole - failed + 0.5)
    low = np.where(failed == 0, 0.0, law.ppf((1 - CONFIDENCE) / 2))
    high = np.where(failed == whole, 1.0, law.ppf((1 + CONFIDENCE) / 2))
    none = whole == 0
    low[none], high[none] = math.nan, math.nan
    return part.tolist(), low.tolist(), high.tolist()


def _natural(name: str) -> list[tuple[int, float, str]]:
    """Numbers within names sort as numbers: width 8 before width 16."""

    def place(word: str) -> tuple[int, float, str]:
        try:
            return 0, float(word.rstrip(",")), ""
        except ValueError:
            return 1, 0.0, word

    return [place(word) for word in name.split(" ")]
