"""The race of networks and the fit: what sides get, how they are judged, and who is best."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from benchmarks.contest import measured, simulated, training_frames
from benchmarks.race import main, race
from benchmarks.race_map import Cell, verdict
from benchmarks.race_picture import against, networks_table, who
from benchmarks.race_report import Point, curves, draw_curves, table
from benchmarks.sides import answer, learn
from fno_runner.data.frames import beam_diameter, step
from fno_runner.scan.inspection import poisson_floor
from fno_runner.scan.iterative import reconstruct
from tests.scans import simulate_scan, write_raw

CPU = torch.device("cpu")


def test_a_simulated_contest_is_what_was_asked_for() -> None:
    contest = simulated(0.6, 1e6, 36, 0)
    assert len(contest.kept) == 36 and contest.kept.probe is not None
    counts = np.square(contest.kept.amplitude).sum((1, 2)).mean()
    assert counts == pytest.approx(1e6, rel=0.01)
    assert 1 - step(contest.kept.positions) / beam_diameter(contest.kept.probe) == pytest.approx(
        0.6, abs=0.12
    )
    # The truth leaves the noise, in frames kept and in those that judge.
    assert contest.truth is not None
    fit = reconstruct(contest.kept, iterations=1, fit_probe=False)
    told = contest.scores(replace(fit, obj=contest.truth, probe=contest.kept.probe))
    floor = poisson_floor(contest.kept)
    assert told["r"] == pytest.approx(floor, rel=0.1) == told["r_kept"]
    assert told["ssim"] == pytest.approx(1) and told["pearson"] == pytest.approx(1)


@pytest.mark.parametrize("coarse", [False, True])
def test_no_frame_is_kept_and_judges(tmp_path: Path, coarse: bool) -> None:
    path = write_raw(tmp_path / "s.npz", simulate_scan(frames=40))
    contest = measured(path, share=0.5, coarse=coarse, draw=1)
    assert (len(contest.kept), len(contest.judged)) == (20, 20)
    both = np.concatenate([contest.kept.positions, contest.judged.positions])
    assert len(np.unique(both, axis=0)) == 40
    again = measured(path, share=0.5, coarse=coarse, draw=1)
    np.testing.assert_array_equal(again.kept.positions, contest.kept.positions)
    thinned = measured(path, photons=1e5, draw=1).kept
    assert np.square(thinned.amplitude).sum((1, 2)).mean() == pytest.approx(1e5, rel=0.05)
    assert thinned.reference is not None and (thinned.reference == 1).all()  # it tells nothing


def test_a_network_learns_on_simulated_frames_and_answers(tmp_path: Path) -> None:
    contest = simulated(0.75, 1e6, 16, 0)
    frames = training_frames(contest.kept, 1e6, 2, 32, 0, weak=True)
    assert len(frames) == 32
    learnt = learn(frames, CPU, epochs=1, seed=1)
    fit = answer(learnt, contest.kept, CPU)
    assert fit.obj.shape == contest.kept.shape and 0 < (contest.scores(fit)["r"] or 0) < 1
    alone = simulated(0.75, 1e6, 1, 0)  # a frame without others is no scan of equal frames
    assert -1 <= (alone.scores(answer(learnt, alone.kept, CPU))["pearson"] or 0) <= 1


def test_sides_take_turns_and_the_table_says_how_soon() -> None:
    contest = simulated(0.75, 1e6, 16, 0)
    order = []

    def work(passes: int) -> object:
        order.append(passes)
        return reconstruct(contest.kept, iterations=passes, fit_probe=False)

    sides = {"a": [("1", partial(work, 1))], "b": [("3", partial(work, 3))]}
    points = race(sides, contest, 3)  # type: ignore[arg-type]
    assert order == [1, 3] * 4  # each warmed up once
    assert [len(p.seconds) for p in points] == [3, 3]
    made = [
        Point(0, "a", "1", (1.0, 3.0, 2.0), {"r": 0.109}),
        Point(0, "a", "2", (4.0,), {"r": 0.1}),
        Point(0, "b", "1", (0.5,), {"r": 0.2}),
    ]
    lines = table(made, {"b": 60.0}).splitlines()
    assert "| a | 0.1000 | 4.00 | 2.00 | 4.00 | 4.00 | 0 |" in lines
    assert "| b | 0.2000 | 0.50 | – | – | – | 60 |" in lines


def test_draws_give_intervals_and_each_has_its_own_best() -> None:
    made = [
        Point(draw, side, "1", (seconds,), {"r": r})
        for draw, side, seconds, r in (
            (0, "a", 1.0, 0.10), (0, "b", 0.5, 0.108),
            (1, "a", 3.0, 0.20), (1, "b", 0.7, 0.23),
            (2, "a", 2.0, 0.15), (2, "b", 0.6, 0.15),
        )
    ]  # fmt: skip
    lines = table(made, {}).splitlines()
    # Student's t of three draws: 4.303 · 0.05 / √3.
    assert lines[0] == "The best R that any side reaches: 0.1500 ± 0.1242."
    assert "| 2.00 (1.00 … 3.00) | 2.00 (1.00 … 3.00) |" in lines[4]
    # Within 10 % of each draw's own best, b is in two of three.
    assert lines[5].split(" | ")[3] == "not in 1 of 3"
    assert "| a | 1: 0.1500 ± 0.1242 (2.00) |" in curves(made)


def test_sides_are_compared_draw_by_draw() -> None:
    """Draws differ more than the sides do: their ratio is told all the same."""
    draws = [[{"side": "a", "r": 0.9 * r}, {"side": "b", "r": r}] for r in (0.1, 0.2, 0.4)]
    told = against(draws, lambda p: p["side"] == "a", lambda p: p["side"] == "b")
    assert told == "-10.0 % (-10.0 … -10.0)"
    assert against(draws, lambda p: p["side"] == "c", lambda p: p["side"] == "b") == "–"


def test_seeds_of_a_network_are_one_answer_only_where_all_are_there(tmp_path: Path) -> None:
    cell = Cell("x", lambda draw: simulated(0.75, 1e6, 16, draw), 3, "x", few=True)
    for kind in ("cells", "own", "others"):
        (tmp_path / kind).mkdir()
    for draw, level in enumerate((1.0, 2.0)):
        own = {"side": "network of this scan", "effort": 0, "r": 0.1 * level, "r_kept": 0.05}
        fit = {"side": "fit, chosen", "effort": 5, "r": 0.1 * level}
        (tmp_path / "cells" / f"x.{draw}.json").write_text(json.dumps([fit]))
        (tmp_path / "own" / f"x.{draw}.json").write_text(json.dumps([own, own | {"effort": 5}]))
        for seed, factor in ((1, 0.9), (2, 0.8))[: 2 - draw]:
            side = f"network of this scan, seed {seed}"
            told = {"side": side, "r": 0.1 * level * factor, "r_kept": 0.03 + 0.01 * seed}
            made = [own | told]
            place = tmp_path / "others" / f"x.{draw}.seed {seed}.json"
            place.write_text(json.dumps(made))
    lines = networks_table(tmp_path, [cell]).splitlines()
    assert "| x | seed 0 | 2 | 0.1500 ± 0.6353 | +0.0 % (+0.0 … +0.0) |" in lines
    assert "| x | seed 1 | 2 | 0.1350 ± 0.5718 | -10.0 % (-10.0 … -10.0) |" in lines
    assert "| x | seed 2 | 1 | 0.0800 | -20.0 % |" in lines
    assert "| x | mean of 3 seeds | 1 | 0.0900 | -10.0 % |" in lines
    # Chosen by the frames kept, 0.04 of seed 1, and not by those that judge, 0.08 of seed 2.
    assert lines[-1].endswith("best | 1 | 0.0900 | -10.0 % |")
    assert len(lines) == 7


def test_who_is_best_needs_an_interval_without_a_tie(tmp_path: Path) -> None:
    """Of each side's efforts the last to end in time counts, what was chosen among them."""
    cell = Cell("x", lambda draw: simulated(0.75, 1e6, 16, draw), 3, "x")
    (tmp_path / "cells").mkdir()
    (tmp_path / "timings").mkdir()
    (tmp_path / "timings" / "x.json").write_text(
        json.dumps({"fit 1": 0.05, "fit, chosen": 0.5, "fit, plain 9": 0.9, "network 0": 0.3})
    )
    for draw, noise in enumerate((0.98, 1.0, 1.02)):
        points = [
            {"side": side, "effort": e, "r": r, "seconds": 9.0}
            for side, e, r in (("fit", 1, 0.2), ("fit, chosen", 5, 0.1), ("fit, plain", 9, 0.01))
        ]
        points.append({"side": "network", "effort": 0, "r": 0.12 * noise, "seconds": 9.0})
        points.append({"side": "network of this scan", "effort": 0, "r": 0.01, "seconds": 9.0})
        (tmp_path / "cells" / f"x.{draw}.json").write_text(json.dumps(points))
    assert who(verdict(tmp_path, cell, 0.01)) == "–"
    assert who(verdict(tmp_path, cell, 0.1)) == "fit alone"
    assert who(verdict(tmp_path, cell, 0.4)) == "network by 67 %"
    assert who(verdict(tmp_path, cell, 1.0)) == "fit by 20 %"
    assert who(verdict(tmp_path, cell, math.inf)) == "fit by 20 %"
    for draw in (0, 1, 2):
        place = tmp_path / "cells" / f"x.{draw}.json"
        place.write_text(place.read_text().replace("0.1,", f"{0.09 + 0.03 * draw},"))
    assert who(verdict(tmp_path, cell, 1.0)) == "open"


