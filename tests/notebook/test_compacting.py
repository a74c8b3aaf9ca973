"""`compact` and `context`: a person makes room in the model's context, and sees what fills it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kits.shells import Mentra, answers

import mentra_nb as mn
from mentra_nb.chat.api import conversation
from mentra_nb.chat.engine import reset
from mentra_nb.compaction.summary import MARK
from mentra_nb.compaction.window import learn_window
from mentra_nb.errors import MentraError
from mentra_nb.providers.scripted import ScriptedCall, text, tool_calls

SUMMARY = text(json.dumps({"goal": "a report", "facts": ["the revenue was 2400"]}))


def test_compact_sends_a_summary_from_then_on_and_keeps_what_is_asked_for(mentra: Mentra, capsys: Any) -> None:
    provider = answers(text("It was 2400."), text("Yes."), SUMMARY, text("As I said."), SUMMARY, text("Still so."))
    mentra("what was the revenue?")
    mentra("are you sure?")
    mentra("compact keep the names of the columns")
    assert "history shortened: 3 entries became a summary" in capsys.readouterr().out
    mentra("and now?")
    first = provider.recorded_requests[-1].messages[0].text()
    assert first.startswith(MARK)
    assert '- "the names of the columns"' in first
    assert '- "what was the revenue?"' in first
    assert "the revenue was 2400" in first
    said = [message.text() for message in conversation(None).history if not message.text().startswith(MARK)]
    assert said == ["what was the revenue?", "It was 2400.", "are you sure?", "Yes.", "and now?", "As I said."]
    mentra("compact")
    mentra("and then?")
    assert '- "the names of the columns"' in provider.recorded_requests[-1].messages[0].text()


def test_compacting_after_a_restart_opens_the_conversation(mentra: Mentra) -> None:
    answers(text("It was 2400."), text("Yes."))
    mentra("-s sales what was the revenue?")
    mentra("-s sales are you sure?")
    reset()
    provider = answers(SUMMARY, text("Still so."))
    turn = mn.Chat("sales").compact()
    assert (turn.result().stop_reason, turn.result().text) == ("compacted", "")
    mentra("-s sales and now?")
    assert provider.recorded_requests[-1].messages[0].text().startswith(MARK)


def test_a_conversation_with_nothing_older_says_so(mentra: Mentra, capsys: Any) -> None:
    answers(text("It was 2400."))
    mentra("-s short what was the revenue?")
    turn = mn.Chat("short").compact()
    assert turn.result().stop_reason == "compacted"


def test_compacting_nothing_is_refused_in_one_sentence(mentra: Mentra) -> None:
    answers()
    with pytest.raises(MentraError):
        mn.Chat("nothing yet").compact().result()


def test_context_shows_what_fills_the_window(mentra: Mentra) -> None:
    provider = answers(
        tool_calls([ScriptedCall("read", {"path": "notes.md"}, "call-1")]), text("It says so."), text("Yes.")
    )
    Path("notes.md").write_text("word " * 600)
    mentra("what do the notes say?")
    mentra("are you sure?")
    learn_window(provider, "scripted", 32_000)
    frame = mentra("context")
    use = dict(zip(frame.part, frame.tokens, strict=True))
    assert {"system prompt", "tools", "files", "your messages", "answers and calls", "free"} <= {*use}
    assert use["files"] > 900
    assert sum(use.values()) == 32_000
    assert abs(frame.share.sum() - 100) < 1


def test_the_setting_says_how_much_the_context_holds(mentra: Mentra, shell: Any) -> None:
    provider = answers(*[text("word " * 600)] * 3, SUMMARY, text("So it is."))
    shell.run_line_magic("config", "Mentra.context_window = 9_000")
    for number in range(4):
        mentra(f"-s small question {number}?")
    assert provider.recorded_requests[-1].messages[0].text().startswith(MARK)
    assert mentra("context").share.sum() > 99


def test_prose_that_begins_with_compact_is_a_question(mentra: Mentra) -> None:
    provider = answers(text("Here."))
    mentra("compact this list for me")
    assert provider.recorded_requests[0].messages[-1].text().startswith("compact this list")
