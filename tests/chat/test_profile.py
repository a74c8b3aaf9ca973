"""The setting `tool_profile`: which tools a model is offered, and that a call of another one is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mentra_nb.chat.chat import Chat, chat_on
from mentra_nb.chat.engine import Engine
from mentra_nb.content import ToolResult
from mentra_nb.errors import ConfigurationError
from mentra_nb.event.bus import NullAudit
from mentra_nb.event.screen import Notice
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.setting_files import load
from mentra_nb.settings import Settings
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.profile import allows

ALL = ["background_run", "check_background", "files", "read", "shell", "stop_background", "write"]


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider([text(str(n)) for n in range(5)])


@pytest.fixture
def engine(provider: ScriptedProvider) -> Iterator[Engine]:
    runtime = Runtime([provider], policy=RuntimePolicy.for_notebook(), store=VolatileStore(), audit=NullAudit())
    made = Engine(Settings(model="scripted/scripted", ask="rules"), runtime)
    yield made
    made.close()


@pytest.fixture
def chat(engine: Engine) -> Chat:
    return chat_on(engine, "talk")


def act() -> str:
    """Act."""
    return "acted"


def offered(provider: ScriptedProvider) -> list[str]:
    return [tool.name for tool in provider.recorded_requests[-1].tools]


@pytest.mark.parametrize(
    ("profile", "names"),
    [
        ([], ALL),
        (["*"], ALL),
        (["read", "files"], ["files", "read"]),
        (["*background*"], ["background_run", "check_background", "stop_background"]),
        (["-shell", "-*background*"], ["files", "read", "write"]),
        (["read", "shell", "-shell"], ["read"]),
        (["-shell", "shell"], []),
        (["none"], []),
    ],
)
def test_a_profile_says_which_tools_are_offered(
    engine: Engine, chat: Chat, provider: ScriptedProvider, profile: list[str], names: list[str]
) -> None:
    engine.settings.change("tool_profile", profile, "test")
    chat.ask("hello")
    assert offered(provider) == names


def test_another_profile_holds_from_the_next_turn_on_and_none_offers_all(
    engine: Engine, chat: Chat, provider: ScriptedProvider
) -> None:
    for profile, names in (["read"], ["read"]), (["-read"], [n for n in ALL if n != "read"]), ([], ALL):
        engine.settings.change("tool_profile", profile, "test")
        chat.ask("hello")
        assert offered(provider) == names


def test_the_functions_that_a_person_gives_are_offered_whatever_the_profile(
    engine: Engine, chat: Chat, provider: ScriptedProvider
) -> None:
    engine.settings.change("tool_profile", ["read", "-act"], "test")
    chat.ask("hello", tools=[act])
    assert offered(provider) == ["act", "read"]
    chat.ask("hello")
    assert offered(provider) == ["read"]


def test_a_tool_that_comes_later_is_judged_too(engine: Engine, chat: Chat, provider: ScriptedProvider) -> None:
    engine.settings.change("tool_profile", ["-act"], "test")
    chat.ask("hello")
    engine.runtime.register_tool(act)
    chat.ask("hello")
    assert offered(provider) == ALL


def test_a_call_of_a_tool_that_is_not_offered_is_refused(tmp_path: Path) -> None:
    calls = tool_calls([("write", {"path": str(tmp_path / "note"), "content": "x"})])
    runtime = Runtime(
        [ScriptedProvider([calls, text("done")])], store=VolatileStore(), audit=NullAudit(), working_directory=tmp_path
    )
    engine = Engine(Settings(model="scripted/scripted", tool_profile=("-write",)), runtime)
    try:
        chat = chat_on(engine, "talk")
        chat.allow("write", "*")
        chat.ask("write")
        [result] = [block for each in chat.history for block in each.content if isinstance(block, ToolResult)]
    finally:
        engine.close()
    assert result.is_error
    assert not (tmp_path / "note").exists()


def test_it_is_set_by_a_variable_and_what_is_no_name_is_refused(tmp_path: Path) -> None:
    given = {**os.environ, "MENTRA_TOOL_PROFILE": "read, -mcp__*"}
    settings = load(given, project=tmp_path, user_file=tmp_path / "none.toml")
    assert settings.tool_profile == ("read", "-mcp__*")
    for wrong in ("", "-", "a b", "a;b", "--a b"):
        with pytest.raises(ConfigurationError, match="is not the name of a tool"):
            settings.change("tool_profile", [wrong], "test")


def test_a_folder_cannot_choose_the_tools(tmp_path: Path) -> None:
    (tmp_path / "mentra.toml").write_text('tool_profile = ["-read"]\n')
    settings = load({}, project=tmp_path, user_file=tmp_path / "none.toml")
    assert settings.tool_profile == ()


def test_a_misspelt_name_is_said_once_with_the_nearest(engine: Engine, chat: Chat) -> None:
    engine.settings.change("tool_profile", ["read", "wirte", "-Shel", "-mcp__*", "far_from_all"], "test")
    said = [
        "tool_profile has 'wirte', and there is no such tool: did you mean 'write'?",
        "tool_profile has '-Shel', and there is no such tool: did you mean '-shell'?",
    ]
    heard = []
    for _ in range(2):
        turn = chat.start("hello", can_ask=False)
        turn.result()
        events = [turn.events.get_nowait() for _ in range(turn.events.qsize())]
        heard += [event.message for event in events if isinstance(event, Notice)]
    assert heard == engine.not_offered() == said
    engine.settings.change("tool_profile", ["read"], "test")
    assert engine.not_offered() == []


def test_a_hidden_name_beats_a_shown_one() -> None:
    assert allows([], "read")
    assert not allows(["read", "-re*"], "read")
    assert not allows(["READ"], "read")
