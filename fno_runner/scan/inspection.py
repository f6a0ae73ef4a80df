"""What a scan is, before anyone trains on it: numbers and a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Complex64, Float64

from fno_runner.data.crop import Crop
from fno_runner.data.frames import Scan, beam_diameter, step
from fno_runner.files import write_atomically
from fno_runner.reconstruct.stitching import covered
from fno_runner.scan.iterative import Fit
from fno_runner.score.metrics import align

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130
FEW = 10
"""Counts below which a single count says little of its expectation."""
TITLE = "fno_runner.data inspect"
"""Says within a PNG file that `draw` drew it."""
OVERLAP_WANTED = 0.6
"""Of a beam's diameter; with less, ptychography is known to suffer (Bunk et al., 2008)."""


def describe(scan: Scan) -> list[tuple[str, str]]:
    """Facts about a scan, each with its name; counts are amplitudes squared."""
    counts = np.concatenate([block.sum(axis=(1, 2)) for block in _intensities(scan)])
    brightest = float(scan.amplitude.max()) ** 2
    height, width = scan.shape
    low, high = scan.positions.min(axis=0), scan.positions.max(axis=0)
    pixels = scan.size**2
    chosen = scan.size, scan.crop.binning
    others = [crop for crop in scan.alternatives if (crop.size, crop.binning) != chosen]
    facts = [
        ("format", scan.source),
        ("frames", f"{len(scan)} of {scan.size}×{scan.size} px"),
        ("frame holds", str(scan.crop)),
        *(("", _alternative(crop)) for crop in others),
        ("counts a frame", f"{counts.mean():.4g} (from {counts.min():.4g} to {counts.max():.4g})"),
        ("brightest pixel", f"{brightest:.4g} counts"),
        ("noise alone", f"R ≈ {poisson_floor(scan):.3f} if the data are counts"),
        ("bad pixels", "none" if scan.mask is None else f"{int((~scan.mask).sum())} of {pixels}"),
        ("rows", f"{low[0]:.1f} … {high[0]:.1f} px"),
        ("columns", f"{low[1]:.1f} … {high[1]:.1f} px"),
        ("step", f"{step(scan.positions):.2f} px between neighbours (median)"),
        ("object", f"{height}×{width} px"),
    ]
    if scan.pixel_size is not None:
        nm = scan.pixel_size * 1e9
        facts.append(("pixel", f"{nm:.2f} nm: the object is {height * nm / 1e3:.2f} µm high"))
    if scan.probe is None:
        facts.append(("probe", "none: python -m fno_runner.data probe finds one"))
    else:
        beam = beam_diameter(scan.probe)
        overlap = max(0.0, 1 - step(scan.positions) / beam)
        enough = "" if overlap >= OVERLAP_WANTED else f" (little: {OVERLAP_WANTED:.0%} is wanted)"
        facts += [
            ("probe", modes_in_words(scan.probe)),
            ("beam", f"{beam:.1f} px across (of a disk of the same effective area)"),
            ("overlap", f"{overlap:.0%} of the beam between neighbours{enough}"),
        ]
    reference = "none" if scan.reference is None else "an object of another method, no truth"
    facts.append(("reference", reference))
    return facts


def modes_in_words(probe: Complex64[np.ndarray, "m n n"]) -> str:
    """'2 modes (82 %, 18 %)', with each one's share of the power."""
    power = np.square(np.abs(probe)).sum(axis=(1, 2))
    shares = ", ".join(f"{100 * share:.0f} %" for share in power / power.sum())
    return f"{len(power)} mode{'s' * (len(power) > 1)} ({shares})"


def _alternative(crop: Crop) -> str:
    """'--patch-size 64 --bin 2: 99.9 % of the counts, 98 % of the probe's light'."""
    binning = "" if crop.binning == 1 else f" --bin {crop.binning}"
    return f"--patch-size {crop.size}{binning}: {crop}"


def poisson_floor(scan: Scan) -> float:
    """R that photon noise alone leaves, if amplitudes squared are counts.

    E|√n − √I| for a Poisson count n of expectation I, for which stands the measured count, and
    where counts are few the mean of the pixel over all frames.
    """
    from scipy.stats import poisson

    mean = _mean_pattern(scan)
    levels = np.linspace(0, 12, 61) ** 2  # beyond them the variance of √n is 1/4
    n = np.arange(400)
    away = np.abs(np.sqrt(n) - np.sqrt(levels)[:, None])
    table = (poisson.pmf(n, levels[:, None]) * away).sum(axis=1)
    misfit = 0.0
    for counted in _intensities(scan):
        expected = np.where(mean < FEW, mean, counted)
        apart = np.interp(np.sqrt(expected), np.sqrt(levels), table)
        misfit += float(apart.sum() if scan.mask is None else apart[:, scan.mask].sum())
    return misfit / float(scan.amplitude.sum(dtype=np.float64))


