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
from fno_runner.score.metrics import align, bounding_box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
IMAGE, LEFT, BOTTOM, AROUND, BAR, TITLE, CORRELATION = 2.85, 0.75, 0.5, 0.8, 1.2, 0.4, 2.9
"""Of recon.png [in]: an image's longer side; what its labels take left of it, below it, and both
below and above; a bar of colours with its label; the title; the correlations. To find room by
drawing first (matplotlib's constrained layout) took longer than all else."""
RANGE = (0.002, 0.998)
"""The quantiles that a scale of colours begins and ends at."""
PANEL, MARGIN = 640, 24
"""Pixels a side of an object's picture, and about it."""
CIVIDIS = bytes.fromhex(
    "00224d 003070 2a3f6d 434e6b 575d6d 696b71 7c7b78 908b77 a59b73 bbad6c d2bf60 e9d24d fde737"
)
"""Thirteen colours of matplotlib's map of that name, evenly: safe for the colour-blind, in grey."""


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

    box = bounding_box(mask)
    seen = mask[box]
    against = reconstruction if reference is None else reference
    amplitudes, phases = align(reconstruction[box], against[box], seen)
    names, bars = ["object"], [0]
    if reference is not None:
        # From another method's object one differs; one errs from a truth only.
        apart = "error" if reference_kind == "truth" else "difference"
        names, bars = [str(reference_kind), "reconstruction", apart], [1, 2]
    width = len(names) * (LEFT + IMAGE) + len(bars) * BAR
    below = CORRELATION if curves else 0.0
    shape = np.array(seen.shape)
    high_in, wide_in = IMAGE * shape / shape.max()
    height = high_in + AROUND
    figure = Figure(figsize=(width, TITLE + 2 * height + below))
    FigureCanvasAgg(figure)
    top = 1 - 0.1 / figure.get_figheight()
    figure.suptitle(title, fontsize=11 if reference is not None else 8, y=top, va="top")
    for row, (label, (predicted, true)) in enumerate(
        zip(("amplitude", "phase [rad]"), (amplitudes, phases), strict=True)
    ):
        low, high = np.quantile(true[seen], RANGE)
        # The error's scale is half the truth's range either way: the same weight of colour.
        span = (high - low) / 2
        shown = [predicted] if reference is None else [true, predicted, predicted - true]
        left, bottom = 0.0, below + (1 - row) * height + BOTTOM
        for column, (image, name) in enumerate(zip(shown, names, strict=True)):
            left += LEFT
            axis = _axes(figure, left + (IMAGE - wide_in) / 2, bottom, wide_in, high_in)
            errs = column == 2
            drawn = axis.imshow(
                np.where(seen, image, np.nan),
                cmap="RdBu_r" if errs else "cividis",
                vmin=-span if errs else low,
                vmax=span if errs else high,
            )
            axis.set_title(f"{name}, {label.split(' ')[0]}", fontsize=10)
            axis.set(xlabel="x [px]", ylabel="y [px]")
            left += IMAGE
            if column in bars:
                beside = _axes(figure, left + 0.1, bottom, 0.14, high_in)
                figure.colorbar(drawn, cax=beside, label=f"Δ {label}" if errs else label)
                left += BAR
    for number, (kind, correlation) in enumerate(curves.items()):
        each = width / len(curves)
        place = number * each + LEFT, 0.55, each - LEFT - 0.2, CORRELATION - 0.95
        _draw_correlation(_axes(figure, *place), kind, correlation)
    # No time stamp, no version: the same run gives the same file.
    write_atomically(
        path,
        lambda stream: figure.savefig(
            stream,
            format="png",
            dpi=DPI,
            metadata={"Software": None},
            pil_kwargs={"compress_level": 3},
        ),
    )


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """At a place that is told in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _draw_correlation(axes: Axes, kind: str, curves: RingCurves) -> None:
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
    axes.legend(fontsize=8, loc="best", ncols=2, frameon=False)
    axes.grid(color="#ececec")
    axes.spines[["top", "right"]].set_visible(False)


def draw_object(
    path: Path, title: str, obj: np.ndarray, seen: np.ndarray, pixel_size: float | None
) -> None:
    """Draw an object (H, W) that nothing is compared with: amplitude, and phase [rad].

    The phase is without its offset and its plane. A bar tells the scale where `pixel_size` [m] is
    known. It takes a twentieth of a second, as it is drawn again and again while an object grows.
    """
    from PIL import Image, ImageDraw, ImageFont

    box = bounding_box(seen)
    every = math.ceil(max(seen[box].shape) / PANEL)
    obj, seen = obj[box][::every, ::every], seen[box][::every, ::every]
    larger = max(1, PANEL // max(obj.shape))
    height, width = (side * larger for side in obj.shape)
    step = max(width, PANEL // 2) + MARGIN
    picture = Image.new("RGB", (2 * step + MARGIN, height + 5 * MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    small, large = (ImageFont.load_default(size) for size in (15, 17))
    draw.text((MARGIN, MARGIN // 3), title, "black", large)
    for number, (label, (image, _)) in enumerate(
        zip(("amplitude", "phase [rad]"), align(obj, obj, seen), strict=True)
    ):
        low, high = np.quantile(image[seen], RANGE)
        shown = _coloured((image - low) / max(high - low, np.finfo(np.float32).tiny))
        shown[~seen] = 255
        left = MARGIN + number * step
        panel = Image.fromarray(np.repeat(np.repeat(shown, larger, axis=0), larger, axis=1))
        picture.paste(panel, (left, 3 * MARGIN))
        draw.text((left, 2 * MARGIN), f"{label}  {low:.3g}", "black", small)
        at = left + round(draw.textlength(f"{label}  {low:.3g}  ", small))
        ramp = np.repeat(_coloured(np.linspace(0, 1, 120))[None], 12, axis=0)
        picture.paste(Image.fromarray(ramp), (at, 2 * MARGIN + 3))
        draw.text((at + 128, 2 * MARGIN), f"{high:.3g}", "black", small)
    length, unit = _round_length(obj.shape[1] * every / 3, pixel_size)
    bar = round(length * larger / every)
    below = height + 3 * MARGIN + MARGIN // 2
    draw.rectangle((MARGIN, below, MARGIN + bar, below + 4), "black")
    draw.text((MARGIN, below + 8), unit, "black", small)
    write_atomically(path, lambda stream: picture.save(stream, "png", compress_level=1))


def _coloured(values: np.ndarray) -> np.ndarray:
    """Colours (…, 3) of numbers from 0 to 1, uint8."""
    colours = np.frombuffer(CIVIDIS, np.uint8).reshape(-1, 3)
    at = np.linspace(0, 1, len(colours))
    channels = [np.interp(values, at, channel) for channel in colours.T]
    return np.stack(channels, axis=-1).astype(np.uint8)


def _round_length(most: float, pixel_size: float | None) -> tuple[float, str]:
    """A length of 1, 2 or 5 times a power of ten, at most so many pixels: in pixels, in words."""
    side = 1.0 if pixel_size is None else pixel_size * 1e9
    power = 10.0 ** math.floor(math.log10(most * side))
    length = max(times * power for times in (1, 2, 5) if times * power <= most * side)
    if pixel_size is None:
        return length, f"{length:g} px"
    return length / side, f"{length:,g} nm"  # the font has no µ
