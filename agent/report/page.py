"""report.html: the study in one file that opens anywhere, without an internet connection."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from agent.analysis.choice_options import COST
from agent.analysis.configurations import TIME
from agent.analysis.series import Series
from agent.report.gallery import Gallery
from agent.report.page_data import page_data, thumbnails
from agent.report.pareto_plot import against, is_reference
from agent.report.picks import pick_table
from agent.report.reconstructions import limits_of, thumbnail
from agent.report.terminal import ExportResult, unfinished
from agent.report.words import advice, count, interval, some_of
from agent.study.quality import numbers
from agent.study.sweepfile import Sweep, values_in_words
from fno_runner.score.quantities import Quantity

FOLDER = Path(__file__).parent
TEMPLATE, SCRIPTS = "page.html", ("page_choice.js", "page.js")
MOST_ROWS = 500
"""Of failures and of refused records; study_results.csv has all."""
MOST_LETTERS = 2000
"""Of a message."""
MOST_VALUES = 6
"""Different values of a provenance column that are told one by one."""

IN_THE_HEAD = ("recommended", "provisional")
"""Lines of advice that a card shows in another form, as it does the picks."""

Json = dict[str, Any]

PROVENANCE = {
    "device_name": "device",
    "threads": "threads",
    "precision": "precision",
    "host": "host",
    "code": "code",
    "git_commit": "commit",
    "git_dirty": "uncommitted changes",
    "torch": "torch",
    "python": "Python",
    "dataset": "dataset fingerprint",
    "metrics_against": "metrics against",
    "epochs": "epochs",
    "train_patterns": "training patterns asked for",
    "train_patterns_used": "training patterns used",
    "infer_batch_size": "inference batch",
    "tf32": "TF32",
}
"""Columns of the table of runs that say where numbers come from, and what the page calls them."""


def render_page(result: ExportResult, galleries: Sequence[Gallery], written: str) -> str:
    """The page as text; but for `written`, the same for the same runs.

    Args:
        galleries: what the pictured runs of each of the result's series left.
        written: when, as ISO 8601.
    """
    # Here, so that an export without a page does not read 5 MB.
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["sha256"] = _sha256
    environment.policies["json.dumps_kwargs"] = {
        "allow_nan": False, "ensure_ascii": False, "separators": (",", ":"), "sort_keys": True
    }  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        page=_page(result, galleries),
        data=page_data(result.series, galleries, result.material.folder),
        plotly=Markup(get_plotlyjs()),
        app=Markup("".join((FOLDER / script).read_text() for script in SCRIPTS)),
        written=written,
    )


def _sha256(script: str) -> str:
    """What a Content-Security-Policy calls an inline script that may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _page(result: ExportResult, galleries: Sequence[Gallery]) -> Json:
    material = result.material
    head = []
    if material.sweep is not None:
        head.append(bounds(material.sweep))
    if result.coverage:
        head.append(f"{result.coverage}.")
    if result.missing:
        head.append(f"Missing: {some_of(result.missing, MOST_VALUES)}.")
    head += [f"{remark}." for remark in material.remarks]
    if len(result.series) > 1:
        head.append("Runs that differ in input, training effort or data are not compared with each "
                    f"other: there are {len(result.series)} series.")  # fmt: skip
    refused = [(str(record.path), record.reason) for record in material.rejected]
    refused += [(str(path), reason) for gallery in galleries for path, reason in gallery.remarks]
    return {
        "title": material.name,
        "counts": material.counts,
        "head": head,
        "recommendations": [
            _card(series, result.use(series)) for series in result.series[:MOST_ROWS]
        ],
        "galleries": [told for gallery in galleries if (told := _gallery(gallery))],
        "failures": unfinished(material.counted, MOST_ROWS, MOST_LETTERS),
        "rejected": refused[:MOST_ROWS],
        "provenance": _provenance(material.table),
        "notes": _notes(result),
    }


def bounds(sweep: Sweep) -> str:
    """What a sweep asks: the values of each swept key, then the fixed ones."""

    def spell(key: str) -> str:
        return f"{key} {values_in_words(sweep.parameters[key])}"

    fixed = [key for key in sweep.parameters if key not in sweep.swept]
    said = f"{sweep.method} of " + " · ".join(map(spell, sweep.swept))
    return said + ("; fixed: " + " · ".join(map(spell, fixed)) if fixed else "")


def _card(series: Series, use: str) -> Json:
    """A series' recommendation: its name, a few large numbers, then the reasons in words.

    Args:
        use: the command that puts its network to use; may be empty.
    """
    chosen = series.recommendation
    eyebrow = ": ".join(
        ["recommended" if chosen else "not recommended", *filter(None, [series.name])]
    )
    if chosen is None:
        return {"eyebrow": eyebrow, "chosen": "", "provisional": False, "tiles": [], "picks": None,
                "facts": [("why", series.why_not)]}  # fmt: skip
    row = series.configs.iloc[chosen.config]
    tiles = [
        _tile(series, chosen.config, quality)
        for quality in dict.fromkeys((series.choice.reported, series.choice.by))
    ]
    if row[COST] is not None:
        tiles.insert(0, {"value": f"{row[COST]:,}", "name": "parameters", "note": ""})
    seconds = numbers(series.configs, f"{TIME}_mean")[chosen.config]
    if np.isfinite(seconds):
        tiles.append({"value": f"{seconds:.3g} s", "name": "inference of a test object",
                      "note": f"on {row['time_device'] or 'an unnamed device'}"})  # fmt: skip
    elsewhere = (*IN_THE_HEAD, *(pick.name for pick in chosen.picks))
    facts = [(what, text) for what, text in advice(series) if what not in elsewhere]
    if chosen.provisional:
        facts.insert(0, ("provisional", chosen.provisional))
    if series.incomplete:
        facts.append(
            ("left out", f"{len(series.incomplete)} finished without parameters or quality")
        )
    if use:
        facts.append(("use it", use))
    return {
        "eyebrow": eyebrow,
        "chosen": row["configuration"],
        "provisional": bool(chosen.provisional),
        "tiles": tiles,
        "picks": pick_table(series, chosen),
        "facts": facts,
    }


