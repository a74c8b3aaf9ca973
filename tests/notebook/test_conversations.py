"""`fork`, `history`, `forget`, `export` and `diff`: a person's own dealings with conversations."""

from __future__ import annotations

import json
import re
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kits.shells import Mentra, answers
from markdown_it import MarkdownIt

import mentra_nb as mn
from mentra_nb import paths
from mentra_nb.chat.api import conversation, stored_conversations
from mentra_nb.chat.engine import engine
from mentra_nb.errors import ConfigurationError, LeaseUnavailable, OperationDenied
from mentra_nb.ids import short_id
from mentra_nb.notebook.grammar import completions
from mentra_nb.page.inert import inert
from mentra_nb.providers.scripted import ScriptedAnswer, ScriptedCall, ScriptedProvider, text, tool_calls
from mentra_nb.store.records import LeaseHolder


def writes(path: str, content: str, call: str = "call-1") -> ScriptedAnswer:
    return tool_calls([ScriptedCall("write", {"path": path, "content": content}, call)])


# ---- history ----------------------------------------------------------------------------------------------------


def test_questions_and_answers_of_every_conversation_are_searched(mentra: Mentra) -> None:
    answers(text("Revenue was 2400 dollars."), text("Costs were low."), text("A long walk. " * 40 + "REVENUE again."))
    mentra("what about March?")
    mentra("-s costs and the revenue?")
    mentra("-s walk tell me")
    found = mentra("history revenue")
    assert found.prompt.tolist() == ["what about March?", "and the revenue?", "tell me"]
    assert found.conversation.tolist() == ["what about March?", "costs", "walk"]
    assert found.answer[0] == "Revenue was 2400 dollars."
    assert found.found[2].startswith("…")
    assert found.found[2].endswith("REVENUE again.")
    assert len(mentra('history "revenue was"')) == 1
    assert len(mentra("history")) == 3
    assert max(map(len, repr(found).splitlines())) <= 80
    none = mentra("history nowhere")
    assert (len(none), repr(none)) == (0, "No question and no answer of this project contains 'nowhere'.")


def test_what_is_handed_over_is_not_part_of_the_question(mentra: Mentra, shell: Any) -> None:
    answers(text("Four."))
    shell.user_ns["numbers"] = [4711]
    mentra("how many in @numbers?")
    assert mentra("history").prompt.tolist() == ["how many in @numbers?"]
    assert len(mentra("history 4711")) == 0


# ---- options and the status -------------------------------------------------------------------------------------


def test_a_question_without_tools_lets_the_model_call_none(mentra: Mentra) -> None:
    provider = answers(writes("a.txt", "x"), text("Done."), text("Done."))
    mn.allow("write")
    mentra("--no-tools write a file")
    assert provider.recorded_requests[0].tool_choice == mn.ToolChoice("none")
    assert not Path("a.txt").exists()
    mentra("and now?")
    assert provider.recorded_requests[2].tool_choice == mn.ToolChoice()
    for other in ("-t answers", "--plan"):
        with pytest.raises(ConfigurationError, match=f"--no-tools offers none: leave {other.split()[0]} out"):
            mentra(f"--no-tools {other} what?")


def test_the_status_says_what_was_spent(mentra: Mentra, capsys: Any) -> None:
    answers(text("one", usage=mn.TokenUsage(input_tokens=1200, output_tokens=34, cost_usd=0.0125)), text("two"))
    mentra("")
    assert "spent" not in capsys.readouterr().out
    mentra("what?")
    capsys.readouterr()
    mentra("")
    said = capsys.readouterr().out.splitlines()
    assert "spent    1,234 tokens, $0.0125" in said
    assert [line.split()[0] for line in said if line[:1].strip()] == [
        "model",
        "session",
        "spent",
        "rules",
        "asks",
        "Try:",
    ]


# ---- fork -------------------------------------------------------------------------------------------------------


def test_a_copy_with_a_name_leaves_the_conversation_as_it_is(mentra: Mentra, capsys: Any) -> None:
    provider = answers(text("one"), text("two"), text("three"))
    mentra("first?")
    mentra("fork second-try")
    assert "%mentra -s second-try" in capsys.readouterr().out
    mentra("-s second-try and then?")
    mentra("go on")
    sent = [[message.text() for message in request.messages] for request in provider.recorded_requests]
    assert sent[1:] == [["first?", "one", "and then?"], ["first?", "one", "go on"]]
    with pytest.raises(OperationDenied, match="there is a conversation 'second-try' already"):
        mentra("fork second-try")


