"""The pictures of an export, and the page that shows them all."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from agent.report.effects_plot import effects_figure
from agent.report.figures import save_pdf, save_png
from agent.report.gallery import Gallery, gallery, pictured_object
from agent.report.ladder_plot import ladder_figure
from agent.report.page import render_page
from agent.report.pareto_plot import pareto_figure
from agent.report.reconstructions import reconstructions_figure
from agent.report.terminal import ExportResult
from fno_runner.files import write_text_atomically

PLOT = "pareto_plot.png"
PAPER = "pareto_plot.pdf"
EFFECTS = "main_effects.png"
LADDER = "ladder.png"
RECONSTRUCTIONS = "reconstructions.png"
PAGE = "report.html"
MOST_PICTURES = 24
"""Reconstructions read for a report: each is some megabytes on disk and 30 kB in the page."""
RECON_DPI = 150
"""Objects are grainy: more would only make the file large."""


def write_report(result: ExportResult) -> list[Path]:
    """Write the pictures that there is something to show in, and report.html in any case.

    A picture of an earlier export that this one has nothing for is removed: it would show what the
    tables no longer say. The same result gives the same bytes, but for the page's time stamp.

    Returns:
        what was written.

    Raises:
        MachineError: the disk refuses.
    """
    folder, shown = result.folder, galleries(result)
    compared = [drawn for drawn in map(pictured_object, shown) if drawn is not None]
    for name in (PLOT, PAPER, EFFECTS, LADDER, RECONSTRUCTIONS):
        (folder / name).unlink(missing_ok=True)
    written = []
    if any(series.fronts for series in result.series):
        figure = pareto_figure(result.series, result.material.counts)
        save_png(figure, folder / PLOT)
        save_pdf(figure, folder / PAPER)
        written += [folder / PLOT, folder / PAPER]
    if any(series.recommendation for series in result.series):
        save_png(ladder_figure(result.series), folder / LADDER)
        written.append(folder / LADDER)
    if any(series.effects for series in result.series):
        save_png(effects_figure(result.series), folder / EFFECTS)
        written.append(folder / EFFECTS)
    if compared:
        save_png(reconstructions_figure(compared), folder / RECONSTRUCTIONS, RECON_DPI)
        written.append(folder / RECONSTRUCTIONS)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_text_atomically(folder / PAGE, render_page(result, shown, now))
    return [*written, folder / PAGE]


def galleries(result: ExportResult) -> list[Gallery]:
    """What is pictured of each series; several share what a page holds, and the last get none."""
    share = max(2, MOST_PICTURES // max(1, len(result.series)))
    return [
        gallery(series, result.material.folder, share if number < MOST_PICTURES // 2 else 0)
        for number, series in enumerate(result.series)
    ]
