"""Which way round a scan's axes and its Fourier transform are: sixteen short fits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from fno_runner.data.crop import bin_ramp
from fno_runner.data.frames import Scan, from_the_corner
from fno_runner.scan.iterative import reconstruct, residual

FRAMES = 120
"""Frames of a short fit: those nearest to the scan's middle, so that they overlap."""
ITERATIONS = 4
"""Passes of a short fit."""

ORIENTATIONS = tuple(
    "".join(parts) or "as-stored"
    for parts in product(("", "transpose"), ("", "-rows"), ("", "-columns"))
)
"""What is done to the stored positions: exchange rows and columns, then count some backwards."""
SIGNS = ("+", "-")
"""The sign of the Fourier transform's exponent relative to this program's."""


@dataclass(frozen=True)
class Candidate:
    """A way round and R of its short fit."""

    orientation: str
    sign: str
    r: float


def orient(scan: Scan, orientation: str, sign: str = "+") -> Scan:
    """A scan with its positions turned, and with the other sign its patterns, too.

    |F⁻¹ψ| at k is |Fψ| at −k: the other sign is the pattern turned by 180° about its centre. The
    reference object is another one's and is left out where anything changes.
    """
    if orientation == "as-stored" and sign == "+":
        return scan
    positions = scan.positions[:, ::-1] if orientation.startswith("transpose") else scan.positions
    backwards = np.array(["-rows" in orientation, "-columns" in orientation])
    positions = from_the_corner(np.where(backwards, -positions, positions), scan.size)
    turned = replace(scan, positions=positions, reference=None)
    if sign == "+":
        return turned
    probe, binning = scan.probe, scan.crop.binning
    if probe is not None and binning > 1:
        # Binned pixels are off the zero frequency, and now to the other side.
        probe = (probe * bin_ramp(scan.size, binning).conj() ** 2).astype(np.complex64)
    return replace(
        turned,
        probe=probe,
        amplitude=_turned(scan.amplitude),
        mask=None if scan.mask is None else _turned(scan.mask),
    )


def check(scan: Scan) -> list[Candidate]:
    """Every way round with the residual of its fit, best first.

    With a probe, it is kept and an object is fitted. Without one, a probe is fitted too, and then
    a way and its opposite (the other sign; both axes backwards) fit equally: P*(−r) and O*(−r)
    explain what P(r) and O(r) do. Of such twins only the first is tried.
    """
    middle = np.median(scan.positions, axis=0)
    near = np.argsort(np.linalg.norm(scan.positions - middle, axis=1), kind="stable")[:FRAMES]
    few = replace(
        scan,
        amplitude=scan.amplitude[near],
        positions=from_the_corner(scan.positions[near], scan.size),
        indexes=scan.indexes[near],
        reference=None,
    )
    blind = scan.probe is None
    ways = [way for way in ORIENTATIONS if not (blind and "-columns" in way)]
    tried = []
    for way, sign in product(ways, SIGNS[:1] if blind else SIGNS):
        turned = orient(few, way, sign)
        fit = reconstruct(
            turned,
            modes=1 if scan.probe is None else len(scan.probe),
            iterations=ITERATIONS * (3 if blind else 1),
            fit_probe=blind,
        )
        tried.append(Candidate(way, sign, residual(fit, turned)))
    return sorted(tried, key=lambda candidate: candidate.r)


def _turned(pattern: np.ndarray) -> np.ndarray:
    """The last two axes turned by 180° about [N/2, N/2], where the zero frequency stays."""
    return np.ascontiguousarray(np.roll(pattern[..., ::-1, ::-1], (1, 1), axis=(-2, -1)))
