"""Which runs the pictures show, read from their folders: the front, the recommended, the worst."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from agent.analysis.choice_options import COST
from agent.analysis.configurations import CONFIGURATION
from agent.analysis.series import Series
from agent.report.reconstructions import (
    Column,
    PicturedObject,
    Reconstruction,
    read_reconstruction,
)
from agent.study.quality import Array, numbers, words
from agent.study.records import read_record
from fno_runner.errors import UserError
from fno_runner.result import RECON, RECORD, RunResult, run_folder

WIDTH = 24
"""Of a picture [letters]."""
MOST_OF_FRONT = 4
"""Columns of reconstructions.png for the front; the worst and what is compared with come beside."""
NAMED_ROLES = ("recommended", "worst", "collapsed")


@dataclass(frozen=True)
class Representative:
    """A configuration with the run that stands for it.

    config: a row of its series' `configs`.
    role: 'recommended', 'front', 'worst', 'collapsed' or ''.
    run: of a configuration with several seeds the one nearest to their mean.
    """

    config: int
    role: str
    run: pd.Series


@dataclass
class Gallery:
    """What the folders of a series' pictured runs held.

    reconstructions: by row of `configs`.
    remarks: files that are not believed, with the reason.
    """

    series: Series
    representatives: list[Representative]
    reconstructions: dict[int, Reconstruction]
    remarks: list[tuple[Path, str]]

    def name(self, of: Representative) -> str:
        """A configuration's name, with its role where a reader should know it."""
        role, _, name = self.told(of)
        return f"{name} ({role})" if role else name

    def told(self, of: Representative, digits: int = 4) -> tuple[str, str, str]:
        """Its role, empty where no reader asks; what its run reached; its configuration's name.

        Args:
            digits: of the quality, behind the point.
        """
        quality = self.series.reported
        value = of.run[quality.column]
        # A collapsed run may have no quality at all.
        reached = "–" if pd.isna(value) else f"{value:.{digits}f}"
        # Not the mean, which tables beside the picture have.
        several = self.series.configs["n_seeds"][of.config] > 1
        which = f", seed {of.run['seed']}" if several else ""
        return (
            of.role if of.role in NAMED_ROLES else "",
            f"{quality.label} {reached}{which}",
            str(self.series.configs["configuration"][of.config]),
        )

    @property
    def shown(self) -> list[Representative]:
        """For reconstructions.png: some of the front, else of the best, by cost; then the worst."""
        read = [
            picture for picture in self.representatives if picture.config in self.reconstructions
        ]
        chosen = [picture for picture in read if picture.role == "recommended"]
        front = [picture for picture in read if picture.role == "front"]
        others = [picture for picture in read if picture.role == ""]
        chosen += _spread(front, MOST_OF_FRONT - len(chosen))
        chosen += others[: MOST_OF_FRONT - len(chosen)]
        cost = numbers(self.series.configs, COST)
        chosen.sort(key=lambda picture: (cost[picture.config], picture.config))
        return chosen + [picture for picture in read if picture.role in ("worst", "collapsed")]


def gallery(series: Series, study: Path, most: int) -> Gallery:
    """Read the reconstructions of at most `most` configurations of a series.

    First the recommended one, the fronts' and the worst, then the best of the others.
    """
    collected = Gallery(series, _candidates(series)[:most], {}, [])
    for candidate in collected.representatives:
        folder = _folder(study, candidate.run)
        if folder is None:
            continue
        try:
            reconstruction = read_reconstruction(folder / RECON)
        except UserError as error:
            collected.remarks.append((folder / RECON, str(error)))
            continue
        if reconstruction is not None:
            collected.reconstructions[candidate.config] = reconstruction
    return collected


def pictured_object(gallery: Gallery) -> PicturedObject | None:
    """What reconstructions.png shows of a series; None where no run left its arrays."""
    shown = gallery.shown
    if not shown:
        return None
    kinds = {picture.run["metrics_against"] for picture in shown}
    columns = []
    for picture in shown:
        role, reached, name = gallery.told(picture, 3)
        if len(reached) > WIDTH:
            reached = reached.replace(", ", ",\n")
        title = "\n".join(filter(None, [role, reached, _wrapped(name)]))
        reconstruction = gallery.reconstructions[picture.config]
        columns.append(Column(title, reconstruction, picture.role == "recommended"))
    return PicturedObject(gallery.series.name, kinds.pop() if len(kinds) == 1 else None, columns)


def seed_records(galleries: Sequence[Gallery], study: Path) -> list[tuple[str, RunResult]]:
    """The records of the pictured seeds, with their names; of those that are to be believed."""
    records = []
    for gallery in galleries:
        for picture in gallery.representatives:
            folder = _folder(study, picture.run)
            if folder is None:
                continue
            try:
                seeds = read_record(folder / RECORD, folder.name).by_seed()
            except (OSError, ValueError):
                continue
            pictured = [seed for seed in seeds if seed.config["seed"] == picture.run["seed"]]
            records += [(gallery.name(picture), seed) for seed in pictured]
    return records


def _candidates(series: Series) -> list[Representative]:
    """Configurations with a run to show, the most important first, each once."""
    quality = series.reported.sign * numbers(series.configs, f"{series.reported.column}_mean")
    known = [int(i) for i in np.argsort(-quality, kind="stable") if np.isfinite(quality[i])]
    roles: dict[int, str] = {}
    choice = series.recommendation
    if choice is not None:
        roles[choice.config] = "recommended"
    for front in series.fronts[:1]:
        for member in front.members:
            roles.setdefault(member, "front")
    if known:
        roles.setdefault(known[-1], "worst")
    if choice is not None:
        for config in (choice.runner_up, choice.next_better, choice.best):
            if config is not None:
                roles.setdefault(config, "")
    for member in (*(m for front in series.fronts[1:] for m in front.members), *known):
        roles.setdefault(member, "")
    measured = numbers(series.runs, series.reported.column)
    candidates = [
        Representative(config, role, series.runs.iloc[_typical(measured, series.seeds[config])])
        for config, role in roles.items()
        if series.seeds[config]
    ]
    if len(series.collapsed):
        run = series.collapsed.iloc[0]
        config = _configuration_of(series, run)
        if config is not None and config not in roles:
            candidates.insert(min(len(candidates), 1), Representative(config, "collapsed", run))
    return candidates


def _typical(measured: Array, rows: Sequence[int]) -> int:
    """Of a configuration's finished runs the row of the one nearest to their mean."""
    values = measured[list(rows)]
    if not np.isfinite(values).any():
        return rows[0]
    return rows[int(np.nanargmin(np.abs(values - np.nanmean(values))))]


def _configuration_of(series: Series, run: pd.Series) -> int | None:
    own = words(run.to_frame().T, CONFIGURATION)[0]
    rows = words(series.configs, CONFIGURATION)
    return rows.index(own) if own in rows else None


def _folder(study: Path, run: pd.Series) -> Path | None:
    """A run's folder; None for a name that is no run_id: a server's text is anybody's."""
    identifier = str(run["run_id"])
    return run_folder(study, identifier) if re.fullmatch(r"[0-9a-f]{12}", identifier) else None


def _spread(items: Sequence[Representative], most: int) -> list[Representative]:
    """At most `most` of the items, evenly, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    places = np.linspace(0, len(items) - 1, most).round().astype(int)
    return [items[i] for i in places]


def _wrapped(name: str) -> str:
    """A configuration's name on lines of about the width of a picture."""
    return "\n".join(
        part.replace(" modes", "\nmodes") if len(part) > WIDTH else part
        for part in name.split(", ")
    )
