"""report.html as text: what it says, what it never says, and that no text of a record is markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.export import export
from agent.report.page import bounds, render_page
from agent.report.write import EFFECTS, LADDER, PAGE, PAPER, PLOT, RECONSTRUCTIONS, galleries
from agent.study.sweepfile import parse_sweep
from fno_runner.data.npz import write_npz
from fno_runner.result import Metrics
from tests.studies import HOSTILE, found, grid, result, save, with_losses


class Elements(HTMLParser):
    """The page as a browser parses it: elements, texts, scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.texts.append(data)
        elif self._inside[-1] == "script":
            self.scripts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


def page_of(study: Path) -> str:
    result = found(study)
    return render_page(result, galleries(result), "2026-01-02T03:04:05+00:00")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(save(tmp_path_factory.mktemp("study"), with_losses(grid(seeds=(0, 1, 2)))))


def test_the_answer_stands_at_the_head(page: str) -> None:
    text = Elements(page).text
    head = text[: text.index("Cost against quality")]
    assert "162 runs: 158 finished, 2 failed, 1 diverged, 1 collapsed" in head
    assert "a network twice as large must gain 0.01 in phase SSIM" in head
    assert all(pick in head for pick in ("frugal", "sweet spot", "best", "how sure", "prices"))
    assert "runner-up" in head and "for more" in head
    assert "chosen by the same test object that is reported" in head


def test_nothing_is_fetched(page: str) -> None:
    parsed = Elements(page)
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:image/png;base64,", "#")) or not value, (tag, value)
    (policy,) = (a["content"] for _, a in parsed.elements if "http-equiv" in a)
    assert policy is not None and policy.startswith("default-src 'none';")


def test_only_the_two_scripts_of_ours_may_run(page: str) -> None:
    """A Content-Security-Policy allows a script by the hash of its text (CSP level 2)."""
    parsed = Elements(page)
    _, *scripts = parsed.scripts
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    (policy,) = (a["content"] for _, a in parsed.elements if "http-equiv" in a)
    assert re.findall(r"'sha256-([^']*)'", str(policy)) == hashes
    assert "unsafe-inline" not in str(policy).partition("style-src")[0]


def test_a_hostile_message_is_text(page: str) -> None:
    parsed = Elements(page)
    assert HOSTILE in parsed.text
    assert len(parsed.scripts) == 3
    assert not any("onerror" in attributes for _, attributes in parsed.elements)
    assert "<script>alert" not in page and "<img src=x" not in page


def test_hostile_names_of_device_and_group_are_text(tmp_path: Path) -> None:
    runs = [
        result(width=width, epochs=epochs, provenance={"device_name": HOSTILE, "host": HOSTILE})
        for width, epochs in ((32, 1), (48, 1), (32, 2))
    ]
    page = page_of(save(tmp_path / "x", runs))
    parsed = Elements(page)
    assert len(parsed.scripts) == 3 and "<script>alert" not in page and "<img src=x" not in page
    devices = [column for column in parsed.data["columns"] if HOSTILE in column]
    assert devices, "a time axis names its device"
    assert HOSTILE in parsed.text


def test_the_plots_have_every_configuration_and_its_interval(page: str) -> None:
    data = Elements(page).data
    rows = data["rows"]
    assert len(rows["label"]) == 54 == len(set(rows["label"]))
    (series,) = data["series"]
    chosen = series["recommended"]
    assert rows["ssim_phase_low"][chosen] < rows["ssim_phase"][chosen]
    assert rows["ssim_phase"][chosen] < rows["ssim_phase_high"][chosen]
    fronts = {(plot["x"], plot["y"]): plot for plot in series["fronts"]}
    front = fronts["model_params", "ssim_phase"]["rows"]
    costs, qualities = ([rows[k][i] for i in front] for k in ("model_params", "ssim_phase"))
    assert costs == sorted(costs) and qualities == sorted(qualities)
    assert series["floors"]["ssim_phase"] == {"flat phase": 0.021, "50 projections": 0.409}
    # Drawn apart, at its own place, and in no mean.
    assert fronts["model_params", "ssim_phase"]["collapsed"]["y"] == [0.02]
    assert str(chosen) in data["thumbnails"] and len(data["thumbnails"]) <= 24
    assert any("recommended" in curve["label"] for curve in data["losses"])


