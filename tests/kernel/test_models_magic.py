"""`%mentra models`, `%mentra alias`, `local:` and the names after `-m`, in a real kernel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kits.notebooks import Notebook

pytestmark = pytest.mark.kernel


def test_models_are_a_table(notebook: Notebook) -> None:
    notebook.script()
    cell = notebook.run("found = %mentra models\nfound")
    assert cell.status == "ok"
    shown = json.dumps([content["data"] for kind, content in cell.events if kind == "execute_result"])
    assert "scripted/scripted" in shown
    assert notebook.value("list(found.columns)") == [
        *("model", "display_name", "context_window", "created_at", "provider"),
    ]
    assert notebook.value("str(found.context_window.dtype)") == "Int64"
    assert "UTC" in notebook.value("str(found.created_at.dtype)")
    assert notebook.value("mn.models('SCRIPTED', all=True).model.tolist()") == ["scripted/scripted"]
    assert notebook.run("%mentra models nothing-like-it --all").status == "ok"
    assert notebook.value("len(model.recorded_requests)") == 0


def test_a_server_that_does_not_answer_is_one_line(notebook: Notebook) -> None:
    notebook.script()
    notebook.run("mn.connect('mine', 'http://127.0.0.1:9', model='m')")
    cell = notebook.run("found = %mentra models")
    assert cell.status == "ok"
    assert [line.partition(" is not listed")[0] for line in cell.stdout.splitlines()] == ["mine"]
    assert notebook.value("'mine' in found.provider.tolist()") is False


def test_an_alias_is_made_listed_used_and_completed(notebook: Notebook) -> None:
    assert "→" not in notebook.run("%mentra alias").stdout
    assert notebook.run("%mentra alias quick scripted/scripted").stdout == "quick → scripted/scripted\n"
    assert notebook.run("%mentra alias").stdout == "quick → scripted/scripted\n"
    notebook.script("s.text('By its short name.')")
    assert "By its short name." in notebook.run("%mentra -m quick and now?").texts()
    for code, word in (
        ("%mentra -m qui", "quick"),
        ("%%mentra --model olla", "ollama/"),
        ("%mentra model loc", "local:"),
    ):
        matches = notebook.request("complete_request", {"code": code, "cursor_pos": len(code)})["content"]["matches"]
        assert word in matches, code
    config = notebook.run("found = %mentra config")
    assert config.status == "ok"
    assert notebook.value("found.set_index('setting').loc['aliases', 'source']") == "%mentra alias"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("%mentra alias a b", "'b' is not a model name"),
        ("%mentra alias a a", "in a circle"),
        ("%mentra alias demo ollama/x", "cannot be an alias"),
        ("%mentra alias nothing", "there is no alias 'nothing'"),
        ("%mentra model local:/no/such.gguf", "there is no model file /no/such.gguf"),
        ("%mentra -m local:/no/such.gguf hello there", "there is no model file /no/such.gguf"),
        ("%mentra -m local hello there", "write local:/path/model.gguf"),
    ],
)
def test_a_mistake_is_reported_in_one_sentence(notebook: Notebook, code: str, words: str) -> None:
    notebook.script()
    cell = notebook.run(code)
    assert cell.status == "error"
    assert words in cell.error
    assert notebook.value("len(model.recorded_requests)") == 0


def test_a_file_that_is_not_a_model_is_refused_before_anything_is_loaded(notebook: Notebook) -> None:
    file = Path(notebook.work) / "notes.gguf"
    file.write_text("not a model")
    cell = notebook.run(f"%mentra -m local:{file} hello there")
    assert cell.status == "error"
    assert "is not a GGUF file" in cell.error


def test_a_question_that_begins_like_a_command_is_asked(notebook: Notebook) -> None:
    notebook.script("s.text('They are.')", "s.text('Done.')")
    assert "They are." in notebook.run("%mentra models are small programs").texts()
    assert "Done." in notebook.run("%mentra alias the two columns please").texts()
