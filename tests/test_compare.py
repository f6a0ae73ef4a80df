"""Two studies compared: numbers worked by hand, what is told, what is refused."""

from __future__ import annotations

import base64
import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from agent.analysis.comparison import compare, overall_change
from agent.compare import CSV, PAGE, main
from agent.report.compare_page import MOST_SHOWN, print_comparison, render_comparison, said
from agent.study.quality import PHASE_SSIM
from agent.study.records import table
from fno_runner.config import RunConfig
from fno_runner.identity import run_id
from fno_runner.result import ErrorInfo, RunResult
from fno_runner.score.quantities import QUANTITIES
from tests.studies import HOSTILE, result, save
from tests.test_export import rows

WIDTHS = (32, 64)


def run(quality: float, seconds: float = 1.0, **changes: Any) -> RunResult:
    made = result(**changes)
    made.metrics.pairs["ssim"] = (0.9, quality)
    made.inference_time_s = seconds
    return made


def study(qualities: dict[int, list[float]], seconds: float, **fixed: Any) -> list[RunResult]:
    """Seeds 0, 1, … of each width."""
    return [
        run(quality, seconds, width=width, seed=seed, **fixed)
        for width, values in qualities.items()
        for seed, quality in enumerate(values)
    ]


BEFORE = {32: [0.80, 0.82, 0.84], 64: [0.90, 0.91, 0.92]}
AFTER = {32: [0.81, 0.84, 0.87], 64: [0.90, 0.91, 0.92]}


def test_by_hand() -> None:
    """Changes 0.01, 0.02, 0.03: mean 0.02, standard error 0.01/√3, t(0.975, 2) = 4.303.

    t = 3.464, p = 0.0742; of two tests Holm doubles it. The other's seeds do not change at all.
    """
    a = table(study(BEFORE, 1.0, precision="float32"))
    b = table(study(AFTER, 0.5, precision="bf16"))
    comparison = compare(a, b, PHASE_SSIM)
    assert comparison.differ == {"precision": (["float32"], ["bf16"])}
    assert comparison.only == (0, 0)
    both = comparison.configurations
    narrow, wide = (next(c for c in both if f"width {w}" in c.name) for w in WIDTHS)
    change = narrow.quality
    assert change.pairs == 3 and change.change == pytest.approx(0.02)
    assert change.high - change.change == pytest.approx(4.303 * 0.01 / math.sqrt(3), abs=1e-5)
    assert change.p == pytest.approx(2 * 0.0742, abs=2e-4)
    assert narrow.verdict == "undecided"
    assert (wide.quality.change, wide.quality.p, wide.verdict) == (0, 1, "undecided")
    assert wide.times["inference_time_s"].change == pytest.approx(0.5)
    assert comparison.overall.change == pytest.approx(0.01) and comparison.overall.pairs == 2


def test_a_sure_change_is_called_better_or_worse() -> None:
    """By the direction of the metric: less R is better."""
    a = table(study({32: [0.80, 0.82, 0.84]}, 1.0, conditioning="amplitude"))
    b = table(study({32: [0.85, 0.871, 0.889]}, 1.0, conditioning="projection"))
    assert compare(a, b, PHASE_SSIM).configurations[0].verdict == "better"
    assert compare(b, a, PHASE_SSIM).configurations[0].verdict == "worse"


@pytest.mark.parametrize("alike", [0.0, 0.3, 0.7])
def test_seeds_that_change_all_configurations_alike_are_no_sure_change(alike: float) -> None:
    """Twelve configurations that do not change, of three seeds: an error of 5 %."""
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(300):
        of_seed, of_each = rng.normal(0, 0.005, (1, 3)), rng.normal(0, 0.005, (12, 3))
        changes = np.sqrt(alike) * of_seed + np.sqrt(1 - alike) * of_each
        overall = overall_change(
            [{(seed,): (0.9, 0.9 + c) for seed, c in enumerate(of_one)} for of_one in changes]
        )
        assert overall.change == pytest.approx(changes.mean())
        called += not overall.low <= 0 <= overall.high
    assert called < 0.09 * 300


def test_only_seeds_of_both_are_paired() -> None:
    a = table([run(0.8, seed=0), run(0.5, seed=1), run(0.9, seed=7)])
    b = table([run(0.81, seed=0, precision="bf16"), run(0.53, seed=1, precision="bf16")])
    (compared,) = compare(a, b, PHASE_SSIM).configurations
    assert compared.quality.pairs == 2 and compared.quality.change == pytest.approx(0.02)
    single = compare(a, b[b["seed"] == 0], PHASE_SSIM).configurations[0]
    assert single.verdict == "one seed" and math.isnan(single.quality.low)


