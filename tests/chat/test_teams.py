"""`mn.team` and the setting `teams`: members by name, a line for each, and the table of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
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
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.teams.config import TeamConfig
from mentra_nb.teams.team import Team


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


def test_members_that_cannot_be_made_are_refused_in_a_sentence(chat: Chat) -> None:
    assert teams.teammates().empty
    with pytest.raises(OperationDenied, match="there is no stored conversation 'talk'"):
        teams.team()
    with pytest.raises(ConfigurationError, match="'bob' is given as its role"):
        teams.team({"bob": {"prompt": "go"}})
    with pytest.raises(ConfigurationError, match="'bob' are texts"):
        teams.team({"bob": {"role": 3}})
    with pytest.raises(ConfigurationError, match="the tools of the member 'bob' are a list"):
        teams.team({"bob": {"role": "counts", "tools": "team_send"}})
    with pytest.raises(ConfigurationError, match="idle_timeout = 0: Input should be greater than 0"):
        teams.team({"bob": "counts"}, idle_timeout=0)
    with pytest.raises(OperationDenied, match="the conversation has no tool 'reed'; it has: team_broadcast"):
        teams.team({"bob": {"role": "counts", "tools": ["reed"]}})
    with pytest.raises(OperationDenied, match="'talk' is the name of the lead"):
        teams.team({"talk": "leads"})


def test_a_team_is_made_before_anything_was_asked_and_its_mail_is_in_the_first_question(
    chat: Chat, provider: ScriptedProvider
) -> None:
    team = teams.team({"bob": {"role": "counts", "prompt": "Are you ready?"}})
    team.wait()
    assert repr(team) == "bob · idle · ready"
    provider.push(tool_calls([("team_send", {"to": "talk", "content": "three"})]), text("sent"), text("Three."))
    team.send("bob", "Count.")
    team.wait()
    assert chat.ask("How many?").text == "Three."
    assert '"content": "three"' in provider.recorded_requests[-1].messages[-1].text()


def test_without_the_setting_members_write_to_the_lead_whose_model_makes_no_members(
    chat: Chat, provider: ScriptedProvider
) -> None:
    chat._engine.settings.teams = False
    chat._engine.offer_settings()
    chat.ask("hello")
    provider.push(tool_calls([("team_send", {"to": "talk", "content": "three"})]), text("sent"), text("Three."))
    teams.team({"bob": {"role": "counts", "prompt": "Count."}}).wait()
    assert chat.ask("How many?").text == "Three."
    last = provider.recorded_requests[-1]
    assert '"content": "three"' in last.messages[-1].text()
    assert {tool.name for tool in last.tools} >= {"team_send", "team_respond"}
    assert "team_spawn" not in {tool.name for tool in last.tools}


def test_a_member_is_offered_the_tools_that_it_is_given_and_asks_its_own_model(
    chat: Chat, provider: ScriptedProvider
) -> None:
    provider.push(text("done"))
    bob = {"role": "counts", "prompt": "Count.", "tools": ["team_*", "-team_list_requests"], "model": "scripted/small"}
    chat.ask("hello")
    team = teams.team({"bob": bob})
    team.wait()
    request = provider.recorded_requests[-1]
    assert request.model == "small"
    assert [tool.name for tool in request.tools] == ["team_read_inbox", "team_request", "team_respond", "team_send"]
    assert team.to_df().model.tolist() == ["small"]


def test_how_a_team_works_is_set_by_the_settings_and_for_one_team(chat: Chat) -> None:
    engine = chat._engine
    engine.settings.team_claims, engine.settings.team_members = True, 1
    engine.offer_settings()
    chat.ask("hello")
    team = teams.team({"bob": "counts"}, idle_timeout=600)
    assert team._team.config == TeamConfig(claims=True, idle_timeout=600, max_members=1)
    with pytest.raises(OperationDenied, match="at most 1 teammate may work at the same time"):
        teams.team({"ada": "writes"})
    teams.team(claims=False, idle_timeout=0.01)
    engine.call(until_gone, team._team)
    assert team.to_df()["status"].tolist() == ["shutdown"]


async def until_gone(team: Team) -> None:
    with anyio.fail_after(60):
        while team.at_work:
            await team.changed()


def test_a_person_sees_the_mail_of_the_lead_and_asks_and_answers_in_its_place(
    chat: Chat, provider: ScriptedProvider
) -> None:
    chat.ask("hello")
    team = teams.team({"bob": "counts"})
    assert team.inbox().empty
    assert team.requests().empty
    given = {"to": "talk", "protocol": "plan_approval", "content": "May I delete it?"}
    provider.push(tool_calls([("team_request", given)]), text("asked"))
    team.send("bob", "Delete it.")
    team.wait()
    [mail] = team.inbox().to_dict("records")
    assert (mail["sender"], mail["type"], mail["content"]) == ("bob", "request", "May I delete it?")
    assert str(team.inbox().dtypes["sent_at"]).endswith("UTC]")
    provider.push(text("I shall not."))
    team.respond(mail["request_id"], approve=False, reason="It is needed.")
    team.wait()
    [answered] = team.requests().to_dict("records")
    assert (answered["status"], answered["resolution_reason"]) == ("rejected", "It is needed.")
    assert '"content": "It is needed."' in provider.recorded_requests[-1].messages[-1].text()
    with pytest.raises(OperationDenied, match="is answered already"):
        team.respond(mail["request_id"], approve=True)

    provider.push(text("I go."))
    asked = team.request("bob", "You may go.", "shutdown")
    team.wait()
    chat._engine.call(partial(team._team.respond, "bob", asked, approve=True))
    chat._engine.call(until_gone, team._team)
    assert team.requests().status[asked] == "approved"
    assert team.to_df()["status"].tolist() == ["shutdown"]


def test_after_a_restart_a_team_goes_on_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = ScriptedProvider()
    for restart in (False, True):
        store = SqliteStore(tmp_path / "state.sqlite")
        runtime = Runtime([provider], builtin_tools=False, store=store, audit=NullAudit())
        engine = Engine(Settings(model="scripted/scripted"), runtime)
        monkeypatch.setattr(teams, "engine", lambda engine=engine: engine)
        made = chat_on(engine, "talk")
        monkeypatch.setattr(teams, "conversation", lambda name=None, made=made: made)
        try:
            if not restart:
                provider.push(text("Three."))
                teams.team({"bob": {"role": "counts", "prompt": "Count."}}).wait()
            else:
                team = teams.team()
                provider.push(text("Still three."))
                team.send("bob", "Again.")
                team.wait()
                assert repr(team) == "bob · idle · Still three."
        finally:
            engine.close()
    assert "Three." in [message.text() for message in provider.recorded_requests[-1].messages]


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