def test_without_a_name_the_copy_takes_its_place(mentra: Mentra, capsys: Any) -> None:
    answers(text("one"), text("two"))
    with pytest.raises(OperationDenied, match="nothing was asked here yet"):
        mentra("fork")
    mentra("first?")
    before = conversation().id
    mentra("fork")
    assert "goes on in a copy" in capsys.readouterr().out
    assert conversation().id != before
    mentra("and then?")
    assert len(stored_conversations()) == 2
    assert mn.messages(before).text.tolist() == ["first?", "one"]


# ---- hide and edit ----------------------------------------------------------------------------------------------


def sent(provider: ScriptedProvider, n: int = -1) -> list[str]:
    return [message.text() for message in provider.recorded_requests[n].messages]


def test_a_hidden_exchange_is_not_sent_and_comes_back(mentra: Mentra, capsys: Any) -> None:
    provider = answers(text("one"), writes("a.txt", "x"), text("two"), text("three"), text("four"), text("five"))
    rule = mn.allow("write", "a.txt")
    for question in ("first?", "second?", "third?"):
        mentra(question)
    assert mentra("hide")[["n", "question", "answer"]].values.tolist() == [
        [1, "first?", "one"],
        [2, "second?", "two"],
        [3, "third?", "three"],
    ]
    capsys.readouterr()
    mentra("hide 2")
    said = capsys.readouterr().out
    assert "'second?' and its answer are not sent any more" in said
    mentra("fourth?")
    assert sent(provider) == ["first?", "one", "third?", "three", "fourth?"]
    assert mn.rules().pattern.tolist() == [rule.pattern]  # what holds for the session still holds
    assert mentra("hide").question.tolist() == ["first?", "third?", "fourth?"]
    mentra("undo")  # what the hidden exchange did is still undone
    assert not Path("a.txt").exists()
    mentra(re.search(r"%mentra (resume \S+)", said)[1])  # type: ignore[index]  # it is there
    mentra("fifth?")
    assert [line for line in sent(provider) if line] == [
        *("first?", "one", "second?", "two", "third?", "three", "fifth?")
    ]
    with pytest.raises(OperationDenied, match="there is no question 9 here: %mentra hide lists 4 questions"):
        mentra("hide 9")


def test_a_question_is_asked_anew_in_its_place(mentra: Mentra, shell: Any, capsys: Any) -> None:
    provider = answers(text("one"), text("two"), text("three"), text("anew"), text("named"), text("again"))
    for question in ("first?", "second?", "third?"):
        mentra(question)
    mentra("edit 2")
    assert r"%%mentra --at 2\nsecond?" in capsys.readouterr().out
    shell.run_cell_magic("mentra", "--at 2", "second, in euros?")
    assert sent(provider) == ["first?", "one", "second, in euros?"]
    assert mn.messages().text.tolist() == ["first?", "one", "second, in euros?", "anew"]
    mentra("-s other what?")
    shell.run_cell_magic("mentra", "-s other --at 1", "what else?")
    assert mn.messages("other").text.tolist() == ["what else?", "again"]
    with pytest.raises(OperationDenied, match="no question 7"):
        mentra("--at 7 what?")
    with pytest.raises(ConfigurationError, match="--at needs the number"):
        mentra("--at two what?")
    with pytest.raises(OperationDenied, match="which one"):
        mentra("edit")


# ---- forget -----------------------------------------------------------------------------------------------------


def rows_with(word: str) -> int:
    """Return how many values in the state store have a word in them."""
    with closing(sqlite3.connect(paths.state_file())) as con:
        tables = [name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for name in tables for row in con.execute(f"SELECT * FROM {name}")]
    return sum(word in str(value) for row in rows for value in row)


def test_nothing_of_a_forgotten_conversation_is_left_in_the_store(mentra: Mentra, capsys: Any) -> None:
    answers(
        text("kept answer"), writes("secret-name.txt", "secret-name " * 9000), text("secret-name answer"), text("new")
    )
    mentra("-s other kept question")
    chat = conversation()
    chat.allow("write", "secret-name*")
    mentra("secret-name question")
    session, agent = chat.id, chat.agent_id
    assert rows_with("secret-name") > 4
    run = mn.turns().run_id.iloc[-1]
    assert any(run == each.name for each in (paths.home() / "effects" / "done").iterdir())
    mentra(f"forget {short_id(session)}")
    assert "Deleted: 'secret-name question', 1 turn" in capsys.readouterr().out
    assert (rows_with("secret-name"), rows_with(session), rows_with(str(agent))) == (0, 0, 0)
    assert rows_with("kept") > 0
    assert not any(run == each.name for each in (paths.home() / "effects" / "done").iterdir())
    assert Path("secret-name.txt").exists()
    mentra("something new")
    assert mn.messages().text.tolist() == ["something new", "new"]
    with pytest.raises(OperationDenied, match="there is no conversation"):
        mentra(f"forget {session}")


