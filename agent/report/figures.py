"""What all pictures of a report share: style, colours, a layout that is made once, files."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fno_runner.files import write_atomically

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Colours that the colour-blind tell apart (Okabe and Ito, 2008), its black kept for the front."""
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
DPI = 200
PAD = 0.08
"""Around each panel [in]: less, and titles leave the page."""
MAX_SERIES = 12
"""More series than this are not drawn: a page has an end."""


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of this size [in] to be filled, with `PAD` around its panels.

    It is laid out at the end and only once, whatever the style of who saves it and in which format.
    """
    with matplotlib.style.context(["default", STYLE]):
        layout = ConstrainedLayoutEngine(w_pad=PAD, h_pad=PAD)
        figure = Figure(figsize=(width, height), layout=layout)
        FigureCanvasAgg(figure)
        yield figure
        layout.execute(figure)
        figure.set_layout_engine("none")


def spanning(low: float, high: float, least: float) -> tuple[float, float]:
    """The ends of an axis, moved apart where they are less than `least` from each other."""
    if high - low >= least:
        return low, high
    return (low + high - least) / 2, (low + high + least) / 2


def save_png(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write a figure; the same figure gives the same bytes (no time, no version of a program).

    Raises:
        MachineError: the disk refuses the write.
    """
    _save(figure, path, format="png", dpi=dpi, metadata={"Software": None})


def save_pdf(figure: Figure, path: Path) -> None:
    """The same as lines and letters, for papers.

    Raises:
        MachineError: the disk refuses the write.
    """
    nobody = {"CreationDate": None, "Producer": None, "Creator": None}
    _save(figure, path, format="pdf", metadata=nobody)


def data_uri(png: bytes) -> str:
    """A picture as a page holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _save(figure: Figure, path: Path, **how: Any) -> None:
    # Type 42: letters stay letters in a drawing program; journals ask for it.
    with matplotlib.style.context(["default", {**STYLE, "pdf.fonttype": 42}]):
        write_atomically(path, lambda stream: figure.savefig(stream, **how))
