"""reconstructions.png and thumbnails: what runs made of the object, beside what it should be."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from agent.report.figures import data_uri, new_figure
from fno_runner.data.npz import array_names, read_array
from fno_runner.errors import UserError
from fno_runner.score.metrics import align

COLOURS = "cividis"
"""Its brightness rises evenly, also in grey print, and the colour-blind see what others see."""
PANEL = 2.1
"""Side of a picture [in]."""
THUMBNAIL = 196
"""Longer side of a picture in a page [px]."""
MAX_PIXELS = 2**26
"""A larger object is not read for a picture: 512 MiB of complex64 [px]."""
MOST_OBJECTS = 3
"""So many objects stand one below the other; a page has an end."""

Picture = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reconstruction:
    """What a run made of its first test object, as it was compared with what it should be.

    Pictures are float64 (H, W), the phases [rad] without global phase and plane, NaN outside of
    the scanned area.

    against: (amplitude, phase) of the truth or of the reference; None where there is neither.
    """

    amplitude: Picture
    phase: Picture
    against: tuple[Picture, Picture] | None


@dataclass(frozen=True)
class Column:
    """A reconstruction in the picture, with what stands above it: a line or two."""

    title: str
    reconstruction: Reconstruction
    emphasised: bool = False


@dataclass(frozen=True)
class PicturedObject:
    """Reconstructions of one object.

    name: what tells it from others; empty where there is one only.
    kind: 'truth' or 'reference', or None where there is neither.
    """

    name: str
    kind: str | None
    columns: Sequence[Column]


def read_reconstruction(path: Path) -> Reconstruction | None:
    """A run's recon.npz; None where there is none (a run of a server).

    Raises:
        UserError: the file is damaged, or not what a run leaves.
    """
    if not path.exists():
        return None
    names = array_names(path)
    objects, masks = read_array(path, "object"), read_array(path, "mask")
    references = read_array(path, "reference") if "reference" in names else None
    _check(path, objects, masks, objects if references is None else references)
    mask = masks[0]
    if not mask.any():
        raise UserError(f"{path}: its mask is empty")
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
    seen, predicted = mask[box], objects[0][box]
    true = predicted if references is None else references[0][box]
    amplitudes, phases = (
        [np.where(seen, image, np.nan) for image in pair] for pair in align(predicted, true, seen)
    )
    against = None if references is None else (amplitudes[1], phases[1])
    return Reconstruction(amplitudes[0], phases[0], against)


def reconstructions_figure(objects: Sequence[PicturedObject]) -> Figure:
    """Truth or reference, then the reconstructions: phase, phase error and amplitude as rows.

    A row shares one colour scale, the middle 99.6 % of the truth (without one, of the first
    reconstruction); errors half of it to both sides of zero.
    """
    shown = objects[:MOST_OBJECTS]
    rows = [3 if pictured.kind else 2 for pictured in shown]
    columns = [len(pictured.columns) + bool(pictured.kind) for pictured in shown]
    width, height = max(columns) * PANEL + 1.2, sum(rows) * PANEL + 0.8 * len(rows)
    with new_figure(width, height) as figure:
        blocks = figure.subfigures(len(shown), 1, squeeze=False, height_ratios=rows)
        for pictured, block in zip(shown, blocks[:, 0], strict=True):
            _draw(block, pictured)
    return figure


def thumbnail(picture: Picture, limits: tuple[float, float], side: int = THUMBNAIL) -> str:
    """A small picture as a data URI (PNG, `side` px on the longer side), NaN transparent."""
    low, high = limits
    level = np.clip((_shrunk(picture, side) - low) / (high - low), 0, 1)
    index = np.where(np.isnan(level), 0, 1 + np.round(254 * np.nan_to_num(level)))
    image = Image.fromarray(index.astype(np.uint8), mode="P")
    colours = (colormaps[COLOURS](np.linspace(0, 1, 255))[:, :3] * 255).round().astype(np.uint8)
    image.putpalette(bytes(3) + colours.tobytes())
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True, transparency=0)
    return data_uri(stream.getvalue())


def limits_of(picture: Picture) -> tuple[float, float]:
    """The colour scale of a picture: its middle 99.6 %, and never only the noise of rounding."""
    low, high = map(float, np.nanquantile(picture, [0.002, 0.998]))
    lacking = max(0.0, 1e-3 * max(abs(low), abs(high)) - (high - low), 1e-9 - (high - low))
    return low - lacking / 2, high + lacking / 2


def _check(path: Path, objects: np.ndarray, masks: np.ndarray, references: np.ndarray) -> None:
    """Doubt what lies in a file.

    Raises:
        UserError: shapes or types that no run leaves, or numbers that are not finite.
    """
    fits = (
        objects.ndim == 3
        and objects.size > 0
        and objects[0].size <= MAX_PIXELS
        and objects.shape == masks.shape == references.shape
        and objects.dtype == references.dtype == np.complex64
        and masks.dtype == np.bool_
    )
    if not fits:
        raise UserError(f"{path}: not a reconstruction of a run (shapes or types)")
    if not all(np.isfinite(arrays[0][masks[0]]).all() for arrays in (objects, references)):
        raise UserError(f"{path}: has numbers that are not finite")


def _shrunk(picture: Picture, side: int) -> Picture:
    """Means over squares of pixels, so that at most `side` are left; NaN where all of them are."""
    step = max(1, -(-max(picture.shape) // side))
    height, width = (length // step for length in picture.shape)
    squares = picture[: height * step, : width * step].reshape(height, step, width, step)
    count = (~np.isnan(squares)).sum(axis=(1, 3))
    return np.divide(
        np.nansum(squares, axis=(1, 3)), count, out=np.full(count.shape, np.nan), where=count > 0
    )


def _draw(block: SubFigure, pictured: PicturedObject) -> None:
    pictures = [column.reconstruction for column in pictured.columns]
    # All columns are of one object, and so is what they are compared with.
    against = pictures[0].against if pictured.kind else None
    titles = [(column.title, column.emphasised) for column in pictured.columns]
    if against is not None:
        titles.insert(0, (str(pictured.kind), False))
    count = 2 if against is None else 3
    axes = block.subplots(count, len(titles), squeeze=False, sharex=True, sharey=True)
    if pictured.name:
        block.suptitle(pictured.name, fontsize=9, fontweight="bold", x=0.01, ha="left")
    phases = ([against[1]] if against else []) + [picture.phase for picture in pictures]
    moduli = ([against[0]] if against else []) + [picture.amplitude for picture in pictures]
    _row(axes[0], phases, "phase [rad]", limits_of(phases[0]), COLOURS)
    if against is not None:
        low, high = limits_of(phases[0])
        errors = [picture.phase - against[1] for picture in pictures]
        axes[1, 0].set_axis_off()
        half = (high - low) / 2
        _row(axes[1, 1:], errors, "Δ phase [rad]", (-half, half), "RdBu_r")
    _row(axes[-1], moduli, "amplitude", limits_of(moduli[0]), COLOURS)
    for axis, (title, emphasised) in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8, fontweight="bold" if emphasised else "normal")
    for axis in axes[-1]:
        axis.set_xlabel("x [px]", fontsize=8)
    for axis in (axes[0, 0], axes[-1, 0], axes[1, 1] if count == 3 else axes[0, 0]):
        axis.set_ylabel("y [px]", fontsize=8)
    for axis in axes.flat:
        axis.tick_params(labelsize=7)


def _row(
    axes: npt.NDArray[np.object_],
    pictures: Sequence[Picture],
    label: str,
    limits: tuple[float, float],
    colours: str,
) -> None:
    axis: Axes
    norm = Normalize(*limits)
    for axis, picture in zip(axes, pictures, strict=True):
        image = axis.imshow(picture, cmap=colours, norm=norm)
    bar = axis.figure.colorbar(image, ax=list(axes), label=label, shrink=0.9, aspect=18, pad=0.01)
    bar.ax.tick_params(labelsize=7)