def _intensities(scan: Scan) -> Iterator[Float64[np.ndarray, "b n n"]]:
    """The squares of the amplitudes, some frames at a time: all of them would take much memory."""
    for _, amplitude in scan.blocks():
        yield np.square(amplitude, dtype=np.float64)


def _mean_pattern(scan: Scan) -> Float64[np.ndarray, "n n"]:
    return np.asarray(sum(block.sum(axis=0) for block in _intensities(scan)) / len(scan))


def draw(scan: Scan, path: Path) -> None:
    """Mean log pattern, probe, positions, and how much light each object pixel had."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 10.2), layout="constrained")
    (pattern, probe), (places, light) = figure.subplots(2, 2)
    mean = np.log10(1 + _mean_pattern(scan))
    shown = pattern.imshow(
        mean if scan.mask is None else np.where(scan.mask, mean, np.nan), cmap="magma"
    )
    figure.colorbar(shown, ax=pattern, label="log₁₀(1 + mean counts)", shrink=0.85)
    pattern.set(title="mean pattern; bad pixels are white", xlabel="kx [px]", ylabel="ky [px]")
    if scan.probe is None:
        probe.text(0.5, 0.5, "no probe in this file", ha="center", transform=probe.transAxes)
        probe.set_axis_off()
    else:
        modulus = np.abs(np.concatenate(list(scan.probe), axis=1))
        shown = probe.imshow(modulus, cmap="cividis")
        figure.colorbar(shown, ax=probe, label="|P| [√counts]", shrink=0.85)
        modes = len(scan.probe)
        title = "probe" if modes == 1 else f"probe, {modes} modes side by side"
        probe.set(title=title, xlabel="x [px]", ylabel="y [px]")
    rows, cols = scan.positions.T
    shown = places.scatter(cols, rows, s=9, c=np.arange(len(scan)), cmap="viridis")
    figure.colorbar(shown, ax=places, label="frame", shrink=0.85)
    height, width = scan.shape
    places.set(xlim=(0, width), ylim=(height, 0), aspect="equal", title="positions")
    shown = light.imshow(illumination(scan), cmap="cividis")
    figure.colorbar(shown, ax=light, label="frames", shrink=0.85)
    light.set_title("frames that lit a pixel, by the beam's intensity")
    for axis in (places, light):
        axis.set(xlabel="x [px]", ylabel="y [px]")
    _save(figure, path, TITLE)


def is_drawn(path: Path) -> bool:
    """Whether a file is what `draw` left, which it may draw again."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        head = stream.read(1024)
    return head.startswith(b"\x89PNG") and TITLE.encode() in head


def draw_fit(fit: Fit, scan: Scan, path: Path) -> None:
    """Object (amplitude; phase less its plane [rad]) where it was lit, and the probe's modes."""
    from matplotlib.figure import Figure

    mask = covered(illumination(fit.fitted(scan)))
    modulus = np.abs(np.concatenate(list(fit.probe), axis=1))
    (amplitude, _), (phase, _) = align(fit.obj, fit.obj, mask)
    figure = Figure(figsize=(13.5, 4.4), layout="constrained")
    for axis, image, name, unit in zip(
        figure.subplots(1, 3),
        (np.where(mask, amplitude, np.nan), np.where(mask, phase, np.nan), modulus),
        ("object, amplitude", "object, phase", "probe, a mode after the other"),
        ("|O|", "phase [rad]", "|P| [√counts]"),
        strict=True,
    ):
        low, high = np.nanquantile(image, [0.002, 0.998])
        shown = axis.imshow(image, cmap="cividis", vmin=low, vmax=high)
        figure.colorbar(shown, ax=axis, label=unit, shrink=0.8)
        axis.set(title=name, xlabel="x [px]", ylabel="y [px]")
    _save(figure, path)


def _save(figure: Figure, path: Path, title: str | None = None) -> None:
    said = {"Software": None, "Title": title}
    write_atomically(
        path, lambda stream: figure.savefig(stream, format="png", dpi=DPI, metadata=said)
    )


def illumination(scan: Scan) -> np.ndarray:
    """Σ of the beam's intensity over all frames, its maximum being 1: (H, W).

    Without a probe, the frames' whole squares.
    """
    total, size = np.zeros(scan.shape), scan.size
    beam = np.ones((size, size))
    if scan.probe is not None:
        beam = np.square(np.abs(scan.probe)).sum(axis=0)
        beam = beam / beam.max()
    for row, col in np.rint(scan.positions).astype(int) - size // 2:
        total[row : row + size, col : col + size] += beam
    return total