def test_a_conversation_that_another_process_has_is_not_forgotten(mentra: Mentra) -> None:
    answers(text("one"))
    mentra("-s busy what?")
    chat = conversation("busy")
    session, agent, store = chat.id, chat.agent_id, engine().runtime.store
    chat.close()
    other = LeaseHolder.here("runtime-2")
    assert engine().call(store.acquire_lease, f"agent:{agent}", other, 60.0) is None
    with pytest.raises(LeaseUnavailable, match="busy"):
        mentra(f"forget {session}")
    with pytest.raises(LeaseUnavailable, match="in use"):
        engine().call(store.delete_conversation, session)
    assert mn.messages(session).text.tolist() == ["what?", "one"]


def test_an_id_is_asked_for_and_offered(mentra: Mentra, shell: Any) -> None:
    from mentra_nb.notebook.extension import _Names

    with pytest.raises(OperationDenied, match="which one"):
        mentra("forget")
    answers(text("one"))
    mentra("-s named what?")
    (found,) = stored_conversations()
    assert completions("%mentra forget s", _Names("s"))[0] == [short_id(found.session.id)]


# ---- export -----------------------------------------------------------------------------------------------------

HOSTILE = "Look: ![x](https://evil.example/p.png?d=1) <img src=x onerror=alert(1)>\n\n<script>alert(2)</script>\n"
KEY = "sk-ant-api03-" + "Ab3" * 30


def exported(mentra: Mentra, name: str) -> str:
    mentra(f"export {name}")
    return Path(name).read_text(encoding="utf-8")


def asked(mentra: Mentra) -> None:
    code = tool_calls([ScriptedCall("shell", {"command": "echo hello"}, "call-1")])
    said = f"{HOSTILE}\nIt costs $5, use `List<int>`.\n\n```html\n<b>![y](z)</b>\n```\nkey {KEY}"
    answers(code, text(said), text("2"))
    mn.allow("shell", "echo *")
    mentra("say <b>hello</b>")
    mentra("and then?")


def test_markdown_has_everything_and_fetches_nothing(mentra: Mentra) -> None:
    asked(mentra)
    made = exported(mentra, "talk.md")
    tokens = [child for token in MarkdownIt("commonmark").parse(made) for child in [token, *(token.children or ())]]
    assert not {token.type for token in tokens} & {"image", "html_inline", "html_block"}
    for part in ("> say \\<b>hello\\</b>", "echo hello", "\nhello", "use `List<int>`", "<b>![y](z)</b>", "> and then?"):
        assert part in made
    assert KEY not in made
    assert stat.S_IMODE(Path("talk.md").stat().st_mode) == 0o600


def test_a_file_is_replaced_only_if_that_is_said(mentra: Mentra) -> None:
    asked(mentra)
    Path("talk.md").write_text("mine")
    with pytest.raises(OperationDenied, match="is there already: name another file, or add --overwrite"):
        mentra("export talk.md")
    assert [each.name for each in Path().iterdir()] == ["talk.md"]
    assert Path("talk.md").read_text() == "mine"
    mentra("export talk.md --overwrite")
    assert Path("talk.md").read_text().startswith("# Conversation")
    mentra('export "a talk.jsonl"')
    assert Path("a talk.jsonl").exists()
    with pytest.raises(OperationDenied, match="where to"):
        mentra("export")


def test_a_notebook_is_valid_and_its_code_is_what_ran(mentra: Mentra) -> None:
    import nbformat

    code = "print(1 + 1)"
    answers(tool_calls([ScriptedCall("python", {"code": code}, "call-1")]), text(HOSTILE))

    @mn.tool(asks=False)
    def python(code: str) -> str:
        "Run code."
        return "2"

    mn.ask("count", tools=[python])
    made = exported(mentra, "talk.ipynb")
    notebook: Any = nbformat.reads(made, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells][:2] == [("markdown", "> count"), ("code", code)]
    assert notebook.cells[1].outputs[0].text == "2"
    assert "<img" not in notebook.cells[2].source.replace("\\<img", "")


def test_lines_are_the_messages_without_secrets(mentra: Mentra) -> None:
    asked(mentra)
    made = exported(mentra, "talk.jsonl")
    rows = [json.loads(line) for line in made.splitlines()]
    assert [row["role"] for row in rows] == ["user", "assistant", "user", "assistant", "user", "assistant"]
    assert [row["entry_id"] for row in rows] == mn.messages().entry_id.tolist()
    assert rows[1]["content"][0]["input"] == {"command": "echo hello"}
    assert KEY not in made


