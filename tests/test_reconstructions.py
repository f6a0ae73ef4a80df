"""Pictures of reconstructions: aligned as they were scored, on shared scales, files doubted."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agent.report.figures import save_png
from agent.report.reconstructions import (
    Column,
    PicturedObject,
    read_reconstruction,
    reconstructions_figure,
    thumbnail,
)
from fno_runner.data.npz import write_npz
from fno_runner.errors import UserError

HEIGHT, WIDTH = 40, 30


def the_object() -> np.ndarray:
    """Amplitude 2, a phase of two levels in stripes."""
    rows = np.arange(HEIGHT)[:, None] // 4 % 2 * np.ones((1, WIDTH))
    return (2 * np.exp(1j * 0.5 * rows)).astype(np.complex64)[None]


def save(path: Path, **changes: np.ndarray) -> Path:
    mask = np.zeros((1, HEIGHT, WIDTH), bool)
    mask[:, 2:-2, 3:-3] = True
    arrays = {"object": the_object(), "mask": mask, "reference": the_object()}
    write_npz(path, {k: v for k, v in (arrays | changes).items() if v.size})
    return path


def test_a_global_phase_and_a_ramp_are_no_difference(tmp_path: Path) -> None:
    rows, cols = np.indices((HEIGHT, WIDTH))
    seen_otherwise = the_object() * np.exp(1j * (0.3 + 0.01 * rows - 0.02 * cols))
    read = read_reconstruction(save(tmp_path / "r.npz", object=seen_otherwise.astype(np.complex64)))
    assert read is not None and read.against is not None
    assert read.phase.shape == (HEIGHT - 4, WIDTH - 6)  # what was scanned
    np.testing.assert_allclose(read.phase, read.against[1], atol=1e-5)
    np.testing.assert_allclose(read.amplitude, 2, rtol=1e-5)


def test_without_a_reference_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    read = read_reconstruction(save(tmp_path / "r.npz", reference=np.empty(0)))
    assert read is not None and read.against is None
    figure = reconstructions_figure([PicturedObject("", None, [Column("a run", read)])])
    titles = [axes.get_title() for block in figure.subfigs for axes in block.axes]
    assert "a run" in titles and not {"truth", "reference"} & set(titles)


def test_no_file_is_no_error() -> None:
    assert read_reconstruction(Path("nowhere/recon.npz")) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"object": np.zeros((1, 3, 3), np.complex64)},
        {"object": np.zeros((1, HEIGHT, WIDTH))},
        {"object": np.full((1, HEIGHT, WIDTH), np.nan, np.complex64)},
        {"mask": np.zeros((1, HEIGHT, WIDTH), bool)},
        {"mask": np.ones((1, HEIGHT, WIDTH))},
        {"reference": np.zeros((HEIGHT, WIDTH), np.complex64)},
        {"object": np.empty(0)},
    ],
    ids=["shape", "real", "NaN", "empty mask", "mask of floats", "reference", "no object"],
)
def test_what_no_run_leaves_is_refused_by_name(
    changes: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = save(tmp_path / "r.npz", **changes)
    with pytest.raises(UserError, match=str(path)):
        read_reconstruction(path)


def test_a_list_of_no_objects_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    none = np.empty((0, HEIGHT, WIDTH))
    write_npz(path, {"object": none.astype(np.complex64), "mask": none.astype(bool)})
    with pytest.raises(UserError, match=str(path)):
        read_reconstruction(path)


def test_a_row_shares_one_scale_with_its_unit(tmp_path: Path) -> None:
    weak = read_reconstruction(save(tmp_path / "a.npz", object=np.sqrt(the_object())))
    right = read_reconstruction(save(tmp_path / "b.npz"))
    assert weak is not None and right is not None
    pictured = PicturedObject("", "truth", [Column("weak", weak), Column("right", right, True)])
    figure = reconstructions_figure([pictured])
    (block,) = figure.subfigs
    scales: dict[int, set[tuple[float, float]]] = {}
    for axes in block.axes:
        for image in axes.images:
            place = axes.get_subplotspec()
            assert place is not None
            scales.setdefault(place.rowspan.start, set()).add(image.get_clim())
    assert [len(limits) for limits in scales.values()] == [1, 1, 1]
    labels = {axes.get_ylabel() for axes in block.axes}
    assert {"phase [rad]", "Δ phase [rad]", "amplitude", "y [px]"} <= labels
    assert [axes.get_title() for axes in block.axes[:3]] == ["truth", "weak", "right"]


@pytest.mark.parametrize("lines", [2, 4, 6])  # quality, configuration, what it was picked for
def test_titles_stay_on_the_page(lines: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    square = (1 + 0.3j * rng.random((1, HEIGHT, HEIGHT))).astype(np.complex64)
    arrays = {"object": square, "mask": np.ones(square.shape, bool), "reference": square}
    read = read_reconstruction(save(tmp_path / "r.npz", **arrays))
    assert read is not None
    words = "\n".join(["modes 12 width 8"] * lines)
    columns = [*[Column(words, read)] * 3, Column(words, read, emphasised=True)]
    figure = reconstructions_figure([PicturedObject("", "truth", columns)])
    titles = [axes.title for block in figure.subfigs for axes in block.axes if axes.get_title()]
    # Letters are a pixel smaller than their box.
    assert max(title.get_window_extent().y1 for title in titles) <= figure.bbox.y1 + 1


def test_the_same_pictures_give_the_same_file(tmp_path: Path) -> None:
    read = read_reconstruction(save(tmp_path / "r.npz"))
    assert read is not None
    for name in ("1.png", "2.png"):
        figure = reconstructions_figure([PicturedObject("", "truth", [Column("a", read)])])
        save_png(figure, tmp_path / name)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_a_thumbnail_is_a_small_png_whose_unseen_part_is_transparent() -> None:
    picture = np.linspace(-1, 1, 300 * 200).reshape(300, 200)
    picture[:90] = np.nan
    uri = thumbnail(picture, (-1, 1), 100)
    assert uri.startswith("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        assert image.size == (66, 100)
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert (alpha[:30] == 0).all() and (alpha[30:] == 255).all()