def test_without_a_probe_only_a_blind_fit_races(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = simulate_scan(frames=20)
    path = write_raw(tmp_path / "s.npz", made, probeGuess=None, objectGuess=None)
    assert main([str(path), "--output", str(tmp_path / "out"), "--turns", "1"]) == 0
    told = capsys.readouterr()
    assert "has no probe" in told.err and "| fit, blind |" in told.out
    names = {"race.json", "race.csv", "race.md", "race.png"}
    assert {place.name for place in (tmp_path / "out").iterdir()} == names
    assert main([str(path), "--everything", "--draws", "2"]) == 2
    assert "--draws 2" in capsys.readouterr().err


def test_twelve_sides_are_told_apart_and_one_off_the_scale_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    points = [
        Point(draw, f"side {k}", effort, (1.0 + k,), {"r": 0.5 if k == 11 else 0.1 + 0.001 * k})
        for k in range(12) for effort in ("1", "2") for draw in (0, 1)
    ]  # fmt: skip
    draw_curves(points, "race", tmp_path / "race.png")
    (axes,) = figures[0].axes
    handles, labels = axes.get_legend_handles_labels()
    assert "side 11 (above)" in labels and "side 10" in labels
    sides = [handle for handle in handles if isinstance(handle, ErrorbarContainer)]
    assert len({to_hex(side.lines[0].get_color()) for side in sides}) == 12
