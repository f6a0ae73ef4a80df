"""One scan in each layout that is read, by writers that share no code with the readers."""

from __future__ import annotations

from tests.layouts import cxi, npz, others, ptychodus
from tests.layouts.registry import BAD, LAYOUTS, Layout

__all__ = ["BAD", "LAYOUTS", "Layout", "cxi", "npz", "others", "ptychodus"]