def _tile(series: Series, config: int, quality: Quantity) -> Json:
    mean, low, high = interval(series, config, quality)
    seeds = series.configs["n_seeds"][config]
    ends = f"95 %: {quality.shown(low)} – {quality.shown(high)}, {count(seeds, 'seed')}"
    note = ends if np.isfinite(low) else "one seed"
    name = quality.label + against(series, quality)
    return {"value": quality.shown(mean), "name": name, "note": note}


def _gallery(gallery: Gallery) -> Json | None:
    """Thumbnails of reconstructions.png's columns, after what they are compared with."""
    shown = gallery.shown
    if not shown:
        return None
    sources = thumbnails(gallery)
    first = gallery.reconstructions[shown[0].config]
    pictures = []
    if first.against is not None:
        phase = first.against[1]
        what = "the reference" if is_reference(gallery.series) else "the truth"
        source = thumbnail(phase, limits_of(phase))
        pictures.append({"source": source, "caption": what, "chosen": False})
    for picture in shown:
        role, reached, name = gallery.told(picture)
        caption = f"{role}: {name}, {reached}" if role else f"{name}, {reached}"
        chosen = picture.role == "recommended"
        pictures.append({"source": sources[picture.config], "caption": caption, "chosen": chosen})
    return {"name": gallery.series.name, "pictures": pictures}


def _provenance(runs: pd.DataFrame) -> list[tuple[str, str]]:
    told = []
    for column, name in PROVENANCE.items():
        if column not in runs:
            continue
        values = Counter(str(value) for value in runs[column].tolist() if value is not None)
        if not values:
            continue
        known = sorted(values.items(), key=lambda item: (-item[1], item[0]))
        said = [word if len(known) == 1 else f"{word} ({n})" for word, n in known[:MOST_VALUES]]
        if len(known) > MOST_VALUES:
            said.append(f"and {len(known) - MOST_VALUES} more")
        told.append((name, " · ".join(said)))
    started = sorted(str(v) for v in runs["started"] if v) if "started" in runs else []
    if started:
        told.append(("started", f"{started[0]} – {started[-1]}" if started[1:] else started[0]))
    return told


def _notes(result: ExportResult) -> Json:
    kinds = {kind for series in result.series for kind in series.runs["metrics_against"]}
    scored = []
    if "truth" in kinds:
        scored.append("Metrics of simulated data are against the truth.")
    if "reference" in kinds:
        scored.append("Metrics of a scan are against its reference object, another "
                      "reconstruction: agreement with it, not truth.")  # fmt: skip
    if any(series.reported.column == "r_held_out" for series in result.series):
        scored.append("R = Σ|predicted − measured| / Σ measured, on frames never trained on: "
                      "nobody knows the object.")  # fmt: skip
    several = any("ssim_phase_object2" in series.runs for series in result.series)
    of_objects = (
        "for these test objects; study_configs.csv has those for a new object"
        if several
        else "for this test object only"
    )
    return {
        "tradeoff": "Each point is a configuration, at the mean of its seeds. Bars are 95 % "
        "intervals of the mean, where there are several seeds. The line is the Pareto front: no "
        "configuration is both cheaper and better than one on it. Point at a configuration to "
        "see its numbers, and click to keep them. If you ask for a quality and a cost, a square "
        "marks the configuration that has both and is worth its cost by the rule of the "
        "recommendation.",
        "ladder": "The price is what a doubling of the cost must bring. The higher it is, the "
        "smaller is the network that is worth its cost. A bar spans the prices at which its "
        "configuration is the choice.",
        "table": " ".join(
            [
                *scored,
                f"In small print is the 95 % interval of the mean over seeds, {of_objects}.",
                "Click a heading to sort, and a row to open it above.",
            ]
        ),
        "effects": "Each point is the mean of all configurations with that value, whatever else "
        "they have. Bars are the 95 % intervals that the seeds leave. Importance is the part of "
        "the variance between configurations that a key explains (fANOVA). Not balanced means "
        "that the values of a key did not meet the same values of the other keys, which may "
        "share in its effect.",
        "reconstructions": "All phases [rad] are on one colour scale, without their global "
        "phase and plane. reconstructions.png shows them in full, with errors, amplitudes and a "
        "colour bar.",
        "losses": "The loss of held-out patterns is solid, that of training patterns is dotted. "
        "The curves are of the configurations pictured above, one seed each.",
        "correlations": "The Fourier ring correlation of the phase is 1 where detail of this "
        "frequency is right, and 0 where it has nothing in common. A ring marks "
        "where it last crosses the threshold (of halves, the half-bit curve): finer detail is "
        "not resolved. A dip before it is a band of frequencies in which the object has little "
        "detail. The curves are of the configurations pictured above, one seed each.",
        "failures": "These runs stay in study_results.csv, and enter no mean and no front.",
    }