def test_the_same_records_give_the_same_files_but_for_the_pages_time_stamp(tmp_path: Path) -> None:
    study = save(tmp_path / "study", with_losses(grid(seeds=(0,))))
    first, second = (export(study, tmp_path / name).pictures for name in "ab")
    assert [path.name for path in first] == [PLOT, PAPER, LADDER, EFFECTS, RECONSTRUCTIONS, PAGE]
    for file, other in zip(first[:-1], second, strict=False):
        assert file.read_bytes() == other.read_bytes()
    stamp = re.compile(r'<time datetime="[^"]*">[^<]*</time>')
    pages = [path[-1].read_text() for path in (first, second)]
    assert len(stamp.findall(pages[0])) == 1
    assert stamp.sub("", pages[0]) == stamp.sub("", pages[1])


def test_main_effects_are_in_the_page_with_their_intervals(page: str) -> None:
    (effects,) = Elements(page).data["effects"]
    assert effects["quality"] == "phase SSIM"
    factors = {factor["name"]: factor for factor in effects["factors"]}
    assert set(factors) == {"architecture", "input_transform", "modes", "width"}
    width = factors["width"]
    assert width["levels"] == ["32", "48", "64"] and width["ordered"]
    assert not factors["architecture"]["ordered"]
    assert width["mean"] == sorted(width["mean"]), "wider is better in this study"
    for low, mean, high in zip(width["low"], width["mean"], width["high"], strict=True):
        assert low < mean < high


def test_a_study_without_a_finished_run_has_a_page_with_the_reasons(tmp_path: Path) -> None:
    runs = [run for run in with_losses(grid(seeds=(0,))) if run.status in ("failed", "diverged")]
    text = Elements(page_of(save(tmp_path / "x", runs))).text
    assert "No recommendation" in text and "CUDA out of memory" in text
    assert "loss is nan in epoch 3" in text


@pytest.mark.parametrize("against", ["reference", None])
def test_what_nobody_knows_is_not_called_truth(against: str | None, tmp_path: Path) -> None:
    scan = Metrics(scan={"r_factor": {"train": 0.08, "held_out": 0.09}})
    runs = []
    for width in (32, 48):
        run = result(width=width, metrics_against=against, floors={})
        run.metrics = scan if against is None else Metrics(run.metrics.pairs, scan.scan)
        runs.append(run)
    study = save(tmp_path / "x", runs, pictures=against is not None)
    page = Elements(page_of(study))
    text = page.text
    assert page.data["series"][0]["suffix"] == "", "R is against what was measured"
    assert "the truth" not in text.replace("agreement with it, not truth", "")
    assert ("reference" in text) == (against is not None)
    if against is None:
        assert "nobody knows the object" in text


def test_a_damaged_reconstruction_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    study = save(tmp_path / "x", [result(width=32), result(width=48)])
    broken, _ = sorted(study.glob("runs/*/recon.npz"))
    broken.write_bytes(b"not an NPZ")
    page = Elements(page_of(study))
    assert f"{broken}: not an NPZ file" in page.text
    assert len(page.data["thumbnails"]) == 1


def test_a_picture_of_one_of_several_seeds_is_not_captioned_as_their_mean(tmp_path: Path) -> None:
    study = save(tmp_path / "x", [result(width=32), *(result(width=48, seed=s) for s in (3, 4))])
    captions = re.findall(r"width (\d+), phase SSIM [\d.]+(, seed [34])?", page_of(study))
    assert {(width, bool(seed)) for width, seed in captions} == {("32", False), ("48", True)}


def test_a_picture_of_an_earlier_export_goes_where_there_is_nothing_left(tmp_path: Path) -> None:
    study = save(tmp_path / "x", [result()])
    assert RECONSTRUCTIONS in [path.name for path in export(study).pictures]
    next(study.glob("runs/*/recon.npz")).unlink()
    export(study)
    assert not (study / RECONSTRUCTIONS).exists()


