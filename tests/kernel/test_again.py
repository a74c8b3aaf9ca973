"""Cells that are run again: what they asked before is replaced, or its stored answer is shown and nothing is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kits.http_server import Reply, Server
from kits.kernels import Cell
from kits.notebooks import Notebook
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.kernel

KEPT = "The stored answer of this cell: nothing was sent. To ask again: --fresh\n"


def run(notebook: Notebook, cell_id: str, code: str) -> Cell:
    [cell] = notebook.finish(notebook.send_as(cell_id, code))
    assert cell.status == "ok", cell.events
    return cell


def restart(notebook: Notebook, *answers: str) -> None:
    """Close the engine of the kernel, as a restart does, and give the next one these answers."""
    notebook.run("from mentra_nb.chat.engine import reset; reset()")
    notebook.begin()
    script(notebook, *answers)


def script(notebook: Notebook, *answers: str) -> None:
    notebook.script(*(f"s.text({answer!r})" for answer in answers))


def asked(notebook: Notebook) -> int:
    count: int = notebook.value("len(model.recorded_requests)")
    return count


def test_a_cell_that_is_run_again_replaces_its_turn_unless_more_is_said(notebook: Notebook) -> None:
    script(notebook, "one", "two", "three", "four", "five", "six", "seven")
    assert "replaced" not in run(notebook, "a", "%mentra first").texts()
    run(notebook, "b", "%%mentra\nsecond")
    again = run(notebook, "a", "%mentra first, in other words")
    assert notebook.said() == ["first, in other words"]
    said = "The earlier turn of this cell is replaced, and 1 later turn is left out. To go on from the end instead:"
    assert said in again.texts()
    assert "replaced" not in run(notebook, "b", "%%mentra\nsecond").texts()
    assert notebook.said() == ["first, in other words", "three", "second"]
    run(notebook, "a", "%mentra --more third")
    assert notebook.said() == ["first, in other words", "three", "second", "four", "third"]
    run(notebook, "c", "%mentra one\n%mentra two")
    run(notebook, "c", "print()")  # the turns stay
    assert notebook.said()[-3:] == ["one", "six", "two"]


def test_a_cell_replaces_its_turn_after_a_restart_and_functions_go_on_from_the_end(notebook: Notebook) -> None:
    script(notebook, "one", "two")
    run(notebook, "a", "%mentra --new first")
    run(notebook, "b", "%mentra second")
    restart(notebook, "three", "four", "five", "six")
    run(notebook, "b", "%mentra second")
    assert notebook.said() == ["first", "one", "second"]
    run(notebook, "d", "for each in 'xy': mn.ask(each)")
    run(notebook, "d", "mn.ask('z')")
    assert notebook.said()[-5:] == ["x", "four", "y", "five", "z"]


def test_a_stored_answer_is_shown_while_nothing_before_it_changed(notebook: Notebook) -> None:
    notebook.run("from mentra_nb.chat.engine import reset; reset()")
    notebook.begin()
    script(notebook, "one", "two", "three")
    first, second = "%%mentra --new\nfirst", "%%mentra --keep -o reply\nsecond"
    run(notebook, "a", first)
    assert KEPT not in run(notebook, "b", second).stdout
    notebook.run("%config Mentra.keep_answers = True")
    for _ in range(2):
        again = run(notebook, "b", second)
        assert again.stdout == KEPT
        assert "two" in again.texts()
    assert asked(notebook) == 2
    assert notebook.value("[reply.text, reply.stop_reason, reply.cost, reply.usage.input_tokens]") == [
        "two",
        "kept",
        0,
        0,
    ]
    assert run(notebook, "b", "%%mentra --fresh\nsecond").stdout == ""
    assert notebook.said() == ["first", "one", "second"]
    restart(notebook, "four", "five", "six")
    notebook.run("%config Mentra.keep_answers = True")
    assert run(notebook, "b", "%%mentra\nsecond").stdout == KEPT
    assert asked(notebook) == 0
    assert run(notebook, "a", "%%mentra\nfirst, in other words").stdout == ""
    assert run(notebook, "b", "%%mentra\nsecond").stdout == ""  # what was said before it changed
    assert notebook.said() == ["first, in other words", "four", "second"]
    assert run(notebook, "b", "%%mentra -m scripted/other\nsecond").stdout == ""
    assert asked(notebook) == 3


def answer(text: str) -> Reply:
    """Return the reply of a server of chat completions."""

    def frame(**choice: Any) -> bytes:
        return b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n"

    return Reply([frame(delta={"content": text}), frame(delta={}, finish_reason="stop"), b"data: [DONE]\n\n"])


@pytest.mark.anyio
async def test_a_notebook_that_is_run_twice_asks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MENTRA_KEEP_ANSWERS", "1")

    async def run_all(*questions: str) -> str:
        connect = f"mn.connect('lab', '{server.url}/v1', model='m')"
        begin = new_code_cell(f"%load_ext mentra_nb\nimport mentra_nb as mn\n{connect}")
        book = new_notebook(cells=[begin, *(new_code_cell(f"%%mentra\n{each}") for each in questions)])
        resources = {"metadata": {"path": str(tmp_path)}}
        await NotebookClient(book, kernel_name="python3", resources=resources).async_execute()
        return json.dumps(book)

    async with Server() as server:
        server.reply(*map(answer, ("ANSWER-1", "ANSWER-2", "ANSWER-3")))
        first = await run_all("go on", "go on")  # the same text twice: the cells have no ids
        assert len(server.requests) == 2
        second = await run_all("go on", "go on")
        assert len(server.requests) == 2
        for shown in (first, second):
            assert shown.index("ANSWER-1") < shown.index("ANSWER-2")
        third = await run_all("go on", "something else")
        assert [message["content"] for message in server.requests[2].json()["messages"]][-3:] == [
            "go on",
            "ANSWER-1",
            "something else",
        ]
        assert "ANSWER-3" in third