def test_collapses_are_counted_and_enter_no_mean() -> None:
    """Seeds 0 and 1 collapsed in B only: of two discordant seeds McNemar's p is 1/2."""
    a = study({32: [0.8, 0.8, 0.8]}, 1.0)
    b = study({32: [0.01, 0.01, 0.81]}, 1.0, precision="bf16")
    for record in b[:2]:
        record.status = "collapsed"
        record.error = ErrorInfo(type="Collapsed", message="nothing")
    comparison = compare(table(a), table(b), PHASE_SSIM)
    (row,) = comparison.configurations
    assert (row.collapsed, row.runs) == ((0, 2), (3, 3))
    assert row.quality.pairs == 1 and row.quality.change == pytest.approx(0.01)
    assert comparison.collapsed_only == (0, 2) and comparison.collapse_p == pytest.approx(0.5)


def test_what_was_trained_and_lost_counts_once_a_seed_whatever_it_ended_as() -> None:
    """Seed 0 diverged in A and collapsed in B; seed 1 failed in A for a reason of the machine."""
    a = study({32: [0.8, 0.8, 0.8]}, 1.0)
    b = study({32: [0.01, 0.8, 0.8]}, 1.0, precision="bf16")
    a[0].status, a[1].status, b[0].status = "diverged", "failed", "collapsed"
    for record in (*a[:2], b[0]):
        record.error = ErrorInfo(type="E", message="nothing")
    comparison = compare(table([*a, a[0]]), table(b), PHASE_SSIM)
    (row,) = comparison.configurations
    assert (row.collapsed, row.runs) == ((1, 1), (2, 3))
    assert comparison.collapsed_only == (0, 0)


def test_too_few_seeds_are_told_as_what_they_are() -> None:
    a = study({32: [0.8], 64: [0.9]}, 1.0)
    b = study({32: [0.8], 64: [0.0]}, 1.0, precision="bf16")
    b[1].status = "collapsed"
    text = " ".join(said(compare(table(a), table(b), PHASE_SSIM)))
    assert "Of 2 configurations B is better in 0, worse in 0, undecided in 0" in text
    assert "; in 1 only one seed has it in both" in text and "in 1 no seed has it in both" in text


def test_runs_of_one_seed_are_paired_on_the_same_data() -> None:
    """Data 'x' are harder than 'y' by 0.2; nothing differs between the studies."""

    def on_both(**changes: Any) -> list[RunResult]:
        made = []
        for data_seed, (name, quality) in enumerate((("x", 0.6), ("y", 0.8))):
            for record in study({32: [quality, quality + 0.01]}, 1.0, **changes):
                changed = {**record.config, "data_seed": data_seed}
                record = record.model_copy(update={"config": changed})
                record.run_id = run_id(RunConfig.model_validate(changed))
                record.provenance["dataset"] = name
                made.append(record)
        return made

    died = RunResult(run_id="f" * 12, status="failed", config=RunConfig(width=32).model_dump())
    comparison = compare(table([*on_both(), died]), table(on_both(precision="bf16")), PHASE_SSIM)
    (row,) = comparison.configurations
    assert row.quality.pairs == 4 and row.runs == (4, 4)
    assert (row.quality.change, row.quality.low, row.quality.high) == (0, 0, 0)


def test_times_are_of_pairs_on_one_device() -> None:
    """Both devices are as fast in both studies; only seed 2 ran on the same one."""
    devices = {"slow": 10.0, "fast": 0.1}
    studies = []
    for names, changes in (
        (("slow", "fast", "fast"), {}),
        (("fast", "slow", "fast"), {"precision": "bf16"}),
    ):
        records = study({32: [0.8, 0.8, 0.8]}, 1.0, **changes)
        for record, name in zip(records, names, strict=True):
            record.provenance["device_name"] = name
            record.inference_time_s = devices[name]
        studies.append(table(records))
    (row,) = compare(studies[0], studies[1], PHASE_SSIM).configurations
    ratio = row.times["inference_time_s"]
    assert ratio.pairs == 1 and ratio.change == pytest.approx(1.0)
    by_time = compare(studies[0], studies[1], QUANTITIES["inference_time_s"])
    assert (by_time.configurations[0].quality.pairs, by_time.overall.change) == (1, 0)


def test_times_of_other_devices_are_not_compared() -> None:
    a, b = study(BEFORE, 1.0), study(AFTER, 0.5, precision="bf16")
    for record in b:
        record.provenance["device_name"] = "another"
    comparison = compare(table(a), table(b), PHASE_SSIM)
    assert all(record.times["inference_time_s"].pairs == 0 for record in comparison.configurations)