def test_an_object_as_large_as_a_real_scan_makes_a_small_page(tmp_path: Path) -> None:
    run = result()
    study = save(tmp_path / "x", [run], pictures=False)
    large = np.ones((1, 1500, 1200), np.complex64)
    large[0, ::7] = 1j
    write_npz(
        study / "runs" / run.run_id / "recon.npz",
        {"object": large, "mask": np.ones(large.shape, bool), "reference": large},
    )
    assert len(page_of(study)) < 5_100_000


def test_the_grid_is_told_with_its_bounds() -> None:
    sweep = parse_sweep(
        {
            "method": "grid",
            "parameters": {"modes": {"values": [12, 16]}, "seed": {"values": [0, 1]},
                           "epochs": {"value": 3}},
        },
        "test",
    )  # fmt: skip
    assert bounds(sweep) == "grid of modes 12, 16 · seed 0, 1; fixed: epochs 3"


def test_the_curves_of_the_pictured_runs_are_drawn_where_they_end(page: str) -> None:
    drawn = Elements(page).data["correlations"]
    assert (drawn["kind"], drawn["threshold"]) == ("truth", 0.5)
    assert 2 <= len(drawn["curves"]) <= 7
    for curve in drawn["curves"]:
        assert len(curve["frequency"]) == len(curve["correlation"]) == len(curve["half_bit"])
        after = [c for f, c in zip(curve["frequency"], curve["correlation"], strict=True)
                 if f > curve["resolved"]]  # fmt: skip
        assert after and max(after) < 0.5 < max(curve["correlation"])
        assert curve["correlation"][0] > 0.5


def test_records_without_curves_make_a_page_without_them(tmp_path: Path) -> None:
    """As those of version 0.1."""
    study = save(tmp_path, [result(seed=seed, curves={}) for seed in (0, 1)])
    parsed = Elements(page_of(study))
    assert parsed.data["correlations"] is None
    assert "detail-reached" not in {attributes.get("id") for _, attributes in parsed.elements}


def test_the_intervals_of_one_object_are_said_to_be_for_this_object_only(
    page: str, tmp_path: Path
) -> None:
    assert "for this test object only" in Elements(page).text
    several = [result(seed=seed, nimgs_test=2) for seed in (0, 1)]
    for record in several:
        record.objects = [dict(record.metrics.pairs)] * 2
    assert "for these test objects" in Elements(page_of(save(tmp_path, several))).text


def test_three_picks_with_what_one_gains_and_pays_and_the_ladder(tmp_path: Path) -> None:
    """Worked by hand: a doubling brings 0.05, then 0.02, then 0.004; prices 0.04, 0.01 and 0."""
    runs = []
    for width, size, ssim in (
        (8, 1000, 0.80),
        (12, 2000, 0.85),
        (16, 4000, 0.87),
        (24, 8000, 0.874),
    ):
        run = result(width=width, model_params=size)
        run.metrics.pairs["ssim"] = (0.9, ssim)
        runs.append(run)
    parsed = Elements(page_of(save(tmp_path / "x", runs, pictures=False)))
    told = " ".join(parsed.text.split())
    frugal, sweet, best = (
        told.index(f"{name} fno sqrt modes 12 width {width}")
        for name, width in (("frugal", 12), ("sweet spot", 16), ("best", 24))
    )
    assert frugal < sweet < best < told.index("Cost against quality")
    assert "0.8700 4,000 0.0200 better in phase SSIM for 2 × the parameters" in told
    assert "0.8740 8,000 0.0040 better in phase SSIM for 2 × the parameters" in told
    choice = parsed.data["series"][0]["choice"]
    names = parsed.data["rows"]["label"]
    rungs = [(names[r["row"]][-2:].strip(), r["low"], r["high"]) for r in choice["rungs"]]
    assert [width for width, *_ in rungs] == ["24", "16", "12", "8"]
    assert [low for _, low, _ in rungs] == pytest.approx([0, 0.004, 0.02, 0.05])
    assert rungs[-1][2] is None, "above, it is the choice at every price"
    assert choice["picks"] == pytest.approx([0.04, 0.01, 0])
    assert choice["paid"] == [1000, 2000, 4000, 8000], "the cheapest first"
