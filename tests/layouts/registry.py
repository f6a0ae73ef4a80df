"""One scan in each layout that is read, by writers that share no code with the readers.

They write what the programs they are named after write. Where a layout has a mask, pixel `BAD` is
marked in it and holds nonsense.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fno_runner.config import N
from tests.scans import Simulated

BAD = (3, 4)
EV = 1.602176634e-19
"""An electronvolt [J]."""
RASTER = (6, 10)
"""The simulated scan's 60 frames as rows and columns of a raster."""


@dataclass(frozen=True)
class Layout:
    """format: the name of the format that is to read it. has: what the layout can say."""

    format: str
    write: Callable[[Path, Simulated], Path]
    has: frozenset[str]


LAYOUTS: dict[str, Layout] = {}

Write = Callable[[Path, Simulated], None]


def layout(name: str, form: str, *has: str) -> Callable[[Write], Write]:
    """Register a writer; `name` is the file's."""

    def register(write: Write) -> Write:
        def write_in(folder: Path, scan: Simulated) -> Path:
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / name, scan)
            return folder / name

        LAYOUTS[f"{form}: {name}"] = Layout(form, write_in, frozenset(has))
        return write

    return register


def marked(scan: Simulated) -> tuple[np.ndarray, np.ndarray]:
    """Counts with nonsense at BAD, and where that is."""
    counts, bad = scan.counts.copy(), np.zeros((N, N), bool)
    bad[BAD] = True
    counts[:, bad] = 12_345
    return counts, bad
