"""The study under docs/: anyone can export it again, and its sentences are what its tables say."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from agent.export import export
from agent.report.terminal import CONFIGS, CSV, RECOMMENDATION

STUDY = Path(__file__).resolve().parents[1] / "docs" / "study"
KEYS = ("input_transform", "modes", "width")
TRANSFORMS = ("none", "log1p", "sqrt")
CHANGES = (
    ("modes", 12, 16, "12 → 16 modes"),
    ("modes", 16, 24, "16 → 24 modes"),
    ("width", 32, 48, "width 32 → 48"),
    ("width", 48, 64, "width 48 → 64"),
    ("input_transform", "log1p", "none", "log1p → none"),
    ("input_transform", "sqrt", "none", "sqrt → none"),
    ("input_transform", "log1p", "sqrt", "log1p → sqrt"),
)


@pytest.mark.usefixtures("tables_only")
def test_its_records_give_its_tables_byte_for_byte(tmp_path: Path) -> None:
    shutil.copytree(STUDY / "runs", tmp_path / "runs")
    shutil.copy(STUDY / "study.json", tmp_path)
    export(tmp_path)
    for name in (CSV, CONFIGS, RECOMMENDATION):
        assert (tmp_path / name).read_bytes() == (STUDY / name).read_bytes(), name


def test_its_numbers_of_fno_are_what_its_page_says() -> None:
    """The points; pairs that differ in one key: mean, Student's interval, the least, the most."""
    configs = pd.read_csv(STUDY / CONFIGS, keep_default_na=False)
    quality = configs[configs["architecture"] == "fno"].set_index(list(KEYS))["ssim_phase_mean"]
    quality = quality.astype(float)
    assert len(quality) == 27
    said = (STUDY / "README.md").read_text()
    for key, before, after, words in CHANGES:
        others = product(
            *(sorted(set(quality.index.get_level_values(k))) for k in KEYS if k != key)
        )
        place = KEYS.index(key)
        gains = np.array([
            quality[(*rest[:place], after, *rest[place:])]
            - quality[(*rest[:place], before, *rest[place:])]
            for rest in others
        ])  # fmt: skip
        half = stats.sem(gains) * stats.t.ppf(0.975, len(gains) - 1)
        numbers = f"{gains.mean():+.3f} ± {half:.3f} ({gains.min():.3f} … {gains.max():.3f})"
        assert f"| {words} | {numbers} |" in said
    transforms, modes, widths = (sorted({place[n] for place in quality.index}) for n in range(3))
    for kept in modes:
        cells = (", ".join(f"{quality[t, kept, w]:.3f}" for w in widths) for t in TRANSFORMS)
        assert f"| {kept} | {' | '.join(cells)} |" in said
    assert set(transforms) == set(TRANSFORMS)
