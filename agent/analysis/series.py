"""Runs that may be compared, as series: each with its configurations, fronts and recommendation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import pandas as pd

from agent.analysis.best_over import BestOver, at_best, check_key
from agent.analysis.choice_options import COST, ChoiceOptions
from agent.analysis.configurations import CONFIGURATION, Configurations, configurations
from agent.analysis.effects import Effect, effects
from agent.analysis.objects import component_columns
from agent.analysis.pareto import Front, fronts
from agent.analysis.recommendation import Choice, Recommendation, choose_by, recommend
from agent.study.quality import Array, numbers
from agent.study.records import MEASURED
from fno_runner.config import RunConfig
from fno_runner.errors import UserError
from fno_runner.score.quantities import Quantity

MUST_AGREE = (
    *("conditioning", "epochs", "train_patterns", "metrics_against"),
    *("patch_size", "bin", "objects", "nimgs_train", "nimgs_val", "nimgs_test"),
    *("nphotons", "data_seed"),
    *(key for key in RunConfig.model_fields if key.startswith("probe_")),
    "dataset",
    "group",
)
"""Columns in which runs must agree to be compared: the input, the training effort, the data.

`dataset` is the fingerprint of the files' content, in a series' name the scan's file where that
tells as much; the parameters before it say in words what a fingerprint cannot. `group` is of rows
that are mixed on request (agent.analysis.comparability)."""


@dataclass(frozen=True)
class Series:
    """Runs of a study that may be compared with each other.

    name: what tells this series from the study's others; empty where there is one only.
    choice: what configurations are chosen by, and what is reported.
    runs: all its rows, whatever became of them, in the table's order.
    of: its configurations; fronts and recommendation count in the rows of their table.
    fronts: the one of parameters first; none where no configuration has the numbers.
    effects: of every key that varies, on what is reported.
    why_not: why there is no recommendation; empty where there is one.
    collapsed, stopped: runs that recovered nothing, and that were ended early on purpose; they are
        shown, never compared.
    incomplete: names of finished runs that lack the cost or the quality.
    best_over: how configurations came to their value of a key, where that was asked; `runs` are
        those at that value then.
    """

    name: str
    choice: Choice
    runs: pd.DataFrame
    of: Configurations
    fronts: list[Front]
    effects: list[Effect]
    recommendation: Recommendation | None
    why_not: str
    collapsed: pd.DataFrame
    stopped: pd.DataFrame
    incomplete: list[str]
    best_over: BestOver | None = None

    @property
    def configs(self) -> pd.DataFrame:
        """The table of its configurations."""
        return self.of.table

    @property
    def seeds(self) -> list[list[int]]:
        """For each configuration the positions in `runs` of the seeds that its means are over."""
        return self.of.seeds

    @property
    def reported(self) -> Quantity:
        """What is reported of its configurations."""
        return self.choice.reported

    def step(self, of: int, to: int, quality: Quantity, cost: str) -> tuple[float, float]:
        """By how much `to` is better than `of`, and how many times its cost it takes."""
        gained, paid = self.of.means[quality.column].mean, self.of.means[cost].mean
        return quality.sign * float(gained[to] - gained[of]), float(paid[to] / paid[of])


def series(table: pd.DataFrame, options: ChoiceOptions | None = None) -> list[Series]:
    """Split a study's table into series of comparable runs.

    Runs that differ in a column of `MUST_AGREE` never share a series. A run without a result is in
    the first series that it does not contradict: its record may end before it says what the others
    say.

    Args:
        table: a table of `agent.study.records.table`.
        options: of the choice.

    Raises:
        UserError: what is asked has no sense for these runs.
    """
    options = ChoiceOptions() if options is None else options
    if options.best_over is not None:
        check_key(options.best_over, table, MUST_AGREE)
    all_series = [
        _series(name, table.iloc[rows].reset_index(drop=True), options)
        for name, rows in comparable(table)
    ]
    _check_known(all_series, options)
    prices = {
        compared.choice.price: compared.choice.by.label
        for compared in all_series
        if compared.recommendation
    }
    for option in ("price", "tolerance", "equal"):
        amount = getattr(options, option)
        if amount is not None and len(prices) > 1:
            judged = " and by ".join(sorted(prices.values()))
            raise UserError(f"--{option} {amount:g}: the series are judged by {judged}, which have "
                            "no unit in common; export them apart")  # fmt: skip
    return all_series


def _check_known(all_series: Sequence[Series], options: ChoiceOptions) -> None:
    """Refuse to choose by a cost, or by a limit, of which no series has a number.

    Raises:
        UserError: it is so.
    """
    known = {
        column
        for compared in all_series
        for column, means in compared.of.means.items()
        if np.isfinite(means.mean).any()
    }
    asked = [("--cost", options.cost)] if options.cost != COST else []
    asked += [("--at-least" if limit.least else "--at-most", limit.column)
              for limit in options.limits]  # fmt: skip
    for option, column in asked:
        if known and column not in known:
            raise UserError(f"{option} {column}: no finished configuration has it; there "
                            f"are means of {', '.join(sorted(known))}")  # fmt: skip


def comparable(table: pd.DataFrame) -> list[tuple[str, list[int]]]:
    """The series of a table by name, each with its rows' positions."""
    words = pd.DataFrame(
        {key: table[key].map(_word) for key in MUST_AGREE if key in table}, index=table.index
    )
    compared = table["status"].isin(MEASURED)
    if "dataset" in words:
        words["dataset"] = _files_or_fingerprints(table, compared)
    of = words if not compared.any() else words[compared]
    keys = [key for key in words if of[key].nunique() > 1]
    # A fingerprint tells a reader little, and a group's name says again what a key says: they are
    # left out where other keys tell as much apart.
    for terse in ("dataset", "group"):
        readable = [key for key in keys if key != terse]
        if len(_combinations(of[readable])) == len(_combinations(of[keys])):
            keys = readable
    members: dict[tuple[str, ...], list[int]] = {}
    told = words[keys].to_numpy().tolist()
    in_order = [*np.flatnonzero(compared), *np.flatnonzero(~compared)]
    for row in in_order:
        fits = next((m for m in members if not compared.iloc[row] and _agree(m, told[row])), None)
        members.setdefault(fits or tuple(told[row]), []).append(int(row))
    return sorted(
        (", ".join(f"{key} {word}" for key, word in zip(keys, values, strict=True)), sorted(rows))
        for values, rows in members.items()
    )


