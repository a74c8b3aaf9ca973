"""`mn.map` in a real kernel: its bar, the frame, *Stop*, and what the record has of its cell."""

from __future__ import annotations

import threading

import pytest
from kits.kernels import WIDGET
from kits.notebooks import Notebook
from kits.row_server import RowServer

pytestmark = pytest.mark.kernel

ANSWERED, WORKERS = 3, 2


def test_stop_returns_the_rows_that_are_done_and_the_next_run_asks_only_for_the_others(notebook: Notebook) -> None:
    all_wait = threading.Event()

    def on_request(prompt: str) -> None:
        if len(server.asked) == ANSWERED + WORKERS:
            all_wait.set()

    with RowServer(on_request=on_request) as server:
        server.fate = lambda prompt, attempt: "answer" if len(server.asked) <= ANSWERED or attempt > 1 else "silence"
        notebook.run(f"mn.connect('lab', '{server.url}', model='m')\nrows = [f'row {{n}}' for n in range(8)]")
        cell = notebook.send_as("cell-of-the-map", f"found = mn.map('{{value}}', rows, workers={WORKERS})\nfound")
        assert all_wait.wait(60)
        notebook.manager.interrupt_kernel()
        notebook.finish(cell)
        assert cell.status == "ok", cell.error
        assert notebook.value("[int(found.answer.notna().sum()), found.error.dropna().unique().tolist()]") == [
            ANSWERED,
            ["not asked: the map was stopped"],
        ]
        assert "3 of 8 rows answered; 5 without an answer; " in cell.stdout
        widgets = [data for data in cell.outputs() if WIDGET in data]
        assert len(widgets) == 1
        server.fate = lambda prompt, attempt: "answer"
        before = len(server.asked)
        again = notebook.run(f"found = mn.map('{{value}}', rows, workers={WORKERS})")
        assert (again.status, len(server.asked) - before) == ("ok", 5)
    assert notebook.value("found.answer.tolist()") == [f"yes to row {n}" for n in range(8)]
    turns = notebook.value("mn.turns()[['cell_id', 'stop_reason']].values.tolist()[-2:]")
    assert [reason for _, reason in turns] == ["cancelled", "end"]
    assert turns[0][0] == "cell-of-the-map"
