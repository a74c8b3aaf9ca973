"""`%load_ext mentra_nb`, `%mentra` and `%%mentra` in real kernels."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from kits.kernels import Cell, Kernel, overlay
from kits.notebooks import Notebook, written
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.kernel

REGISTERED = """
import json
def registered():
    shell = get_ipython()
    return [
        *(f"{kind} {name}" for kind in ("line", "cell") for name in sorted(shell.magics_manager.magics[kind])),
        *sorted(shell.magics_manager.registry),
        *(type(one).__name__ for one in shell.configurables),
        *(repr(one) for one in shell.input_transformers_cleanup + shell.input_transformers_post),
        *(repr(one) for one in shell.Completer.custom_matchers),
        *(repr(one) for callbacks in shell.events.callbacks.values() for one in callbacks),
        *(repr(one) for one in shell.display_formatter.ipython_display_formatter.deferred_printers),
        *(repr(one) for one in shell.display_formatter.ipython_display_formatter.type_printers),
        *sorted(name for name in shell.user_ns if "mentra" in name),
    ]
"""


def one_sentence(cell: Cell) -> str:
    """Return the one line a failed cell shows, and check that there is no traceback."""
    assert cell.status == "error"
    assert not cell.texts().strip()  # a living line that was shown is empty again
    assert not cell.stdout
    said = [line for line in (cell.stderr + cell.error).splitlines() if line.strip()]
    assert len(said) == 1, said
    return said[0]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ---- loading ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["7", "6"])
def bare(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """Start a kernel in which the package has not been imported."""
    home = tmp_path_factory.mktemp("bare") / "home"
    running = Kernel(overlay(request.param), MENTRA_HOME=str(home))
    yield running
    running.close()


HEAVY = ("pandas", "duckdb", "anywidget", "ipywidgets", "httpx", "mentra_nb.chat.engine", "mentra_nb.record.read")


def test_loading_is_silent_light_and_taken_back_whole(bare: Kernel) -> None:
    bare.run("%load_ext storemagic\n" + REGISTERED)  # the first `%load_ext` registers an object of IPython
    before = json.loads(bare.run("print(json.dumps(registered()))").stdout)
    bare.run("import sys; modules = set(sys.modules)")
    loading = bare.run("%load_ext mentra_nb")
    assert [kind for kind, _ in loading.events] == ["execute_input"]
    assert bare.run(f"print({{*{HEAVY}}} & (set(sys.modules) - modules))").stdout == "set()\n"
    loaded = json.loads(bare.run("print(json.dumps(registered()))").stdout)
    assert set(loaded) - set(before) >= {"line mentra", "cell mentra", "Mentra"}
    for again in ("%load_ext mentra_nb", "%reload_ext mentra_nb"):
        assert bare.run(again).status == "ok"
        assert sorted(json.loads(bare.run("print(json.dumps(registered()))").stdout)) == sorted(loaded), again
    assert bare.run("%unload_ext mentra_nb").status == "ok"
    after = json.loads(bare.run("print(json.dumps(registered()))").stdout)
    assert sorted(set(after) ^ set(before)) == []
    assert bare.run("import os; print(os.path.exists(os.environ['MENTRA_HOME']))").stdout == "False\n"
    assert (
        bare.run("import threading; print([t.name for t in threading.enumerate() if 'mentra' in t.name])").stdout
        == "[]\n"
    )


# ---- asking -----------------------------------------------------------------------------------------------------


def test_a_line_asks_and_the_answer_is_shown_once(notebook: Notebook) -> None:
    notebook.script("s.text('Hello **there**.', usage=TokenUsage(input_tokens=1200, output_tokens=30))")
    cell = notebook.run("%mentra what now?")
    assert cell.status == "ok"
    assert cell.texts().count("Hello **there**.") == 1
    assert "scripted/scripted · 1.2k in / 30 out" in cell.texts()
    assert not [kind for kind, _ in cell.events if kind == "execute_result"]
    assert notebook.said() == ["what now?"]
    assert notebook.run("_mentra.text").texts() == ""
    assert notebook.value("[_mentra.text, _mentra.model, _mentra.usage.input_tokens, _mentra.stop_reason]") == [
        "Hello **there**.",
        "scripted/scripted",
        1200,
        "end",
    ]


def test_a_typed_reply_is_shown_as_its_value(notebook: Notebook) -> None:
    notebook.script("s.text('ok')")
    notebook.run("import dataclasses; reply = mn.ask('Where?')")
    cell = notebook.run("dataclasses.replace(reply, value=['Oslo'])")
    assert "['Oslo']" in cell.texts()
    assert "ok" not in cell.texts()


def test_a_cell_asks_with_the_rest_of_its_first_line(notebook: Notebook) -> None:
    notebook.script("s.text('A.')", "s.text('B.')")
    assert "A." in notebook.run("%%mentra Look at this:\nfirst\n  second\n").texts()
    assert notebook.said() == ["Look at this:\nfirst\n  second"]
    assert "B." in notebook.run("%%mentra\nand now?").texts()
    assert notebook.said()[-1] == "and now?"


@pytest.mark.parametrize(
    "prompt", ['explain {"a": 1} and $HOME and {x}', "is $5 {more} than \\n?", "what is -m for?", "undo the sort"]
)
@pytest.mark.parametrize("magic", ["%mentra {}", "%%mentra\n{}"])
def test_a_prompt_is_literal(notebook: Notebook, magic: str, prompt: str) -> None:
    notebook.script("s.text('A.')")
    notebook.run("x = 'filled in'")
    assert notebook.run(magic.replace("{}", prompt)).status == "ok"
    assert notebook.said() == [prompt]


@pytest.mark.parametrize(
    "code",
    [
        "%mentra what is x?",
        "reply = %mentra what is x?",
        "# a remark\n%mentra what is x?",
        "if True:\n    %mentra what is x?",
        "%mentra what is x?\n\n",
    ],
)
def test_a_question_that_ends_in_a_question_mark_is_asked(notebook: Notebook, code: str) -> None:
    notebook.script("s.text('A.')")
    notebook.run("x = 1")
    assert notebook.run(code).status == "ok"
    assert notebook.said() == ["what is x?"]


def test_a_question_inside_a_text_is_left_alone(notebook: Notebook) -> None:
    text = "a\n%mentra what is x?\nb"
    assert notebook.value(f'"""{text}"""') == text


def test_help_is_still_help(notebook: Notebook) -> None:
    for code in ("%mentra?", "?%mentra", "%%mentra?"):
        reply = notebook.run(code).reply
        assert reply is not None
        shown = reply["payload"][0]["data"]["text/plain"]
        assert [word for word in ("rules [revoke N or ID", "-m, --model NAME") if word not in shown] == []
    assert "--model" in notebook.run("%mentra help").stdout


def test_a_reply_stored_under_a_name_is_not_printed_again(notebook: Notebook) -> None:
    notebook.script("s.text('A.')", "s.text('B.')", "s.text('C.')")
    for code in ("%mentra -o answer what now?", "%%mentra --out answer\nwhat now?", "answer = %mentra what now?"):
        cell = notebook.run(code)
        assert [kind for kind, _ in cell.events if kind not in ("display_data", "update_display_data")] == [
            "execute_input"
        ]
        assert notebook.value("answer is _mentra")
        assert notebook.value("answer.text") in cell.texts()


def test_a_reply_shows_itself_when_it_is_asked_for_again(notebook: Notebook) -> None:
    notebook.script("s.text('Said **once**.')")
    assert notebook.run("reply = mn.ask('what now?')\nreply").texts().count("Said **once**.") == 1
    assert notebook.run("reply").texts() == "Said **once**."
    assert notebook.run("reply").texts() == "Said **once**."
    assert notebook.run("%mentra last").texts() == "Said **once**."


def test_an_answer_is_shown_again_with_the_numbers_its_code_had(notebook: Notebook) -> None:
    first, second = "First:\n\n```\na\n```", "Second:\n\n```\nb\n```"
    notebook.script(f"s.tool_calls([('read', {{'path': '.'}})], text={first!r})", f"s.text({second!r})")
    notebook.run("reply = mn.ask('what now?')")

    def shown(code: str) -> list[tuple[str, str]]:
        return [
            (each["text/plain"], "".join(re.findall(r"<span>(\[\d\])</span>", each["text/html"])))
            for each in notebook.run(code).outputs()
        ]

    assert shown("reply") == [(second, "[2]")]
    assert shown("%mentra last") == [(first, "[1]"), (second, "[2]")]


def test_two_questions_in_one_cell_are_one_conversation(notebook: Notebook) -> None:
    notebook.script("s.text('One.')", "s.text('Two.')")
    cell = notebook.run("first = mn.ask('1?')\nsecond = mn.ask('2?')")
    assert cell.status == "ok"
    assert cell.texts().index("One.") < cell.texts().index("Two.")
    assert notebook.said() == ["1?", "One.", "2?"]
    turns = notebook.value("mn.turns().tail(2)[['prompt', 'stop_reason', 'execution_count']].values.tolist()")
    count = cell.reply["execution_count"] if cell.reply else None
    assert turns == [["1?", "end", count], ["2?", "end", count]]


def test_a_function_of_the_notebook_is_a_tool(notebook: Notebook) -> None:
    notebook.script("s.tool_calls([('revenue', {'month': '2026-03'})])", "s.text('It was 12.5.')")
    notebook.run(
        "@mn.tool(asks=False, reads_only=True)\n"
        "def revenue(month: str) -> float:\n    'Total of a month.'\n    return 12.5"
    )
    cell = notebook.run("%%mentra -t revenue\nhow much?")
    assert cell.status == "ok"
    assert "✓ revenue" in cell.texts()
    assert notebook.said()[-1] == "12.5"
    assert notebook.value("[t.name for t in _mentra.tools]") == ["revenue"]


# ---- looking back -----------------------------------------------------------------------------------------------


def test_usage_and_decisions_are_in_the_record_at_once(notebook: Notebook) -> None:
    usage = "usage=TokenUsage(input_tokens=100, output_tokens=7)"
    notebook.script("s.tool_calls([('read', {'path': 'notes.txt'})])", f"s.text('A.', {usage})")
    turns = notebook.value("len(mn.decisions())"), notebook.value("len(mn.turns())")
    assert notebook.run("%mentra what is here?").status == "ok"
    assert notebook.value("mn.turns()[['input_tokens', 'output_tokens']].iloc[-1].tolist()") == [100, 7]
    table = notebook.run("usage = %mentra usage\nusage")
    assert "scripted" in json.dumps([content["data"] for kind, content in table.events if kind == "execute_result"])
    assert notebook.value("int(usage.input_tokens.sum()) >= 100")
    assert notebook.run("%mentra usage --by day").status == "ok"
    assert notebook.value("len(mn.decisions())") == turns[0] + 1
    assert notebook.value("len(mn.turns())") == turns[1] + 1
    decided = notebook.value("mn.decisions().iloc[-1][['tool', 'outcome', 'decided_by']].tolist()")
    assert decided == ["read", "allow", "setting"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("%mentra", ["scripted/scripted", "%mentra help"]),
        ("%mentra model", ["scripted/scripted"]),
        ("%mentra tools", ["shell", "read"]),
        ("%mentra rules", ["rule"]),
        ("%mentra config", ["ask_timeout", "default"]),
        ("%mentra check", ["clicks while a cell runs", "state store", "record"]),
        ("%mentra log", ["decision"]),
        ("%mentra log select 40 + 2 as answer", ["42"]),
        ("%mentra help usage  # what was that?", ["--by"]),
    ],
)
def test_a_subcommand_answers_and_asks_no_model(notebook: Notebook, code: str, words: list[str]) -> None:
    notebook.script()
    cell = notebook.run(code)
    assert cell.status == "ok"
    shown = cell.stdout + json.dumps([content.get("data") for _, content in cell.events])
    assert [word for word in words if word not in shown] == []
    assert notebook.value("len(model.recorded_requests)") == 0


def test_a_rule_is_completed_and_revoked_by_its_short_id(notebook: Notebook) -> None:
    short = notebook.value("mn.allow('shell', 'ls *').id[-6:]")
    code = "%mentra rules revoke "
    content = notebook.request("complete_request", {"code": code, "cursor_pos": len(code)})["content"]
    assert f"rule-{short}" in content["matches"]
    assert notebook.run(f"{code}rule-{short}").stdout == "Revoked: allow shell ls *\n"
    assert not notebook.value("mn.rules().id.str.endswith(" + repr(short) + ").any().item()")


# ---- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("%mentra -m nobody/m what now?", "there is no provider 'nobody'"),
        ("%mentra -m nothing what now?", "openai/nothing"),
        ("%mentra -m openai/gpt-5 what now?", "OPENAI_API_KEY"),
        ("%%mentra -z\nwhat now?", "there is no option -z"),
        ("%mentra --modle x what now?", "did you mean --model?"),
        ("%%mentra -m\nwhat now?", "-m needs a value"),
        ("%mentra uasge", "did you mean %mentra usage?"),
        ("%mentra -q", "there is nothing to ask"),
        ("%%mentra\n  \n", "there is nothing to ask"),
        ("%mentra -o 2fast what now?", "-o needs a Python name, not '2fast'"),
        ("%mentra -o class what now?", "-o needs a Python name, not 'class'"),
        ("%mentra -t nothing_here what now?", "there is no 'nothing_here' in this notebook"),
        ("%mentra -t __name__ what now?", "'__name__' is a str, not a function"),
        ("%mentra model nobody/m", "there is no provider 'nobody'"),
        ("%mentra usage by colour", "usage cannot be grouped by 'colour'"),
        ("%mentra log select * from nowhere", "nowhere"),
        ("%mentra log select 1; select 2", "one SELECT"),
        ("%mentra rules revoke rule-1", "%mentra rules lists them"),
        ("%mentra allow", "no question is open"),
        ("%mentra deny because I say so", "no question is open"),
        ("%mentra stop", "no turn is running"),
        ("%mentra last", "there is no answer yet"),
        ("%mentra diff", "nothing to undo"),
        ("%mentra export talk.md", "nothing was asked here yet"),
        ("mn.ask('what now?', model='nobody/m')", "there is no provider 'nobody'"),
        ("mn.ask('')", "nothing to ask"),
        ("mn.ask('what now?', tools=[3])", "3"),
        ("mn.connect('mine', 'localhost:1')", "http://"),
        ("mn.replay('nowhere.jsonl')", "mn.tape"),
        ("mn.allow('shell', scope='everywhere')", "everywhere"),
    ],
)
def test_bad_input_gets_one_sentence_and_leaves_nothing_behind(notebook: Notebook, code: str, words: str) -> None:
    notebook.script()
    before = written(notebook.home)
    sentence = one_sentence(notebook.run(code))
    assert words in sentence
    assert len(sentence) < 300
    assert written(notebook.home) == before
    assert notebook.value("len(model.recorded_requests)") == 0
    notebook.script("s.text('All is well.')")
    assert "All is well." in notebook.run("%mentra and now?").texts()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ask_timeout", 0, "greater than 0"),
        ("ask", "never", "['always', 'changes', 'rules']"),
        ("stream_hz", 500, "less than or equal to 20"),
        ("stream_hz", "fast", "float"),
        ("model", "nope/x", "there is no provider 'nope'"),
        ("model", "openai/gpt-5", "OPENAI_API_KEY"),
    ],
)
def test_a_bad_setting_is_one_sentence_and_is_not_taken(
    notebook: Notebook, name: str, value: object, words: str
) -> None:
    now = f"[engine().settings.{name}, get_ipython().magics_manager.registry['Mentra'].{name}]"
    before = notebook.value(now)
    cell = notebook.run(f"%config Mentra.{name} = {value!r}")  # an error of this magic is printed, not raised
    assert len(cell.stderr.splitlines()) == 1
    assert words in cell.stderr
    assert notebook.value(now) == before
    good = notebook.run("%config Mentra.log_text = 'full'\n%config Mentra.log_text = 'preview'")
    assert not good.stderr


def test_a_server_that_is_not_there_is_named_and_the_turn_is_on_record(notebook: Notebook) -> None:
    port = closed_port()
    notebook.run(f"mn.connect('mine', 'http://127.0.0.1:{port}/v1', model='m')")
    turns = notebook.value("len(mn.turns())")
    asked = notebook.run("%mentra what now?")
    line = asked.error
    assert "\n" not in line
    assert line.startswith("FailedToStreamResponse: mine/m failed: could not connect to 127.0.0.1:")
    assert f":{port} " in line
    assert line.endswith("is the server running and reachable from here? · %mentra resume goes on")
    assert [shown for shown in asked.texts().splitlines() if "could not connect" in shown][1:] == []  # of the retry
    assert notebook.value("len(mn.turns())") == turns + 1
    assert notebook.value("mn.turns()[['prompt', 'stop_reason']].iloc[-1].tolist()") == ["what now?", "error"]


def test_malformed_arguments_are_reported_to_the_model_and_the_turn_goes_on(notebook: Notebook) -> None:
    notebook.script("s.tool_calls([s.ScriptedCall('shell', '{\"command\": ')])", "s.text('I see.')")
    cell = notebook.run("%mentra what now?")
    assert cell.status == "ok"
    assert "I see." in cell.texts()
    assert "not a JSON object" in notebook.said()[-1]
    assert notebook.value("mn.decisions().iloc[-1][['outcome', 'decided_by']].tolist()") == ["invalid", "runtime"]


# ---- completion -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("%mentra us", ["usage"]),
        ("%%mentra --mo", ["--model"]),
        ("%mentra -", ["--model", "--out", "-m"]),
        ("%%mentra -t reve", ["revenue"]),
        ("%mentra -o a -t reve", ["revenue"]),
        ("%mentra help al", ["allow"]),
        ("%mentra usage --by mo", ["model"]),
        ("x = 1\n%mentra us", ["usage"]),
    ],
)
def test_completion(notebook: Notebook, code: str, found: list[str]) -> None:
    notebook.run("def revenue(): pass")
    content = notebook.request("complete_request", {"code": code, "cursor_pos": len(code)})["content"]
    assert content["status"] == "ok"
    assert [name for name in found if name not in content["matches"]] == []
    assert code[: content["cursor_start"]] + found[0] == code.rpartition(" ")[0] + " " + found[0]
    fragment = code.rpartition(" ")[2]
    assert [match for match in content["matches"] if not match.startswith(fragment)] == []


# ---- nobody there -----------------------------------------------------------------------------------------------


def test_where_nobody_can_be_asked_a_command_is_denied_and_one_line_says_how_to_allow_it(notebook: Notebook) -> None:
    marker = Path(notebook.work) / "made"
    notebook.script(f"shell('touch {marker}')", "s.text('I could not.')")
    cell = notebook.run("%mentra make it", allow_stdin=False)
    assert cell.status == "ok"
    assert "I could not." in cell.texts()
    how = f"mn.allow('shell', pattern='touch {marker}')"
    assert [how in line for line in cell.texts().splitlines()].count(True) == 1
    assert not marker.exists()
    assert notebook.value("mn.decisions().iloc[-1][['tool', 'outcome', 'decided_by']].tolist()") == [
        "shell",
        "deny",
        "headless",
    ]
    notebook.run(how)
    notebook.script(f"shell('touch {marker}', 'call-2')", "s.text('I did.')")
    cell = notebook.run("%mentra make it", allow_stdin=False)
    assert "✓ shell" in cell.texts()
    assert marker.exists()
    assert notebook.value("mn.decisions().iloc[-1].decided_by") == "rule"
    assert notebook.value("int(mn.rules().times_used.iloc[0])") == 1


def test_a_stored_reply_shows_itself_at_the_first_look(notebook: Notebook) -> None:
    notebook.script("s.text('A.')", "s.text('B.')", "s.text('C.')")
    notebook.run("%mentra -o answer what now?")
    assert notebook.run("answer").texts() == "A."
    notebook.run("stored = mn.ask('and?')")
    assert notebook.run("stored").texts() == "B."
    assert notebook.run("import copy; copy.deepcopy(stored)").texts() == "B."
    notebook.run("%mentra what now?")
    assert notebook.run("_mentra").texts() == "C."


def test_the_model_is_one_setting_and_the_last_who_set_it_wins(notebook: Notebook) -> None:
    notebook.script("s.text('A.')")
    notebook.run("mn.allow('shell')")  # for the demo model
    shown = "engine().settings.model, engine().settings.source('model')"
    calls = "mn.connect, mn.replay, mn.tape or mn.use"
    for code, found in (
        ("%mentra model scripted/scripted", ["scripted/scripted", "%mentra model"]),
        ("%config Mentra.model = 'demo'", ["demo", "%config Mentra"]),
        ("mn.connect('lab', 'http://127.0.0.1:9/v1', model='m')", ["lab/m", calls]),
        ("%config Mentra.model = 'demo'", ["demo", "%config Mentra"]),
    ):
        notebook.run(code)
        assert notebook.value(f"[{shown}]") == found
        assert notebook.run("%mentra model").stdout == f"{found[0]}\n"
    assert notebook.ask().status == "ok"
    assert notebook.value("_mentra.model") == "demo/demo"


@pytest.mark.parametrize(
    "setting", ["ask_timeout = -3", "ask = 'never'", "model = 5", "stream_hz = 100", "redact = ['(']"]
)
def test_a_refused_setting_does_not_cost_the_magic(notebook: Notebook, setting: str) -> None:
    name = setting.split()[0]
    try:
        assert name in notebook.run(f"%config Mentra.{setting}").stderr
        notebook.run(f"get_ipython().config.Mentra.{setting}")
        cell = notebook.run("%reload_ext mentra_nb")
        assert cell.status == "ok"
        assert f"Mentra.{name} = " in cell.stderr
        assert "is ignored" in cell.stderr
        assert notebook.run("%mentra help").stdout
    finally:
        notebook.run("get_ipython().config.pop('Mentra', None)")
        notebook.run("%reload_ext mentra_nb")


@pytest.mark.parametrize(
    ("answer", "reason", "advice"),
    [
        ("s.message([s.text_block(0, ['Half'])], 'max_tokens')", "limit of tokens", "ask it to go on"),
        ("s.message([s.text_block(0, ['No'])], 'refusal')", "refused", "other words"),
        ("s.message([s.text_block(0, ['No'])], 'content_filter')", "content filter", "other words"),
        ("s.text('')", "empty", "-m"),
        ("s.message([s.text_block(0, [''])], 'max_tokens')", "empty: cut off at the limit", "ask it to go on"),
    ],
)
def test_an_answer_that_is_not_whole_says_why_and_what_to_do(
    notebook: Notebook, answer: str, reason: str, advice: str
) -> None:
    notebook.script(answer, "s.text('Whole.')")
    line = next(text for text in notebook.ask().texts().splitlines() if text.startswith("⚠"))
    assert reason in line
    assert advice in line
    assert "⚠" not in notebook.ask().texts()


def test_asking_without_loading_the_extension_shows_the_turn_and_can_ask(bare: Kernel) -> None:
    code = "import mentra_nb as mn\nmn.allow('shell')\nreply = mn.ask('hi', model='demo')"
    assert [kind for kind, _ in bare.run(code).events if kind == "display_data"]
    assert bare.run("from mentra_nb.chat.turn import presenter; print(presenter() is not None)").stdout == "True\n"
    assert bare.run("reply").texts()


def test_an_automatic_run_holds_the_reason_of_a_failed_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "home"))
    cells = [new_code_cell("%load_ext mentra_nb"), new_code_cell("%mentra -m nobody/m what now?")]
    book = new_notebook(cells=cells)
    with pytest.raises(CellExecutionError) as failed:  # its text is what papermill and nbconvert print
        NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "ConfigurationError: there is no provider 'nobody'; known are" in str(failed.value)
    [output] = cells[1].outputs
    assert output.output_type == "error"
    assert len(output.traceback) == 1


def test_nested_asyncio_is_refused_only_where_it_loses_cells(notebook: Notebook) -> None:
    said = notebook.run("%config Mentra.nested_asyncio = True").stderr
    if notebook.value("__import__('ipykernel').version_info[0]") >= 7:
        assert said.strip().endswith("it loses queued cells: await instead of asyncio.run")
        assert notebook.run("import asyncio; await asyncio.sleep(0, 'slept')").status == "ok"
    assert notebook.value("engine().settings.nested_asyncio") is (said == "")
