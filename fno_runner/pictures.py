"""Pictures of objects: recon.png beside the truth and with the error; object.png alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from fno_runner.files import write_atomically
from fno_runner.score.metrics import align

DPI = 150


def draw_reconstruction(
    path: Path,
    title: str,
    reconstruction: np.ndarray,
    mask: np.ndarray,
    reference: np.ndarray | None,
    reference_kind: Literal["truth", "reference"] | None,
) -> None:
    """Draw an object (H, W) beside what it should be; a row shares one colour scale.

    Both phases are drawn as they are compared: global phase and plane removed. Without a
    reference, amplitude and phase [rad] of the reconstruction alone.
    """
    # Here, so that a run's first step does not wait for the import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
    seen = mask[box]
    against = reconstruction if reference is None else reference
    amplitudes, phases = align(reconstruction[box], against[box], seen)
    # From another method's object one differs; one errs from a truth only.
    apart = "error" if reference_kind == "truth" else "difference"
    names = [reference_kind, "reconstruction", apart] if reference is not None else ["object"]
    figure = Figure(figsize=(4.1 * len(names) + 0.4, 7.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(names), squeeze=False)
    figure.suptitle(title, fontsize=11)
    labels = ("amplitude", "phase [rad]")
    for row, (label, (predicted, true)) in enumerate(
        zip(labels, (amplitudes, phases), strict=True)
    ):
        low, high = np.quantile(true[seen], [0.002, 0.998])
        images = [true, predicted] if reference is not None else [predicted]
        for axis, image in zip(axes[row], images, strict=False):
            shown = axis.imshow(np.where(seen, image, np.nan), cmap="cividis", vmin=low, vmax=high)
        figure.colorbar(shown, ax=axes[row, : len(images)], label=label, shrink=0.85)
        if reference is not None:
            # The error's scale is half the truth's range either way: the same weight of colour.
            span = (high - low) / 2
            error = axes[row, 2].imshow(
                np.where(seen, predicted - true, np.nan), cmap="RdBu_r", vmin=-span, vmax=span
            )
            figure.colorbar(error, ax=axes[row, 2], label=f"Δ {label}", shrink=0.85)
        for axis, name in zip(axes[row], names, strict=True):
            axis.set_title(f"{name}, {label.split(' ')[0]}", fontsize=10)
            axis.set_xlabel("x [px]")
            axis.set_ylabel("y [px]")
    # No time stamp, no version: the same run gives the same file.
    write_atomically(
        path,
        lambda stream: figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None}),
    )


def draw_object(
    path: Path, title: str, obj: np.ndarray, seen: np.ndarray, pixel_size: float | None
) -> None:
    """Draw an object (H, W) that nothing is compared with: amplitude, and phase [rad].

    The phase is without its offset and its plane. Axes are in µm where `pixel_size` [m] is known.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, cols = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
    known = seen[box]
    (amplitude, _), (phase, _) = align(obj[box], obj[box], known)
    height, width = known.shape
    unit, side = ("px", 1.0) if pixel_size is None else ("µm", pixel_size * 1e6)
    figure = Figure(figsize=(10.6, 1.0 + 3.9 * min(max(height / width, 0.4), 2.0)))
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    panels = zip(
        figure.subplots(1, 2), (amplitude, phase), ("amplitude", "phase [rad]"), strict=True
    )
    for axis, image, label in panels:
        low, high = np.quantile(image[known], [0.002, 0.998])
        shown = axis.imshow(
            np.where(known, image, np.nan),
            cmap="cividis",
            vmin=low,
            vmax=high,
            extent=(0, width * side, height * side, 0),
        )
        figure.colorbar(shown, ax=axis, label=label, shrink=0.85)
        axis.set(title=label.split(" ")[0], xlabel=f"x [{unit}]", ylabel=f"y [{unit}]")
    write_atomically(
        path,
        lambda stream: figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None}),
    )