def test_before_the_first_question_there_is_nothing_to_export(mentra: Mentra) -> None:
    with pytest.raises(OperationDenied, match="nothing was asked here yet"):
        mentra("export talk.md")
    answers(text("one"))
    mentra("what?")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        mentra("export /proc/talk.md")


@pytest.mark.parametrize(
    "hostile",
    [
        "![a](b)",
        "a\n![a][b]\n\n[b]: https://evil.example/x",
        "- <details open ontoggle=alert(1)>\n  text",
        "<!-- ![a](b) -->\n![a](b)",
        "| a | b |\n|---|---|\n| ![a](b) | <img src=x> |",
        "`<b>` and <b>",
        "> > <script>\n> > x",
        "[![a](https://x/y)](https://z)",
        "<![CDATA[ <b> ]]>",
        "<?php echo 1 ?>",
        "\\\\<b>",
        "!\\[a](b) ![c](d)",
        "***<a href='javascript:1'>***",
        "<div>\n\n![a](b)\n\n</div>",
        "    code <b>\n\n<b>",
        "\\![a](b)",
        "\\\\![a](b)",
    ],
)
def test_no_image_and_no_raw_html_is_left_in_an_export(hostile: str) -> None:
    parser = MarkdownIt("commonmark").enable("table")
    made = inert(hostile)
    kinds = {child.type for token in parser.parse(made) for child in [token, *(token.children or ())]}
    assert not kinds & {"image", "html_inline", "html_block"}
    assert inert(made) == made


def test_line_ends_of_windows_are_ordinary_ones() -> None:
    assert inert("a\r\n![x](y)\r\n") == "a\n!\\[x](y)\n"


def test_harmless_text_is_exported_as_it_is() -> None:
    said = "# A\n\n- *b* `List<int>`, 1 < 2, $5\n\n```html\n<b>![x](y)</b>\n```\n\n| a |\n|---|\n| 1 |\n\n<https://a.example>"
    assert inert(said) == said


# ---- diff -------------------------------------------------------------------------------------------------------


def test_the_files_of_the_last_turn_are_shown_as_a_diff(mentra: Mentra) -> None:
    Path("old.txt").write_text("a\nb\nc\n")
    Path("bytes").write_bytes(b"\0\1")
    mn.allow("write")
    more = {"path": "old.txt", "content": "a\nB\nc\nd\n"}, {"path": "old.txt", "content": "a\nB\nc\n"}
    calls = [ScriptedCall("write", each, f"call-{n}") for n, each in enumerate(more)]
    answers(
        tool_calls(calls[:1]),
        tool_calls(calls[1:]),
        writes("new.txt", "hello\n", "call-8"),
        writes("bytes", "text", "call-9"),
        text("Done."),
        text("No tools."),
    )
    mentra("change")
    mentra("what else?")  # changes nothing
    shown = str(mentra("diff"))
    assert set(re.findall(r"^(?:created|changed) .*", shown, re.MULTILINE)) == {
        "changed bytes: not text, or too long to compare",
        "created new.txt  +1 −0",
        "changed old.txt  +1 −1",
    }
    assert "-b\n+B\n c" in shown
    assert "+d" not in shown
    bundle = mentra("diff")._repr_mimebundle_()
    assert "<pre" in bundle["text/html"]
    mentra("undo")
    with pytest.raises(OperationDenied, match="nothing to undo"):
        mentra("diff")
    assert Path("old.txt").read_text() == "a\nb\nc\n"


def test_a_file_that_was_changed_since_is_named(mentra: Mentra) -> None:
    mn.allow("write")
    answers(writes("note.txt", "one\n"), text("Done."))
    mentra("change")
    Path("note.txt").write_text("mine\n")
    assert str(mentra("diff")) == "left as it is, since it was changed after the turn: note.txt"


def test_the_name_of_a_file_cannot_look_like_a_line_of_a_diff(mentra: Mentra) -> None:
    mn.allow("write")
    answers(writes("a\n-gone.txt", "````\n# <b>\u202e\x1b[31m\n"), text("Done."))
    mentra("change")
    bundle = mentra("diff")._repr_mimebundle_()
    assert bundle["text/plain"].splitlines()[0] == "created a␊-gone.txt  +2 −0"
    assert not re.search(r"[\x1b\u202e]", bundle["text/plain"])
    assert "<b>" not in bundle["text/html"]
    assert bundle["text/html"].count("<pre") == 1