def configuration_table(all_series: Sequence[Series]) -> pd.DataFrame:
    """study_configs.csv: the configurations of all series, and how they stand in each front.

    Beside the columns of a table of configurations: series; recommended; p_choice, the probability
    of being that; and for each front its probability, `on_<cost>-<quality>`, NaN where it is not
    known. That of a front over time is of the configuration's own time_device. Last come the
    variance components of seeds and objects (agent.analysis.objects) of what is reported. Where
    each configuration counts at its best value of a key, `best_<key>` is the one that all its seeds
    find best.
    """
    tables = []
    for compared in all_series:
        configs, chosen = compared.configs, compared.recommendation
        nothing = np.full(len(configs), math.nan)
        standing: dict[str, Array] = {}
        for front in compared.fronts:
            name = f"on_{front.name}"
            on_it = (configs["time_device"] == front.device) | (front.device is None)
            standing[name] = np.where(on_it, front.probability, standing.get(name, nothing))
        columns = {
            "recommended": np.arange(len(configs)) == (-1 if chosen is None else chosen.config),
            **standing,
            "p_choice": nothing if chosen is None else chosen.probability,
        }
        extra = pd.DataFrame(columns, dtype=object)
        if compared.best_over is not None:
            values = compared.best_over.of(configs)
            extra[f"best_{compared.best_over.key}"] = pd.Series(values, dtype=object)
        objects = component_columns(compared.reported, compared.runs, compared.seeds)
        tables.append(pd.concat([configs, extra, objects], axis=1))
        tables[-1].insert(0, "series", compared.name)
    if not tables:
        return pd.DataFrame(columns=["series", "configuration", *CONFIGURATION])
    return pd.concat(tables, ignore_index=True)


def _series(name: str, runs: pd.DataFrame, options: ChoiceOptions) -> Series:
    finished = runs[runs["status"] == "finished"]
    choice = choose_by(finished)
    best_over = None
    if options.best_over is not None:
        runs, best_over = at_best(runs, options.best_over, choice.by)
        finished = runs[runs["status"] == "finished"]
    configs = configurations(runs)
    choice_or_reason = recommend(configs, choice, options)
    known = np.isfinite(numbers(finished, COST)) & np.isfinite(
        numbers(finished, choice.reported.column)
    )
    return Series(
        name=name,
        choice=choice,
        runs=runs,
        of=configs,
        fronts=fronts(runs, configs, choice.by, choice.reported),
        effects=effects(configs, choice.reported),
        recommendation=None if isinstance(choice_or_reason, str) else choice_or_reason,
        why_not=choice_or_reason if isinstance(choice_or_reason, str) else "",
        collapsed=runs[runs["status"] == "collapsed"].reset_index(drop=True),
        stopped=runs[runs["status"] == "stopped"].reset_index(drop=True),
        incomplete=finished[~known]["run_id"].tolist(),
        best_over=best_over,
    )


def _files_or_fingerprints(table: pd.DataFrame, compared: pd.Series) -> pd.Series:
    """What the data of each run are called: the scan's file, where files and contents go together.

    Not where one content came from files of several names, or several contents from one: only the
    fingerprint tells then.
    """
    prints = table["dataset"].map(_word)
    if "scan" not in table:
        return prints
    files = table["scan"].map(lambda scan: "none" if scan is None else PurePath(scan).name)
    pairs = set(zip(files[compared], prints[compared], strict=True))
    if len({file for file, _ in pairs}) == len({content for _, content in pairs}) == len(pairs):
        return files
    return prints


def _combinations(words: pd.DataFrame) -> set[tuple[str, ...]]:
    return set(map(tuple, words.to_numpy().tolist()))


def _agree(series: tuple[str, ...], run: list[str]) -> bool:
    return all(a == b or b == "none" for a, b in zip(series, run, strict=True))


def _word(value: object) -> str:
    return "none" if value is None else str(value)
