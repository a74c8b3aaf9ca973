"""`@name` in a real kernel: the question of the manual, the last error, earlier cells, and completion."""

from __future__ import annotations

import pytest
from kits.notebooks import Notebook

pytestmark = pytest.mark.kernel

SALES = "import pandas as pd\nsales = pd.DataFrame({'month': ['2026-03', '2026-04'], 'amount': [1200, 9000]})"


def test_a_question_about_a_frame_an_error_and_a_cell(notebook: Notebook) -> None:
    notebook.script("s.text('April.')", "s.text('A name.')")
    notebook.run(SALES)
    cell = notebook.run("%%mentra\nWhich month in @sales looks odd, and why?")
    assert (cell.status, "April." in cell.texts()) == ("ok", True)
    assert "@sales: pandas.DataFrame, 2 rows × 2 columns" in notebook.said(0)[-1]
    assert notebook.run("ratio = 1 / (sales.amount[0] - 1200).item()").status == "error"
    cell = notebook.run("%mentra why @err in @cell:-1, @nme?")
    assert "there is no variable 'nme'" in cell.texts()
    said = notebook.said(1)[-1]
    assert "ZeroDivisionError" in said
    assert "ratio = 1 / (sales.amount[0] - 1200).item()" in said


def test_references_are_completed_in_a_line_and_in_a_cell(notebook: Notebook) -> None:
    notebook.run(SALES)
    for code, word in (
        ("%mentra what of @sal", "@sales"),
        ("%%mentra\nWhich month in @sal", "@sales"),
        ("%%mentra -m demo\nOne line.\nIs (@sales.am", "@sales.amount"),
        ("%mentra -i sal", "sales"),
        ("%mentra @er", "@err"),
    ):
        found = notebook.request("complete_request", {"code": code, "cursor_pos": len(code)})["content"]
        assert found["matches"] == [word], code
        assert word.startswith(code[found["cursor_start"] :]), code
