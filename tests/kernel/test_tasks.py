"""In a real kernel: the task board and subagents, turned on by a setting."""

from __future__ import annotations

import pytest
from kits.notebooks import Notebook

pytestmark = pytest.mark.kernel


def test_a_cell_shows_the_tasks_and_the_subagents_of_its_turn(notebook: Notebook) -> None:
    notebook.run("%config Mentra.tasks = True\n%config Mentra.subagents = True")
    tasks = "('task_create', {'subject': 'count'}), ('task_create', {'subject': 'report', 'blockedBy': [1]})"
    notebook.script(
        f"s.tool_calls([{tasks}])",
        "s.tool_calls([('task', {'prompt': 'Count the files.'})])",
        "s.text('There are three.')",
        "s.tool_calls([('task_update', {'taskId': 1, 'status': 'completed'})])",
        "s.text('One step is left.')",
    )
    cell = notebook.run("%mentra go")
    assert cell.status == "ok"
    texts = cell.texts()
    assert "▸ tasks: 1 of 2 done\n  ☑ 1 count\n  ☐ 2 report" in texts
    assert "::task  finished" in texts
    assert "One step is left." in texts
    table = notebook.run("board = %mentra tasks\nprint(board)").stdout
    assert "report" in table
    assert notebook.value("mn.tasks().status.tolist()") == ["completed", "pending"]
    turns = "mn.turns().parent_run_id.notna().tolist()"
    assert notebook.value(turns) == [False, True]
    assert notebook.value("int(mn.sessions().turns.sum())") == 1