def test_the_command_writes_a_table_and_a_page_that_fetches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = save(tmp_path / "a", study(BEFORE, 1.0), pictures=False)
    b = save(tmp_path / "b<i>", study(AFTER, 0.5, precision="bf16"), pictures=False)
    assert main([str(a), str(b)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "differ in precision: float32 in A, bf16 in B" in said
    assert "0.5 times that in A" in said
    folder = b / "compared-with-a"
    written = rows(folder / CSV)
    assert [row["verdict"] for row in written] == ["undecided"] * 2
    assert float(written[0]["inference_time_ratio"]) == pytest.approx(0.5)
    page = (folder / PAGE).read_text()
    assert "default-src 'none'" in page and "<script" not in page and "<i>" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert main([str(a), str(b), "--metric", "psnr_phase"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{a}", "{other}"], "no configuration in common: A has width 32, 64. B has width 16, 48"),
        (["{a}", "{nothing}"], "not a study"),
        (["{a}", "{a}", "--metric", "ssim"], "--metric ssim: known are"),
        (["{a}", "{a}", "--metric", "r_held_out"], "no r_held_out that both studies have"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {
        "a": save(tmp_path / "a", study(BEFORE, 1.0), pictures=False),
        "other": save(tmp_path / "o", study({16: [0.1], 48: [0.2]}, 1.0), pictures=False),
        "nothing": tmp_path / "nothing",
    }
    places["nothing"].mkdir()
    assert main([argument.format(**places) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1


def test_a_text_of_a_record_is_no_markup(tmp_path: Path) -> None:
    hostile = study(AFTER, 0.5)
    for record in hostile:
        record.provenance["dataset"] = HOSTILE
    a = save(tmp_path / "a", study(BEFORE, 1.0), pictures=False)
    b = save(tmp_path / "b", hostile, pictures=False)
    assert main([str(a), str(b)]) == 0
    page = (b / "compared-with-a" / PAGE).read_text()
    assert "<script>" not in page and "data are not the same" in page


def test_of_many_configurations_those_are_pictured_that_changed_most() -> None:
    """A thousand would be a picture that no browser draws; the page's table has all."""
    widths = range(16, 16 + MOST_SHOWN + 20)
    before, after = (
        table(study({w: [0.5 + step * (w % 30 - 15)] for w in widths}, 1.0, precision=precision))
        for step, precision in ((0, "float32"), (0.001, "bf16"))
    )
    comparison = compare(before, after, PHASE_SSIM)
    stream = io.StringIO()
    print_comparison(comparison, Console(file=stream, width=400))
    told = re.findall(r"width (\d+) ", stream.getvalue())
    assert len(told) == MOST_SHOWN and "20 more" in stream.getvalue()
    assert not {int(width) % 30 for width in told} & {14, 15, 16}
    page = render_comparison(comparison, ("A", "B"), "2026-01-02T03:04:05+00:00")
    assert all(f"width {width}<" in page for width in widths)
    encoded = re.search(r"data:image/png;base64,([^\"]+)", page)
    assert encoded is not None
    assert Image.open(io.BytesIO(base64.b64decode(encoded[1]))).height < 4000


def test_scans_are_compared_by_what_they_are_chosen_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by likeness to the reference, which they have as well."""
    of_scan = {"r_factor": {"held_out": 0.07, "held_out_from_object": 0.08}, "ssim": (0.5, 0.7)}
    changes = {"metrics": of_scan, "metrics_against": "reference"}
    for name in "ab":
        runs = [result(seed=seed, **changes) for seed in (0, 1)]
        save(tmp_path / name, runs, pictures=False)
    assert main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "R of held-out frames, from the object" in " ".join(capsys.readouterr().out.split())
    # As an export: by it only where every run has it.
    some = [result(seed=seed, **changes) for seed in (0, 1)]
    some[1].metrics.scan["r_factor"] = {"held_out": 0.07}
    save(tmp_path / "c", some, pictures=False)
    assert main([str(tmp_path / "a"), str(tmp_path / "c")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "R on held-out frames" in said and "from the object" not in said


def test_a_likeness_to_a_truth_is_not_compared_with_one_to_a_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (
        save(tmp_path / name, [result(metrics_against=name)], pictures=False)
        for name in ("truth", "reference")
    )
    assert main([str(a), str(b)]) == 2
    error = capsys.readouterr().err
    assert "ssim_phase" in error and "truth in A" in error and "reference in B" in error
    assert main([str(a), str(b), "--metric", "train_time_s"]) == 0


def test_a_configuration_is_not_named_by_what_b_has_otherwise() -> None:
    a, b = (table(study({width: [0.8, 0.9]}, 1.0)) for width in (8, 16))
    (compared,) = compare(a, b, PHASE_SSIM).configurations
    assert "width 8→16" in compared.name
