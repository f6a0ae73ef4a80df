"""The picture says what the table says: points, fronts, floors, names, and nothing overlaps."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from agent.analysis.series import series
from agent.report.figures import DPI, MAX_SERIES, save_pdf, save_png
from agent.report.ladder_plot import ladder_figure
from agent.report.pareto_plot import pareto_figure
from agent.study.records import table
from fno_runner.config import RunConfig
from fno_runner.result import RunResult

FLOORS = {
    "flat_phase": {"ssim": (0.1, 0.021), "psnr": (10.0, 14.1)},
    "projection_1": {"ssim": (0.4, 0.041), "psnr": (12.0, 15.8)},
    "projection_50": {"ssim": (0.8, 0.409), "psnr": (14.0, 19.3)},
}


def run(number: int, **changes: Any) -> RunResult:
    config = {key: changes.pop(key) for key in tuple(changes) if key in RunConfig.model_fields}
    quality = 0.3 + 0.02 * math.log(number) + 0.01 * (number % 5)
    values: dict[str, Any] = {
        "run_id": f"{number:012x}",
        "status": "finished",
        "config": RunConfig(**({"width": 31 + number} | config)).model_dump(),
        "metrics": {"ssim": (0.5, quality), "psnr": (20.0, 20 + 5 * quality)},
        "metrics_against": "truth",
        "floors": FLOORS,
        "model_params": 20_000 * number**2,
        "inference_time_s": 0.05 * number,
    }
    return RunResult(**(values | changes))


def the_study() -> list[RunResult]:
    """The grid of 54 points, two of them collapsed."""
    grid = itertools.product(
        ["fno", "hybrid"], ["none", "log1p", "sqrt"], [12, 16, 24], [32, 48, 64]
    )
    runs = [
        run(n, architecture=a, input_transform=t, modes=m, width=w)
        for n, (a, t, m, w) in enumerate(grid, start=1)
    ]
    for n in (4, 40):
        runs[n].status, runs[n].metrics.pairs = (
            "collapsed",
            {"ssim": (0.1, 0.02), "psnr": (9.0, 14.0)},
        )
    return runs


def draw(runs: list[RunResult]) -> Figure:
    return pareto_figure(series(table(runs)), "title")


def points(axes: Axes) -> list[tuple[float, float]]:
    """What is drawn as filled markers: runs, without the ring and the crosses."""
    return [
        (float(x), float(y))
        for collection in axes.collections
        if len(collection.get_facecolor()) and np.ravel(collection.get_linewidth())[0] == 0.5
        for x, y in np.asarray(collection.get_offsets())
    ]


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_the_study_is_drawn_point_by_point_with_units_and_floors() -> None:
    figure = draw(the_study())
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes] == [
        ("trainable parameters", "phase SSIM"),
        ("trainable parameters", "phase PSNR [dB]"),
        ("inference time of a test object [s]\non auto", "phase SSIM"),
    ]
    for axes in figure.axes:
        assert axes.get_xscale() == "log"
        assert len(points(axes)) == 52
        low, high = axes.get_ylim()
        assert all(low < y < high for _, y in points(axes))
    first, second, _ = figure.axes
    assert {"50 projections", "↓ 1 projection 0.041", "↓ flat phase 0.021"} <= set(words(first))
    assert {"↓ 50 projections 19.3", "↓ 1 projection 15.8", "↓ flat phase 14.1"} <= set(
        words(second)
    )
    assert legend(figure)[:5] == ["input none", "input log1p", "input sqrt", "fno", "hybrid"]


@pytest.mark.parametrize("fronts", [3, 4])
def test_no_text_touches_another_or_leaves_the_page(fronts: int) -> None:
    """Four fronts stand in two columns, where there is less room for what is below them."""
    runs = the_study()
    if fronts == 4:
        for number, of_one in enumerate(runs, start=1):
            of_one.timing["flops_per_pattern"] = 10**8 * number
    figure = draw(runs)
    assert len(figure.axes) == fronts
    page = figure.bbox
    key = figure.legends[0].get_window_extent()
    assert page.x0 <= key.x0 and key.x1 <= page.x1
    assert_legible(figure)


def assert_legible(figure: Figure) -> None:
    """No text of the figure touches another or leaves the page."""
    figure.draw_without_rendering()
    page, boxes = figure.bbox, []
    for axes in figure.axes:
        (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
        # Ticks beyond the limits exist, but are not drawn.
        ticks = [t for t in axes.get_xticklabels() if x0 <= t.get_position()[0] <= x1]
        ticks += [t for t in axes.get_yticklabels() if y0 <= t.get_position()[1] <= y1]
        own = [child for child in axes.get_children() if isinstance(child, Text)]
        texts = [*own, axes.xaxis.label, axes.yaxis.label, *ticks]
        # Of an annotation the words alone, without the line that leads to the point.
        boxes += [
            (t.get_text(), Text.get_window_extent(t))
            for t in texts if t.get_visible() and t.get_text()
        ]  # fmt: skip
    for (name, a), (other, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), (name, other)
    for text, box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1, text
        # Letters are a pixel smaller than their box.
        assert page.y0 <= box.y0 and box.y1 <= page.y1 + 1, text


def test_the_front_is_a_step_to_the_edge() -> None:
    figure = draw([run(1), run(2, metrics={"ssim": (0.5, 0.1), "psnr": (1.0, 9.0)}), run(3)])
    line = figure.axes[0].lines[0]
    assert line.get_drawstyle() == "steps-post"
    cost, quality = (np.asarray(line.get_data()[i], dtype=float) for i in (0, 1))
    assert cost[:-1].tolist() == [20_000, 180_000]
    assert cost[-1] == figure.axes[0].get_xlim()[1] and quality[-1] == quality[-2]


def bars(axes: Axes) -> dict[float, tuple[float, float]]:
    """Upright bars by their place along the x axis: the ends."""
    segments = [
        segment for c in axes.collections if isinstance(c, LineCollection)
        for segment in np.asarray(c.get_segments())
    ]  # fmt: skip
    return {
        float(s[0, 0]): (float(s[0, 1]), float(s[1, 1])) for s in segments if s[0, 0] == s[1, 0]
    }


def test_a_bar_is_the_interval_of_the_mean_and_one_seed_borrows_it() -> None:
    seeds = [
        run(n, width=32, seed=n, model_params=5000, metrics={"ssim": (0.5, q), "psnr": (20.0, 25)})
        for n, q in ((1, 0.50), (2, 0.54), (3, 0.52))
    ]
    all_series = series(table([*seeds, run(9)]))
    panel = pareto_figure(all_series).axes[0]
    (config,) = np.flatnonzero(all_series[0].configs["n_seeds"] == 3)
    low, high = (
        float(all_series[0].configs[f"ssim_phase_{end}"][config]) for end in ("low", "high")
    )
    drawn = bars(panel)
    assert drawn[5000] == pytest.approx((low, high))
    assert len(drawn) == 2, "the scatter of the three seeds is the other one's as well"
    assert low < 0.52 < high
    bottom, top = panel.get_ylim()
    assert bottom < low and high < top
    assert "95 % interval of the mean" in legend(draw(seeds))
    assert "95 % interval of the mean" not in legend(draw([run(1), run(2)]))


def test_times_of_two_devices_are_in_two_panels() -> None:
    runs = [
        run(n, provenance={"device_name": name})
        for n, name in ((1, "GPU"), (2, "GPU"), (3, "CPU"))
    ]  # fmt: skip
    runs[0].status, runs[0].metrics.pairs = "collapsed", {"ssim": (0.1, 0.02), "psnr": (9.0, 14.0)}
    figure = draw(runs)
    timed = [axes for axes in figure.axes if "time" in axes.get_xlabel()]
    assert [axes.get_xlabel().split("\n")[1] for axes in timed] == ["on CPU", "on GPU"]
    assert [len(points(axes)) for axes in timed] == [1, 1]
    crosses = [
        [len(np.asarray(c.get_offsets())) for c in axes.collections if len(c.get_paths()) == 1
         and np.ravel(c.get_linewidth())[0] == 1.0]
        for axes in timed
    ]  # fmt: skip
    assert [sum(drawn) for drawn in crosses] == [0, 1], "a collapsed run stays with its device"


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_floors_that_differ_are_not_drawn() -> None:
    other = {"flat_phase": {"ssim": (0.1, 0.3)}}
    figure = draw([run(1), run(2, floors=other)])
    assert words(figure.axes[0]) == ["fno sqrt modes 12 width 33"]


def test_a_scan_shows_r_and_its_front_falls() -> None:
    runs = [
        run(
            n,
            metrics={"r_factor": {"train": 0.08, "held_out": 0.1 - 0.001 * n}},
            metrics_against=None,
            floors={},
        )
        for n in (1, 2, 3)
    ]
    figure = draw(runs)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "R on held-out frames",
        "R on training frames",
        "R on held-out frames",
    ]
    falling = np.asarray(figure.axes[0].lines[0].get_data()[1], dtype=float)
    assert (np.diff(falling)[:-1] < 0).all()


@pytest.mark.parametrize("ratio", [6, 25, 40, 100, 160, 200, 600, 10**5])
def test_no_label_of_an_axis_touches_the_next(ratio: float) -> None:
    costs = [ratio ** (n / 9) for n in range(10)]
    runs = [
        run(
            n,
            model_params=int(480_000 * cost),
            inference_time_s=0.011 * cost,
            timing={"flops_per_pattern": int(3e7 * cost)},
        )
        for n, cost in enumerate(costs, start=1)
    ]
    figure = draw(runs)
    figure.draw_without_rendering()
    for axes in figure.axes:
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            shown = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            boxes = [tick.label1.get_window_extent() for tick in shown if tick.label1.get_text()]
            assert len(boxes) >= 2
            gaps = [max(b.x0 - a.x1, b.y0 - a.y1) for a, b in itertools.pairwise(boxes)]
            assert min(gaps) * 72 / figure.dpi > 2.5, axis.axis_name  # points


def test_a_reference_is_not_called_truth() -> None:
    assert draw([run(1, metrics_against="reference")]).axes[0].get_ylabel() == (
        "phase SSIM against the reference"
    )


@pytest.mark.parametrize(
    "runs",
    [
        [run(1)],
        [run(1), run(1).model_copy(update={"run_id": "0" * 12})],
        [run(1, inference_time_s=None)],
        [run(1, metrics={"ssim": (0.5, 0.5)}), run(2, status="collapsed", metrics={})],
    ],
    ids=["one run", "equal runs", "no time", "no PSNR, a collapsed run without metrics"],
)
def test_little_to_draw_is_drawn(runs: list[RunResult], tmp_path: Path) -> None:
    save_png(draw(runs), tmp_path / "plot.png")


@pytest.mark.parametrize("unknown", [None, "of another program"])
def test_a_run_of_no_known_configuration_is_not_drawn(unknown: str | None) -> None:
    """A server's run that is not believed: its row has no numbers, and its words are anybody's."""
    runs = table([run(1), run(2), run(3, status="failed")])
    runs.loc[2, ["architecture", "input_transform"]] = unknown
    for make in (pareto_figure, ladder_figure):
        figure = make(series(runs))
        figure.draw_without_rendering()
        assert str(unknown) not in {text.get_text() for text in figure.findobj(Text)}


def test_series_stand_below_each_other_up_to_a_limit() -> None:
    two = draw([run(1), run(2, conditioning="amplitude")])
    assert [axes.get_title("left") for axes in two.axes[::3]] == [
        "conditioning amplitude",
        "conditioning projection",
    ]
    many = draw([run(n, epochs=n) for n in range(1, MAX_SERIES + 3)])
    assert len(many.axes) == 3 * MAX_SERIES
    assert many.get_suptitle() == f"title; the first {MAX_SERIES} of {MAX_SERIES + 2} series"


def test_the_file_has_a_fixed_size_no_time_stamp_and_no_trace_of_the_users_style(
    tmp_path: Path,
) -> None:
    runs = [run(n) for n in (1, 2, 3)]
    save_png(draw(runs), tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "savefig.facecolor": "r"}):
        save_png(draw(runs), tmp_path / "b.png")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (12 * DPI, round(4.3 * DPI))
        assert set(image.info) <= {"dpi"}


def test_the_same_figure_gives_the_same_pdf_with_letters_and_no_time_stamp(tmp_path: Path) -> None:
    runs = [run(n) for n in (1, 2, 3)]
    for name in ("a.pdf", "b.pdf"):
        save_pdf(draw(runs), tmp_path / name)
    written = (tmp_path / "a.pdf").read_bytes()
    assert written == (tmp_path / "b.pdf").read_bytes()
    assert written.startswith(b"%PDF") and b"CreationDate" not in written
    assert b"/Type3" not in written, "letters as drawings cannot be searched"
