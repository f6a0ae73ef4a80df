"""comparison.html and the same in the terminal: what changed between two studies."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.analysis.comparison import MOST_TOLD, TIMES, WATCHED, Change, Compared, Comparison
from agent.report.figures import OKABE_ITO, data_uri, new_figure, wrapped
from agent.report.words import count, signed, some_of
from fno_runner.cli import lines_to
from fno_runner.score.quantities import QUANTITIES, Quantity

FOLDER = Path(__file__).parent
TEMPLATE = "compare_page.html"
MOST_SHOWN = 60
"""Configurations in the terminal and in the picture, those that changed most: of a thousand the
picture has more pixels than a browser draws. The page's table and comparison.csv have all."""


def said(comparison: Comparison) -> list[str]:
    """What changed, in sentences."""
    quality, overall, rows = comparison.quality, comparison.overall, comparison.configurations
    lines = []
    for key, (of_a, of_b) in comparison.differ.items():
        name = WATCHED.get(key, key)
        lines.append(
            f"The studies differ in {name}: {some_of(of_a, MOST_TOLD)} in A, "
            f"{some_of(of_b, MOST_TOLD)} in B."
        )
    if not comparison.differ:
        lines.append("The studies differ in nothing that their records tell.")
    if any(key in comparison.differ for key in ("dataset", "validation_object")):
        lines.append("Their data are not the same: a change of quality may be that of the data.")
    if overall.pairs:
        told = f" (95 %: {_interval(overall, quality)})"
        interval = "" if math.isnan(overall.low) else told
        lines.append(
            f"Over {count(overall.pairs, 'configuration')} with seeds in both {quality.label} "
            f"changes from {quality.shown(overall.a)} to {quality.shown(overall.b)}, by "
            f"{signed(overall.change, quality)}{interval}; {quality.better} is better."
        )
    verdicts: Counter[str] = Counter(compared.verdict for compared in rows)
    few = (("one seed", "only one seed has"), ("no pair", "no seed has"))
    untold = [f"in {verdicts[verdict]} {told}" for verdict, told in few if verdicts[verdict]]
    lines.append(
        f"Of {count(len(rows), 'configuration')} B is better in {verdicts['better']}, worse in "
        f"{verdicts['worse']}, undecided in {verdicts['undecided']}"
        + "".join(f"; {told} it in both studies, which tells nothing" for told in untold)
        + "."
    )
    for column in TIMES:
        ratios = np.array([compared.times[column].change for compared in rows])
        known = ratios[np.isfinite(ratios)]
        if known.size:
            lines.append(
                f"The {QUANTITIES[column].label} time in B is {np.exp(np.log(known).mean()):.3g} "
                f"times that in A ({known.min():.3g} to {known.max():.3g})."
            )
    if not any(compared.times[column].pairs for compared in rows for column in TIMES):
        lines.append(
            "Times are not compared: no seed has them in both on one known kind of device."
        )
    first, second = comparison.collapsed_only
    if first or second:
        lines.append(
            f"Of the seeds that ran in both, {first} collapsed in A only and {second} in B only "
            f"(p = {comparison.collapse_p:.2g})."
        )
    if any(comparison.only):
        lines.append(
            f"{comparison.only[0]} configurations are in A only, {comparison.only[1]} in B only."
        )
    return lines


def print_comparison(comparison: Comparison, console: Console) -> None:
    """The sentences, and a row a configuration."""
    lines_to(console)("\n".join(said(comparison)))
    shown = most_changed(comparison.configurations)
    headings, rows = _table(comparison, shown)
    printed = Table()
    printed.add_column("configuration")
    for heading in headings[1:]:
        printed.add_column(Text(heading), justify="right")
    for name, cells in rows:
        printed.add_row(Text(name), *map(Text, cells))
    if more := len(comparison.configurations) - len(shown):
        printed.caption = f"those that changed most; {more} more are in the table and the page"
    console.print(printed)


