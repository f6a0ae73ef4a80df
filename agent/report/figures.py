"""What all pictures of a report share: style, colours, a layout that is made once, files."""

from __future__ import annotations

import base64
import math
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

from agent.study.quality import Array
from fno_runner.files import write_atomically

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Colours that the colour-blind tell apart (Okabe and Ito, 2008), its black kept for the front."""
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    # No label of ours is a formula, and the name of a device may have dollars in it.
    "text.parse_math": False,
}
DPI = 200
PAD = 0.08
"""Around each panel [in]: less, and titles leave the page."""
MAX_SERIES = 12
"""More series than this are not drawn: a page has an end."""
NAME_WIDTH = 34
"""Of a configuration's name in a picture [letters]; more is wider than a panel."""


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


def around(values: Array) -> tuple[float, float]:
    """The ends of a logarithmic axis with room around `values`, which are positive."""
    low, high = float(values.min()), float(values.max())
    # A factor of five at least, or the axis could end up with a single label.
    pad = max(1.25, math.sqrt(max(1.0, 5 / (high / low))))
    return low / pad, high * pad


def log_axis(
    axes: Axes, which: Literal["x", "y"], low: float, high: float, most: float = 4.8
) -> None:
    """A logarithmic axis from `low` to `high` with labels that read as plain numbers.

    Args:
        most: labels that find room beside each other: '50M' and '100M' take 0.2 of a panel.
    """
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    decades = math.log10(high / low)
    subs = next((subs for subs in ((1, 2, 5), (1, 3)) if len(subs) * decades < most), (1,))
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _plain_number(value)))


def wrapped(name: str) -> str:
    """A configuration's name on lines of `NAME_WIDTH`, broken between its keys if that will do."""
    kept = name.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
    keys = textwrap.wrap(kept, NAME_WIDTH, break_long_words=False, break_on_hyphens=False)
    lines = (textwrap.wrap(key.replace("\N{NO-BREAK SPACE}", " "), NAME_WIDTH) for key in keys)
    return "\n".join(line for of_key in lines for line in of_key)


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


def _plain_number(value: float) -> str:
    """'0.003', '500', '20k', '5M'."""
    return EngFormatter(sep="").format_data(value) if value >= 1000 else f"{value:g}"


def _save(figure: Figure, path: Path, **how: Any) -> None:
    # Type 42: letters stay letters in a drawing program; journals ask for it.
    with matplotlib.style.context(["default", {**STYLE, "pdf.fonttype": 42}]):
        write_atomically(path, lambda stream: figure.savefig(stream, **how))
