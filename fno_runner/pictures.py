"""Pictures of objects: recon.png beside the truth and with the error; object.png alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from fno_runner.files import write_atomically
from fno_runner.result import RingCurves
from fno_runner.score.frc import FINEST, HALF, SEVENTH, last_crossing, smooth
from fno_runner.score.metrics import align

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

DPI = 150
RANGE = (0.002, 0.998)
"""The quantiles that a scale of colours begins and ends at."""
SKETCHED = 640
"""Pixels a side that a sketch has at most."""


def draw_reconstruction(
    path: Path,
    title: str,
    reconstruction: np.ndarray,
    mask: np.ndarray,
    reference: np.ndarray | None,
    reference_kind: Literal["truth", "reference"] | None,
    curves: Mapping[str, RingCurves],
) -> None:
    """Draw an object (H, W) beside what it should be; a row shares one colour scale.

    Both phases are drawn as they are compared: global phase and plane removed. Without a
    reference, amplitude and phase [rad] of the reconstruction alone. Below are the Fourier ring
    correlations, smoothed as they are judged.
    """
    # Here, so that a run's first step does not wait for the import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    box = _box(mask)
    seen = mask[box]
    against = reconstruction if reference is None else reference
    amplitudes, phases = align(reconstruction[box], against[box], seen)
    # From another method's object one differs; one errs from a truth only.
    apart = "error" if reference_kind == "truth" else "difference"
    names = [reference_kind, "reconstruction", apart] if reference is not None else ["object"]
    below = 2.9 if curves else 0.0
    figure = Figure(figsize=(4.1 * len(names) + 0.4, 7.6 + below), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    objects: FigureBase = figure
    if curves:
        parts = figure.subfigures(2, 1, height_ratios=(7.6, below), squeeze=False)
        objects, correlations = parts[:, 0]
        panels = correlations.subplots(1, len(curves), squeeze=False)[0]
        for axis, (kind, correlation) in zip(panels, curves.items(), strict=True):
            draw_correlation(axis, kind, correlation)
    axes = objects.subplots(2, len(names), squeeze=False)
    labels = ("amplitude", "phase [rad]")
    for row, (label, (predicted, true)) in enumerate(
        zip(labels, (amplitudes, phases), strict=True)
    ):
        low, high = np.quantile(true[seen], RANGE)
        images = [true, predicted] if reference is not None else [predicted]
        for axis, image in zip(axes[row], images, strict=False):
            shown = axis.imshow(np.where(seen, image, np.nan), cmap="cividis", vmin=low, vmax=high)
        objects.colorbar(shown, ax=axes[row, : len(images)], label=label, shrink=0.85)
        if reference is not None:
            # The error's scale is half the truth's range either way: the same weight of colour.
            span = (high - low) / 2
            error = axes[row, 2].imshow(
                np.where(seen, predicted - true, np.nan), cmap="RdBu_r", vmin=-span, vmax=span
            )
            objects.colorbar(error, ax=axes[row, 2], label=f"Δ {label}", shrink=0.85)
        for axis, name in zip(axes[row], names, strict=True):
            axis.set_title(f"{name}, {label.split(' ')[0]}", fontsize=10)
            axis.set_xlabel("x [px]")
            axis.set_ylabel("y [px]")
    # No time stamp, no version: the same run gives the same file.
    write_atomically(
        path,
        lambda stream: figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None}),
    )


def draw_correlation(axes: Axes, kind: str, curves: RingCurves) -> None:
    """Draw Fourier ring correlations, their thresholds, and where the phase last crosses them.

    Args:
        kind: what was correlated: the object with the "truth" or the "reference", or two "halves".
    """
    halves = kind == "halves"
    fixed, name = (SEVENTH, "1/7") if halves else (HALF, "0.5")
    phase, amplitude, half_bit = (
        np.array(values) for values in (curves.phase, curves.amp, curves.half_bit)
    )
    frequency = curves.step * np.arange(1, len(phase) + 1)
    axes.plot(frequency, smooth(amplitude), color="#E69F00", lw=1.2, label="amplitude")
    axes.plot(frequency, smooth(phase), color="#0072B2", lw=1.8, label="phase")
    for threshold, style, label in (
        (np.full(len(phase), fixed), "--", name),
        (half_bit, ":", "half-bit"),
    ):
        axes.plot(frequency, threshold, color="#444444", lw=1.0, ls=style, label=label)
        at = last_crossing(smooth(phase), threshold, curves.step)
        # What chance reaches is left out of 1/7's number, so that its line has no ring.
        if 0 < at < FINEST and (threshold is half_bit or not halves):
            height = float(np.interp(at, frequency, threshold))
            axes.plot(at, height, "o", ms=6, mfc="none", mec="black")
    axes.set(xlim=(0, FINEST), ylim=(-0.1, 1.03), xlabel="spatial frequency [1/px]")
    axes.set_ylabel("Fourier ring correlation", fontsize=9)
    axes.set_title("two halves of the frames" if halves else f"with the {kind}", fontsize=10)
    axes.legend(fontsize=8, loc="upper right", ncols=2, frameon=False)
    axes.grid(color="#ececec")
    axes.spines[["top", "right"]].set_visible(False)


def draw_object(
    path: Path, title: str, obj: np.ndarray, seen: np.ndarray, pixel_size: float | None
) -> None:
    """Draw an object (H, W) that nothing is compared with: amplitude, and phase [rad].

    The phase is without its offset and its plane. Axes are in µm where `pixel_size` [m] is known.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    box = _box(seen)
    known = seen[box]
    (amplitude, _), (phase, _) = align(obj[box], obj[box], known)
    height, width = known.shape
    unit, side = ("px", 1.0) if pixel_size is None else ("µm", pixel_size * 1e6)
    high_in = 1.0 + 3.9 * min(max(height / width, 0.4), 2.0)
    figure = Figure(figsize=(10.6, high_in))
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, y=1 - 0.12 / high_in, va="top")
    # By hand: an engine that finds the places takes a third of the picture's time.
    axes = figure.subplots(1, 2, gridspec_kw={
        "left": 0.07, "right": 0.97, "wspace": 0.22,
        "bottom": 0.5 / high_in, "top": 1 - 0.65 / high_in,
    })  # fmt: skip
    panels = zip(axes, (amplitude, phase), ("amplitude", "phase [rad]"), strict=True)
    for axis, image, label in panels:
        low, high = np.quantile(image[known], RANGE)
        shown = axis.imshow(
            np.where(known, image, np.nan),
            cmap="cividis",
            vmin=low,
            vmax=high,
            extent=(0, width * side, height * side, 0),
        )
        figure.colorbar(shown, ax=axis, label=label, pad=0.03)
        axis.set(title=label.split(" ")[0], xlabel=f"x [{unit}]", ylabel=f"y [{unit}]")
    write_atomically(
        path,
        lambda stream: figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None}),
    )


def sketch_object(path: Path, obj: np.ndarray, seen: np.ndarray) -> None:
    """Amplitude and phase of an object (H, W) as `draw_object` shows them, without axes.

    It takes a fiftieth of the time: for an object that still grows.
    """
    from matplotlib import colormaps
    from PIL import Image

    every = math.ceil(max(obj.shape) / SKETCHED)
    box = _box(seen)
    obj, seen = obj[box][::every, ::every], seen[box][::every, ::every]
    panels = []
    for image, _ in align(obj, obj, seen):
        low, high = np.quantile(image[seen], RANGE)
        panel = colormaps["cividis"]((image - low) / max(high - low, 1e-12), bytes=True)
        panel[~seen] = 255
        panels.append(np.pad(panel, ((0, 0), (4, 4), (0, 0)), constant_values=255))
    picture = Image.fromarray(np.hstack(panels))
    larger = max(1, SKETCHED // max(obj.shape))
    picture = picture.resize(
        (picture.width * larger, picture.height * larger), Image.Resampling.BOX
    )
    write_atomically(path, lambda stream: picture.save(stream, "png", compress_level=1))


def _box(seen: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns that anything is seen in."""
    rows, cols = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
