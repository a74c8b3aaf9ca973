"""`%mentra jobs` and `%mentra stop --all`: what runs in the background, for a person."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mentra_nb as mn
from mentra_nb.chat import engine
from mentra_nb.errors import OperationDenied
from mentra_nb.notebook.commands.command import Context
from mentra_nb.notebook.grammar import parse
from mentra_nb.notebook.typed import parse_answer
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls

CONTEXT = Context({}, show=pytest.fail)
SLEEPS, ENDS = "echo begun; sleep 600", "echo THE-REASON; exit 3"


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two background commands of the notebook's conversation, of which the second has ended."""
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    engine.reset()
    calls = tool_calls([("background_run", {"command": command}) for command in (SLEEPS, ENDS)])
    used = engine.engine()
    used.use(ScriptedProvider([calls, text("ok")]), "scripted")
    for pattern in ("echo *", "sleep *", "exit *"):
        mn.allow("background_run", pattern)
    mn.ask("go")
    [agent_id] = used.runtime.jobs.agents()
    used.call(used.runtime.jobs.wait, agent_id, "bg-2")
    while "begun" not in Path(used.runtime.jobs.get(agent_id, "bg-1").output_path or "").read_text():
        time.sleep(0.01)
    yield
    engine.reset()


def run(line: str) -> Any:
    parsed = parse(line)
    assert parsed.command is not None
    return parsed.command.run(CONTEXT, parsed.words)


@pytest.mark.usefixtures("started")
def test_the_frame_has_each_command_and_how_it_ended(tmp_path: Path) -> None:
    frame = mn.jobs()
    assert frame.command.tolist() == [SLEEPS, ENDS]
    assert frame.status.tolist() == ["running", "failed"]
    assert frame.output.tolist() == ["begun", "THE-REASON [exit status 3]"]
    assert frame.conversation.tolist() == ["this notebook"] * 2
    assert frame.id.tolist() == ["bg-1", "bg-2"]
    assert set(frame.cwd) == {str(tmp_path)}
    assert str(frame.started_at.dtype) == "datetime64[us, UTC]"
    assert all(0 <= seconds < 60 for seconds in frame.seconds)
    assert Path(frame.output_path[1]).read_text() == "THE-REASON\n\n[exit status 3]\n"


@pytest.mark.usefixtures("started")
def test_a_person_reads_the_table_and_stops_one(capsys: pytest.CaptureFixture[str]) -> None:
    shown = repr(run("jobs"))
    assert max(map(len, shown.splitlines())) <= 80
    assert "running" in shown
    assert "failed" in shown
    with pytest.raises(OperationDenied, match="which one"):
        run("jobs stop")
    with pytest.raises(OperationDenied, match="is not running: it is failed"):
        run("jobs stop 2")
    with pytest.raises(OperationDenied, match="there is no background command 'bg-9'"):
        run("jobs stop bg-9")
    capsys.readouterr()
    run("jobs stop 1")
    assert capsys.readouterr().out == f"Stopped: {SLEEPS}\n"
    assert mn.jobs().status.tolist() == ["interrupted", "failed"]
    assert mn.jobs().output[0] == "stopped by the user"


@pytest.mark.usefixtures("started")
def test_all_are_stopped_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OperationDenied, match="Background commands: %mentra stop --all"):
        run("stop")
    capsys.readouterr()
    run("stop --all")
    assert capsys.readouterr().out == "1 background command stopped\n"
    assert mn.jobs().status.tolist() == ["interrupted", "failed"]


@pytest.mark.usefixtures("started")
def test_they_end_with_the_engine() -> None:
    used = engine.engine()
    [agent_id] = used.runtime.jobs.agents()
    engine.reset()
    assert [job.status for job in used.runtime.jobs.of(agent_id)] == ["interrupted", "failed"]


def test_stop_all_is_an_answer_too() -> None:
    assert parse_answer("%mentra stop --all") == "stop all"
    assert parse_answer("%mentra stop") == "stop"


def test_a_command_gets_the_variables_that_the_settings_name_from_the_next_turn_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINE", "for-commands")
    monkeypatch.setenv("OTHER", "not-for-commands")
    engine.reset()
    try:
        used, command = engine.engine(), tool_calls([("shell", {"command": "env"})])
        provider = ScriptedProvider([command, text("ok"), command, text("ok")])
        used.use(provider, "scripted")
        mn.allow("shell", "env")
        for names in ((), ("MINE",)):
            used.settings.change("shell_env", names, "a test")
            mn.ask("go")
            given = provider.recorded_requests[-1].messages[-1].tool_results()[0].display()
            assert ("MINE=for-commands" in given) is bool(names)
            assert "not-for-commands" not in given
    finally:
        engine.reset()
