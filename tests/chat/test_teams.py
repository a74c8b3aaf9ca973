"""`mn.team` and the setting `teams`: members by name, a line for each, and the table of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mentra_nb.agent.limits import RunOptions
from mentra_nb.chat import teams
from mentra_nb.chat.chat import Chat, chat_on
from mentra_nb.chat.engine import Engine
from mentra_nb.content import TokenUsage
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.event.bus import NullAudit
from mentra_nb.event.screen import TaskUpdated
from mentra_nb.notebook.commands import team as commands
from mentra_nb.notebook.commands.command import Context
from mentra_nb.notebook.subagent_rows import SubagentRow
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Settings
from mentra_nb.store.volatile import VolatileStore


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider([text("ready")])


@pytest.fixture
def chat(provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    runtime = Runtime([provider], builtin_tools=False, store=VolatileStore(), audit=NullAudit())
    engine = Engine(Settings(model="scripted/scripted", teams=True), runtime)
    engine.offer_settings()
    made = chat_on(engine, "talk")
    monkeypatch.setattr(teams, "engine", lambda: engine)
    monkeypatch.setattr(teams, "conversation", lambda name=None: made)
    yield made
    engine.close()


def test_a_team_is_made_by_name_and_shows_a_line_for_each_member(chat: Chat, provider: ScriptedProvider) -> None:
    chat.ask("hello")
    assert teams.teammates().empty
    provider.push(text("There are\nthree.", usage=TokenUsage(input_tokens=5, output_tokens=2, cost_usd=0.25)))
    team = teams.team({"bob": {"role": "counts", "prompt": "Count the files."}, "ada": "writes\x1b reports"})
    team.wait()
    assert repr(team).splitlines() == ["ada · idle · writes␛ reports", "bob · idle · There are three. · $0.2500"]
    frame = team.to_df()
    assert frame[["name", "status", "role", "last", "waiting"]].to_numpy().tolist() == [
        ["ada", "idle", "writes\x1b reports", "", 0],
        ["bob", "idle", "counts", "There are\nthree.", 0],
    ]
    assert teams.teammates().equals(frame)
    shown = repr(commands.team(Context({}, show=pytest.fail), {}))
    assert [line.split()[:3] for line in shown.splitlines()[1:3]] == [
        ["ada", "idle", "writes␛"],
        ["bob", "idle", "counts"],
    ]
    assert repr(teams.team({"bob": "something else"})) == repr(team)
    team.stop()
    assert team.to_df()["status"].tolist() == ["shutdown", "shutdown"]


def test_a_message_of_a_person_reaches_a_member_and_its_answer_the_model(
    chat: Chat, provider: ScriptedProvider
) -> None:
    chat.ask("hello")
    team = teams.team({"bob": "counts"})
    provider.push(tool_calls([("team_send", {"to": "talk", "content": "three"})]), text("sent"), text("three, he says"))
    team.send("bob", "How many?")
    team.wait()
    assert chat.ask("and?").text == "three, he says"
    assert '"content": "three"' in provider.recorded_requests[-1].messages[-1].text()


def test_a_team_needs_a_conversation_and_members_that_can_be_made(chat: Chat) -> None:
    with pytest.raises(OperationDenied, match="ask something in this conversation first"):
        teams.team({"bob": "counts"})
    assert teams.teammates().empty
    with pytest.raises(ConfigurationError, match="'bob' is given as its role"):
        teams.team({"bob": {"prompt": "go"}})
    with pytest.raises(ConfigurationError, match="'bob' are texts"):
        teams.team({"bob": {"role": 3}})  # type: ignore[dict-item]
    chat.ask("hello")
    with pytest.raises(OperationDenied, match="'talk' is the name of the lead"):
        teams.team({"talk": "leads"})


def test_the_page_has_a_line_for_a_teammate_without_a_count_of_calls() -> None:
    about = {"task_id": "agent-1", "kind": "teammate", "title": "bob", "detail": "counts"}
    row = SubagentRow(TaskUpdated(status="spawned", **about))
    row.take(TaskUpdated(status="running", **about))
    assert "counts" in row.bundle()["text/plain"]
    row.take(TaskUpdated(status="finished", **about))
    assert row.is_over
    assert "call" not in row.bundle()["text/plain"]


def test_the_members_have_the_budgets_of_the_conversation(chat: Chat, provider: ScriptedProvider) -> None:
    chat.ask("hello")
    chat.limits = RunOptions(budgets={"session": "1 call"}, token_budget=7)
    team = teams.team({"bob": "counts"})
    assert team._team.limits.budgets == {"session": "1 call"}
    assert team._team.options(50).token_budget == 7


def test_nobody_is_asked_for_a_member_while_no_turn_is_shown(chat: Chat, provider: ScriptedProvider) -> None:
    def act() -> str:
        return "done"

    chat.add_tool(act)
    chat.start("hello").result()
    provider.push(tool_calls([("act", {})]), text("refused"))
    team = teams.team({"bob": {"role": "acts", "prompt": "Act."}})
    team.wait()
    [denied] = provider.recorded_requests[-1].messages[-1].tool_results()
    assert denied.is_error
    assert "act" in denied.display()