def render_comparison(comparison: Comparison, names: tuple[str, str], written: str) -> str:
    """The page as text; but for `written`, the same for the same runs.

    Args:
        names: of the studies A and B.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    headings, rows = _table(comparison, comparison.configurations)
    page = {
        "title": f"What changed from {names[0]} to {names[1]}",
        "studies": [f"A: {names[0]}", f"B: {names[1]}"],
        "said": said(comparison),
        "note": "A row is a configuration that both studies have, over the seeds that finished in "
        "both; changes are B less A, with 95 % intervals by Student's t of the pairs, times are "
        "B over A. Better and worse: p below 5 %, adjusted for as many configurations (Holm).",
        "picture": _picture(comparison),
        "headings": headings,
        "rows": rows,
    }
    return environment.get_template(TEMPLATE).render(page=page, written=written)


def most_changed(configurations: Sequence[Compared]) -> list[Compared]:
    """At most `MOST_SHOWN` of the configurations, those that changed most, in their order."""
    change = [abs(compared.quality.change) for compared in configurations]
    in_order = np.argsort(-np.nan_to_num(change, nan=-1.0), kind="stable")
    return [configurations[place] for place in sorted(in_order[:MOST_SHOWN])]


def _table(
    comparison: Comparison, shown: Sequence[Compared]
) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The headings, and of each configuration that is shown its name and its cells."""
    quality = comparison.quality
    timed = [c for c in TIMES if any(each.times[c].pairs for each in comparison.configurations)]
    headings = ["configuration", "seeds", f"{quality.heading} in A", "in B", "change", "95 %"]
    headings += ["verdict", *(f"{QUANTITIES[c].label}, B over A" for c in timed)]
    headings += ["collapsed in A", "in B"]
    rows = []
    for compared in shown:
        change = compared.quality
        cells = [
            str(change.pairs),
            *(_or_dash(number, quality.shown) for number in (change.a, change.b)),
            signed(change.change, quality) if change.pairs else "–",
            _interval(change, quality),
            compared.verdict,
            *(_or_dash(compared.times[c].change, "{:.3g}".format) for c in timed),
            *(f"{lost} of {n}" for lost, n in zip(compared.collapsed, compared.runs, strict=True)),
        ]
        rows.append((compared.name, cells))
    return headings, rows


def _picture(comparison: Comparison) -> str:
    """The changes of quality with their intervals, as a data URI."""
    whole = [compared for compared in comparison.configurations if compared.quality.pairs]
    shown = most_changed(whole)
    names = [wrapped(compared.name) for compared in shown]
    height = 0.14 * sum(2 + name.count("\n") for name in names)
    with new_figure(8.6, 1.3 + max(0.28, height)) as figure:
        axes = figure.subplots()
        marks = {"better": ("o", OKABE_ITO[0]), "worse": ("s", OKABE_ITO[5])}
        for place, compared in enumerate(shown):
            change = compared.quality
            marker, colour = marks.get(compared.verdict, ("D", "#777777"))
            if math.isfinite(change.low):
                axes.plot([change.low, change.high], [place, place], color=colour, lw=1.4)
            filled = colour if compared.verdict in marks else "white"
            axes.plot(change.change, place, marker, color=colour, mfc=filled, ms=6)
        axes.axvline(0, color="black", lw=0.8)
        axes.set_yticks(range(len(shown)), names, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel(f"change of {comparison.quality.axis}, B less A")
        if len(whole) > len(shown):
            said = f"the {len(shown)} of {len(whole)} configurations that changed most"
            axes.set_title(said, fontsize=9)
        axes.grid(axis="x", color="#ececec")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return data_uri(stream.getvalue())


def _or_dash(number: float, shown: Any) -> str:
    return shown(number) if math.isfinite(number) else "–"


def _interval(change: Change, quality: Quantity) -> str:
    if not math.isfinite(change.low):
        return "–"
    return f"{signed(change.low, quality)} … {signed(change.high, quality)}"
