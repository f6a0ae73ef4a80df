"""A table as CSV: nothing in it runs in a spreadsheet, and it reads back as it was written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from agent.study.csv_files import as_csv, read_csv
from agent.study.records import one_line

TEXTS = st.text(max_size=8) | st.sampled_from(
    ["=1+1", "+49", "-2", "@SUM(A1)", "'", "'=x", "''", '=HYPERLINK("http://x","y")']
)


@given(st.lists(TEXTS.map(one_line), min_size=1, max_size=5))
def test_any_text_is_no_formula_and_reads_back(texts: list[str]) -> None:
    table = pd.DataFrame({"run_id": "0", "error": texts}, dtype=object)
    written = as_csv(table)
    assert not any(
        cell.lstrip('"').startswith(("=", "+", "-", "@"))
        for line in written.splitlines()[1:]
        for cell in [line.split(",", 1)[1]]
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        path.write_text(written)
        assert [row["error"] for row in read_csv(path)] == texts


def test_numbers_stay_numbers_and_plain_texts_themselves() -> None:
    table = pd.DataFrame({"a": [-1.5, None], "b": [3, -4], "c": ["fno", ""]}, dtype=object)
    assert as_csv(table) == "a,b,c\n-1.5,3,fno\nNaN,-4,\n"
