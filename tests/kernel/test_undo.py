"""`%mentra undo` and `mn.undo`: names and files of a turn come back, what cannot is said, conflicts are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from kits.kernels import Cell
from kits.notebooks import Notebook

pytestmark = pytest.mark.kernel


def run(notebook: Notebook, *codes: str) -> Cell:
    """Have the model run each code in one turn, allowed, and return the cell."""
    calls = [f"s.tool_calls([s.ScriptedCall('python', {{'code': {code!r}}}, 'call-1')])" for code in codes]
    notebook.script(*calls, "s.text('Done.')")
    assert notebook.run("rule = mn.allow('python')").status == "ok"
    cell = notebook.run("%%mentra\nlook")
    assert cell.status == "ok"
    notebook.run("_ = mn.revoke(rule.id)")
    return cell


def test_names_come_back_as_they_were_and_an_undo_can_be_undone(notebook: Notebook) -> None:
    notebook.run("import pandas as pd; df = pd.DataFrame({'a': [1, 2]}); same = df; items = [[1]]; gone = items")
    run(notebook, "df['b'] = 1\nitems[0].append(2)\ndel gone\nfresh = 1", "df.loc[0, 'a'] = 99\nfresh = 2")
    state = "[df.to_dict('list'), same is df, items, 'gone' in dir(), 'fresh' in dir()]"
    after = [{"a": [99, 2], "b": [1, 1]}, True, [[1, 2]], False, True]
    assert notebook.value(state) == after
    undone = notebook.run("%mentra undo")
    assert notebook.value(state) == [{"a": [1, 2]}, True, [[1]], True, False]
    assert notebook.value("gone is items") is True
    *said, back = undone.stdout.splitlines()
    assert sorted(said[0].removeprefix("restored ").split(", ")) == ["df", "items", "same"]
    assert said[1:] == ["brought back gone", "removed fresh"]
    assert back.startswith("To take this back: %mentra undo undo-")
    assert notebook.run(back.partition(": ")[2]).status == "ok"
    assert notebook.value(state) == after
    assert "To take this back" in notebook.run("%mentra undo").stdout  # the turn again
    assert notebook.value(state) == [{"a": [1, 2]}, True, [[1]], True, False]
    assert "nothing to undo" in notebook.run("%mentra undo").error


def test_what_was_changed_since_is_left_as_it_is(notebook: Notebook) -> None:
    notebook.run("items, other = [1], [2]")
    run(notebook, "items.append(5)\nother.append(6)")
    notebook.run("items.append(7)")
    cell = notebook.run("u = mn.undo()")
    assert cell.stdout == "left as it is, since it was changed after the turn: items\n"
    assert notebook.value("[items, other, list(u.names), list(u.conflicts)]") == [[1, 5, 7], [2], ["other"], ["items"]]


def test_what_cannot_be_restored_is_said_before_the_code_runs_and_before_the_undo(notebook: Notebook) -> None:
    notebook.run("import sqlite3; db = sqlite3.connect(':memory:'); box = [db]")
    run(notebook, "db.execute('create table t (a)'); box.append(1)")
    assert "[undo cannot restore all of box (a sqlite3.Connection)]" in notebook.said()[-1]
    cell = notebook.run("u = mn.undo()")
    assert cell.stdout == "cannot be restored in full: box (a sqlite3.Connection)\n"
    assert notebook.value("[len(box), list(u.names)]") == [1, ["box"]]


def test_calls_that_undo_no_longer_reaches_are_counted_in_the_row_and_the_record(notebook: Notebook) -> None:
    notebook.run("import numpy as np, sqlite3; a, db = np.zeros(1000), [sqlite3.connect(':memory:')]")
    notebook.run("import mentra_nb.namespace.history as h; whole, h.MAX_HELD = h.MAX_HELD, 0")
    run(notebook, "a += 1")  # no room for any call, so that none of before is left
    notebook.run("h.MAX_HELD = 20_000")  # a change of `a` takes 16,000
    cell = run(notebook, "a += 1", "a += 1", "db.append(open('out', 'w')); a += 1; 1 / 0", "a = np.ones(2000); a += 1")
    first, second, third, fourth = [text for text in cell.texts().splitlines() if " python " in text]
    gone, names = "undo no longer reaches back to 1 earlier call: no room", "changed a (ndarray)"
    assert (gone in first, gone in second, gone in third, gone in fourth) == (False, True, True, True)
    assert f"{names} · {gone}" in second
    assert "ZeroDivisionError: division by zero · created out · changed " in third
    assert f"undo cannot restore all of db (a sqlite3.Connection) · {gone}" in third
    assert "undo cannot restore the names of this call: no room" in fourth
    details = [row["details"] for row in notebook.records("tool_execution_finished")[-4:]]
    kept = [(each["dropped"], each["too_large"]) for each in details]
    assert kept == [(0, False), (1, False), (1, False), (1, True)]
    undone = notebook.run("h.MAX_HELD = whole\n%mentra undo")
    assert "cannot be restored in full: a (no room for what it was)\n" in undone.stdout
    assert "deleted out\nTo take this back" in undone.stdout
    assert notebook.value("a.size") == 2000


@pytest.mark.parametrize(
    ("by", "waits"), [("deadline", "time.sleep(30)"), ("button", "import asyncio\nawait asyncio.sleep(30)")]
)
def test_what_a_stopped_call_did_is_told_recorded_and_undone(notebook: Notebook, by: str, waits: str) -> None:
    notebook.run("items, gone = [1], 1")
    code = f"import time\nitems.append(2)\ndel gone; half = 1\nopen('half', 'w').close()\nprint('begun')\n{waits}"
    script = f"s.tool_calls([s.ScriptedCall('python', {{'code': {code!r}}}, 'call-1')])", "s.text('Never.')"
    notebook.script(*script)
    notebook.run("rule = mn.allow('python')")
    limits = "" if by == "button" else ", limits=mn.RunOptions(deadline=time.time() + 1)"
    asking = notebook.send(f"mn.ask('wait'{limits})")
    if by == "button":
        notebook.until(lambda: asking.stdout)
        notebook.manager.interrupt_kernel()
    notebook.finish(asking)
    notebook.run("mn.revoke(rule.id)")
    assert asking.status == "error"
    assert notebook.value("[items, half, 'gone' in dir()]") == [[1, 2], 1, False]
    row = next(text for text in asking.texts().splitlines() if "✗ python" in text)
    [finished] = notebook.records("tool_execution_finished")
    for name, done in (("half", "created"), ("items", "changed"), ("gone", "deleted")):
        assert name in finished["details"][done]
    assert "not finished · created half · created " in row
    assert "changed items (list); deleted gone" in row
    assert "[files: created half]\n[names: created " in finished["error"]
    assert notebook.value("mn.effects(session='this')[['change', 'outcome']].values.tolist()") == [["created", "made"]]
    notebook.script("s.text('I see.')")
    notebook.run("%mentra what was done?")
    told = any("changed items (list); deleted gone]" in text for text in notebook.said())
    assert told == (by == "button")  # a turn that ran out of time is not continued
    notebook.run("%mentra undo")
    assert notebook.value("[items, gone, 'half' in dir()]") == [[1], 1, False]
    assert not (Path(notebook.work) / "half").exists()


def test_files_of_a_turn_come_back_with_its_names(notebook: Notebook) -> None:
    path = Path(notebook.work) / "note.txt"
    path.write_text("before\n")
    notebook.run("items = [1]")
    assert notebook.run(PUT).status == "ok"
    put = "s.tool_calls([s.ScriptedCall('put', {'text': 'of the model'})])"
    notebook.script(put, "s.tool_calls([s.ScriptedCall('python', {'code': 'items.append(2)'})])", "s.text('Done.')")
    notebook.run("rule = mn.allow('python')")
    assert notebook.run("%mentra -t put write").status == "ok"
    assert path.read_text() == "of the model"
    undone = notebook.run("u = mn.undo(); print(u)")
    assert undone.stdout.startswith("restored note.txt\nrestored items\n")
    assert (path.read_text(), notebook.value("items")) == ("before\n", [1])
    notebook.run("u = mn.undo(u)")
    assert (path.read_text(), notebook.value("items")) == ("of the model", [1, 2])
    path.write_text("mine\n")
    conflict = notebook.run("%mentra undo")
    assert conflict.stdout.startswith("left as it is, since it was changed after the turn: note.txt\nrestored items\n")
    assert (path.read_text(), notebook.value("items")) == ("mine\n", [1])
    notebook.run("mn.revoke(rule.id)")


def test_files_that_code_wrote_come_back(notebook: Notebook) -> None:
    work = Path(notebook.work)
    (work / "data.csv").write_text("a\n1\n")
    notebook.run("import pandas as pd")
    cell = run(notebook, "pd.DataFrame({'b': [2]}).to_csv('data.csv', index=False)\nopen('out.txt', 'w').close()")
    assert notebook.said()[-1] == "[files: created out.txt; changed data.csv]"
    assert "created out.txt; changed data.csv" in cell.texts()
    undone = notebook.run("%mentra undo")
    assert undone.stdout.startswith("restored data.csv\ndeleted out.txt\n")
    assert ((work / "data.csv").read_text(), (work / "out.txt").exists()) == ("a\n1\n", False)
    rows = notebook.value("mn.effects(session='this')[['path', 'change', 'tool', 'outcome']].tail(4).values.tolist()")
    assert [(Path(path).name, *rest) for path, *rest in rows] == [
        ("data.csv", "changed", "python", "made"),
        ("out.txt", "created", "python", "made"),
        ("data.csv", "changed", "undo", "undone"),
        ("out.txt", "deleted", "undo", "undone"),
    ]
    assert "undo" not in notebook.value("mn.tool_calls(session='this').tool.tolist()")


PUT = """
import hashlib, io, os
from mentra_nb.effect.handles import state
from mentra_nb.effect.journal import Journal
from mentra_nb.effect.types import FileChange, FileState
@mn.tool(asks=False)
def put(context: mn.ToolContext, text: str) -> str:
    "Write the note."
    path, raw = os.path.abspath("note.txt"), text.encode()
    after = FileState("file", 0o644, len(raw), hashlib.sha256(raw).hexdigest())
    change = FileChange(path, state(path), after)
    Journal().apply([change], lambda _: io.BytesIO(raw), turn=context.run_id, call=context.tool_call_id)
    return "written"
"""
