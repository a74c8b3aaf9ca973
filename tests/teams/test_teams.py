"""Teams: what members are given and may do, how mail and requests reach them once, and how they come back."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from kits.core import MODEL, Recorder, Unattended, heard, of

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.limits import RunOptions
from mentra_nb.agent.new_turn import companion
from mentra_nb.authorization import PermissionDecision
from mentra_nb.content import ToolResult
from mentra_nb.errors import InvalidRequest, OperationDenied
from mentra_nb.event import rare
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.event.bus import NullAudit
from mentra_nb.event.projections import to_session
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.base import ProviderEvent, Request
from mentra_nb.providers.scripted import (
    ControlledStream,
    ScriptedAnswer,
    ScriptedProvider,
    failure,
    text,
    tool_calls,
)
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.task_board.keeper import TaskKeeper
from mentra_nb.task_board.tools import task_tools
from mentra_nb.teams.config import TeamConfig
from mentra_nb.teams.joining import spawn as join
from mentra_nb.teams.team import Team, team_of
from mentra_nb.teams.tools import team_tools
from mentra_nb.tools.builtin.shell import ShellTool
from mentra_nb.tools.builtin.task import subagent_tools
from mentra_nb.tools.function import tool

pytestmark = pytest.mark.anyio

LEAD = "tester"


class Scripts(ScriptedProvider):
    """Gives each agent its own answers, by the name that its system prompt has."""

    def __init__(self, **scripts: Any) -> None:
        super().__init__()
        self.scripts: dict[str, deque[Any]] = {name: deque(answers) for name, answers in scripts.items()}

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        self._answers = self.scripts.setdefault(name_in(request), deque())
        if self._answers and callable(self._answers[0]):
            self._answers.appendleft(self._answers.popleft()(request))
        async with super().stream(request) as events:
            yield events

    def of(self, name: str) -> list[Request]:
        return [request for request in self.recorded_requests if name_in(request) == name]


def name_in(request: Request) -> str:
    system = request.system or ""
    return system.partition("You are '")[2].partition("'")[0] or LEAD


@asynccontextmanager
async def crew(*, runtime: type[Runtime] = Unattended, **scripts: Any) -> AsyncIterator[tuple[Runtime, Scripts]]:
    options = {"store": VolatileStore(), "audit": NullAudit(), "builtin_tools": False}
    options |= {"tools": [*team_tools(), *task_tools()], "hooks": [Recorder()]} | scripts.pop("options", {})
    provider = Scripts(**scripts)
    async with runtime([provider], **options) as made:
        yield made, provider


def spawn(name: str = "bob", role: str = "counts files", **more: Any) -> tuple[str, dict[str, Any]]:
    return "team_spawn", {"name": name, "role": role, **more}


def send(to: str, content: str) -> ScriptedAnswer:
    return tool_calls([("team_send", {"to": to, "content": content})])


def results(agent: Agent) -> list[ToolResult]:
    return [result for message in agent.history() for result in message.tool_results()]


def inbox(request: Request) -> list[dict[str, Any]]:
    """The mail in a request."""
    found = [message.text() for message in request.messages if message.text().startswith("<team-inbox>")]
    return [json.loads(each.split("\n", 1)[1].rsplit("\n", 1)[0])[0] for each in found]


async def idle(team: Team) -> None:
    with anyio.fail_after(10):
        await team.wait_until_idle()


def status(team: Team, name: str = "bob") -> str:
    return next(member.status for member in team.members() if member.name == name)


async def test_team_spawn_tool_registers_persistent_teammate() -> None:
    async with crew(tester=[tool_calls([spawn()]), text("spawned")]) as (runtime, _):
        lead = await runtime.spawn(LEAD, MODEL)
        events = heard(lead)
        await lead.send("make a team")
        assert "Spawned persistent teammate 'bob'" in results(lead)[0].content
        team = team_of(lead)
        await idle(team)
        [member] = team.members()
        assert (member.name, member.role, member.status) == ("bob", "counts files", "idle")
        [spawned] = of(events, rare.TeammateSpawned)
        assert spawned.teammate["id"] == member.id
        [stored] = [each for each in await runtime.list_persisted_agents() if each.is_teammate]
        assert (stored.id, stored.name) == (member.id, "bob")


async def test_persistent_teammate_processes_mail_and_reports_back_to_lead() -> None:
    script = [tool_calls([spawn(prompt="count the files")]), text("asked"), text("three")]
    bob = [send(LEAD, "there are 3"), text("reported")]
    async with crew(tester=script, bob=bob) as (runtime, provider):
        lead = await runtime.spawn(LEAD, MODEL, AgentConfig(system="Be brief."))
        await lead.send("make a team")
        team = team_of(lead)
        await idle(team)
        assert team.unread(LEAD) == 1
        assert len(provider.of(LEAD)) == 2
        first = provider.of("bob")[0]
        assert (first.system or "").startswith("Be brief.\n\nYou are 'bob'")
        assert [(mail["from"], mail["content"]) for mail in inbox(first)] == [(LEAD, "count the files")]
        assert [each.name for each in first.tools] == [
            *("task_claim", "task_get", "task_list", "task_update"),
            *("team_list_requests", "team_read_inbox", "team_request", "team_respond", "team_send"),
        ]
        assert (await lead.send("and?")).text() == "three"
        assert [mail["content"] for mail in inbox(provider.of(LEAD)[-1])] == ["there are 3"]
        assert team.unread(LEAD) == 0
        assert await runtime.store.open_messages(team.id, LEAD) == []


async def test_teammate_inherits_tool_profile_and_internal_team_hides() -> None:
    config = AgentConfig(tools=("team_spawn", "team_send", "task_list", "task_create"), hidden_tools=("task_list",))
    async with crew(tester=[tool_calls([spawn(prompt="go")]), text("ok")], bob=[text("ok")]) as (runtime, provider):
        lead = await runtime.spawn(LEAD, MODEL, config)
        await lead.send("make a team")
        await idle(team_of(lead))
        assert [each.name for each in provider.of("bob")[0].tools] == ["team_send"]


async def test_broadcast_tool_sends_to_every_other_known_agent() -> None:
    script = [tool_calls([spawn("bob"), spawn("ada")]), tool_calls([("team_broadcast", {"content": "hello"})])]
    async with crew(tester=[*script, text("ok")], bob=[text("hi")] * 2, ada=[text("hi")] * 2) as (runtime, provider):
        lead = await runtime.spawn(LEAD, MODEL)
        await lead.run("make a team")
        await idle(team_of(lead))
        assert results(lead)[-1].content == "Sent message to 2 recipient(s): ada, bob"
        assert [inbox(provider.of(name)[0])[0]["type"] for name in ("bob", "ada")] == ["broadcast", "broadcast"]


async def test_teammate_message_updates_lead_unread_count_before_next_turn() -> None:
    script = [tool_calls([spawn(prompt="go")]), text("asked")]
    async with crew(tester=script, bob=[send(LEAD, "one"), send(LEAD, "two"), text("ok")]) as (runtime, provider):
        lead = await runtime.spawn(LEAD, MODEL)
        events = heard(lead)
        await lead.send("make a team")
        await idle(team_of(lead))
        assert [event.unread for event in of(events, rare.TeamInboxUpdated)] == [1, 2]
        assert len(provider.of(LEAD)) == 2


async def test_teammate_reply_wait_consumes_the_snapshot_signaled_inbox() -> None:
    script = [tool_calls([spawn(prompt="go")]), text("asked"), text("three")]
    async with crew(tester=script, bob=[send(LEAD, "three"), text("ok")]) as (runtime, provider):
        lead = await runtime.spawn(LEAD, MODEL)
        await lead.send("make a team")
        team = team_of(lead)
        with anyio.fail_after(10):
            assert await team.wait_for_mail() == 1
        await lead.send("go on")
        assert [mail["content"] for mail in inbox(provider.of(LEAD)[-1])] == ["three"]
        assert team.unread(LEAD) == 0


def asks(to: str, protocol: str, content: str) -> ScriptedAnswer:
    return tool_calls([("team_request", {"to": to, "protocol": protocol, "content": content})])


async def answered(lead: Agent, provider: Scripts, *, approve: bool) -> None:
    """Let the lead answer the request that it has got."""
    [request] = team_of(lead).requests()
    given = {"request_id": request.request_id, "approve": approve, "reason": "because"}
    provider.scripts[LEAD].extend([tool_calls([("team_respond", given)]), text("answered")])
    await lead.send("answer it")
    await idle(team_of(lead))


@pytest.mark.parametrize("approve", [True, False])
async def test_plan_approval_request_response_keeps_teammate_alive(approve: bool) -> None:
    script = [tool_calls([spawn(prompt="plan it")]), text("asked")]
    bob = [asks(LEAD, "plan_approval", "delete it all"), text("waiting"), text("understood")]
    async with crew(tester=script, bob=bob) as (runtime, provider):
        lead = await runtime.spawn(LEAD, MODEL)
        events = heard(lead)
        await lead.send("make a team")
        team = team_of(lead)
        await idle(team)
        assert [request.status for request in await runtime.store.list_requests(team.id)] == ["pending"]
        assert len(of(events, rare.TeamProtocolRequested)) == 1
        await answered(lead, provider, approve=approve)
        [mail] = inbox(provider.of("bob")[-1])[1:]
        assert (mail["type"], mail["approve"], mail["protocol"]) == ("response", approve, "plan_approval")
        [resolved] = of(events, rare.TeamProtocolResolved)
        assert resolved.request["status"] == ("approved" if approve else "rejected")
        assert status(team) == "idle"


async def test_shutdown_approval_shuts_down_teammate_after_current_wake_cycle() -> None:
    script = [tool_calls([spawn()]), asks("bob", "shutdown", "please end"), text("asked")]
    async with crew(tester=script, bob=[]) as (runtime, provider):
        lead = await runtime.spawn(LEAD, MODEL)
        stream = ControlledStream()
        provider.scripts["bob"].append(stream)
        await lead.send("make a team")
        with anyio.fail_after(10):
            await stream.wait_opened()
        [request] = team_of(lead).requests()
        yes = {"request_id": request.request_id, "approve": True}
        stream.send_answer(tool_calls([("team_respond", yes)]))
        stream.finish()
        provider.scripts["bob"].append(text("bye"))
        await idle(team_of(lead))
        assert status(team_of(lead)) == "shutdown"
        assert team_of(lead).at_work == {}
        assert [mail["type"] for mail in (await inbox_of(runtime, lead))] == ["response"]
        provider.scripts[LEAD].extend([tool_calls([spawn(role="writes")]), text("again")])
        await lead.send("once more")
        assert status(team_of(lead)) == "idle"


async def inbox_of(runtime: Runtime, lead: Agent) -> list[dict[str, Any]]:
    stored = await runtime.store.open_messages(lead.id, LEAD)
    return [message.model_dump() for message, _ in stored]


async def test_only_the_addressee_responds_once_and_others_see_nothing_of_it() -> None:
    script = [tool_calls([spawn("bob"), spawn("ada")]), asks("bob", "review", "look"), text("asked")]
    async with crew(tester=script, bob=[text("ok")], ada=[]) as (runtime, _):
        lead = await runtime.spawn(LEAD, MODEL)
        await lead.send("make a team")
        team = team_of(lead)
        await idle(team)
        [request] = team.requests()
        with pytest.raises(Exception, match="'ada' cannot respond to request"):
            await team.respond("ada", request.request_id, approve=True)
        await team.respond("bob", request.request_id, approve=False)
        with pytest.raises(Exception, match="is answered already"):
            await team.respond("bob", request.request_id, approve=True)
        assert [each.status for each in await runtime.store.list_requests(team.id)] == ["rejected"]


async def test_failed_teammate_can_recover_on_next_wake() -> None:
    script = [tool_calls([spawn(prompt="first")]), text("asked")]
    bob = [failure(InvalidRequest("no")), text("ok")]
    async with crew(tester=script, bob=bob) as (runtime, provider):
        lead = await runtime.spawn(LEAD, MODEL)
        await lead.send("make a team")
        team = team_of(lead)
        await idle(team)
        [member] = team.members()
        assert (member.status, team.unread("bob")) == ("failed", 1)
        assert "no" in (member.failure or "")
        await team.send(LEAD, "bob", "second")
        await idle(team)
        assert [mail["content"] for mail in inbox(provider.of("bob")[-1])] == ["first", "second"]
        assert status(team) == "idle"


def test_teammate_maps_to_what_a_screen_shows_of_a_task() -> None:
    member = {"id": "agent-1", "name": "bob", "role": "counts", "model": "m", "status": "idle", "failure": None}
    seen = to_session(rare.TeammateSpawned(agent_id="agent-0", teammate=member))
    assert isinstance(seen, shown.TaskUpdated)
    assert (seen.kind, seen.status, seen.title, seen.detail) == ("teammate", "spawned", "bob", "counts")
    became = {"idle": "running", "working": "running", "shutdown": "finished", "failed": "failed"}
    for now, status_shown in became.items():
        changed = member | {"status": now, "failure": "why" if now == "failed" else None}
        seen = to_session(rare.TeammateUpdated(agent_id="agent-0", teammate=changed))
        assert isinstance(seen, shown.TaskUpdated)
        assert (seen.status, seen.detail) == (status_shown, "why" if now == "failed" else "counts")


async def where(tmp_path: Path, *folders: str | None) -> ToolResult:
    """Where a shell command of a teammate runs that owns a task for each folder."""
    for folder in folders:
        (tmp_path / (folder or ".")).mkdir(exist_ok=True)
    options = {
        "tools": [*team_tools(), *task_tools(), ShellTool()],
        "policy": RuntimePolicy.permissive(),
        "working_directory": tmp_path,
    }
    script = [tool_calls([spawn(prompt="go")]), text("asked")]
    async with crew(tester=script, options=options, bob=[tool_calls([("shell", {"command": "pwd"})]), text("ok")]) as (
        runtime,
        _,
    ):
        lead = await runtime.spawn(LEAD, MODEL)
        for folder in folders:
            await companion(lead, TaskKeeper).change(
                lambda board, at=folder: board.create("work", owner="bob", working_directory=at)
            )
        await companion(lead, TaskKeeper).acknowledge()
        await lead.send("make a team")
        mate = team_of(lead).at_work["bob"]
        await idle(team_of(lead))
        return results(mate.agent)[0]


async def test_task_working_directory_routes_shell_for_teammate(tmp_path: Path) -> None:
    assert (await where(tmp_path, "sub", "sub", None)).content == str(tmp_path / "sub")
    several = await where(tmp_path, "sub", "other")
    assert several.is_error
    assert "give workingDirectory" in several.display()


async def test_teammate_shell_without_working_directory_uses_base_dir(tmp_path: Path) -> None:
    assert (await where(tmp_path)).content == str(tmp_path)
    assert (await where(tmp_path, None)).content == str(tmp_path)


async def test_resume_revives_persisted_teammate_actors_for_lead_runtime(tmp_path: Path) -> None:
    options = {"store": SqliteStore(tmp_path / "state.sqlite")}
    async with crew(tester=[tool_calls([spawn(prompt="go")]), text("ok")], options=options, bob=[text("ok")]) as (
        runtime,
        _,
    ):
        lead = await runtime.spawn(LEAD, MODEL)
        await lead.send("make a team")
        await idle(team_of(lead))
    options = {"store": SqliteStore(tmp_path / "state.sqlite")}
    async with crew(options=options, bob=[send(LEAD, "here"), text("ok")]) as (runtime, provider):
        [again] = await runtime.resume()
        assert again.id == lead.id
        team = team_of(again)
        await team.send(LEAD, "bob", "are you there?")
        await idle(team)
        assert [mail["content"] for mail in inbox(provider.of("bob")[0])] == ["go", "are you there?"]
        assert team.unread(LEAD) == 1


async def test_resume_wakes_revived_teammate_for_persisted_inbox_work(tmp_path: Path) -> None:
    options = {"store": SqliteStore(tmp_path / "state.sqlite")}
    async with crew(
        tester=[tool_calls([spawn(prompt="go")]), text("ok")], options=options, bob=[failure(InvalidRequest("no"))]
    ) as (runtime, _):
        lead = await runtime.spawn(LEAD, MODEL)
        await lead.send("make a team")
        await idle(team_of(lead))
    options = {"store": SqliteStore(tmp_path / "state.sqlite")}
    async with crew(options=options, bob=[text("done")]) as (runtime, provider):
        [again] = await runtime.resume()
        await idle(team_of(again))
        assert [mail["content"] for mail in inbox(provider.of("bob")[0])] == ["go"]
        assert await runtime.store.open_messages(again.id, "bob") == []


async def test_persisted_teammates_are_dormant_without_live_actor_and_team_spawn_takes_the_name(tmp_path: Path) -> None:
    options = {"store": SqliteStore(tmp_path / "state.sqlite")}
    async with crew(tester=[tool_calls([spawn()]), text("ok")], options=options) as (runtime, _):
        lead = await runtime.spawn(LEAD, MODEL)
        await lead.send("make a team")
    options = {"store": SqliteStore(tmp_path / "state.sqlite")}
    async with crew(tester=[tool_calls([spawn(role="writes")]), text("ok")], options=options) as (runtime, _):
        again = await runtime.resume_agent(lead.id)
        team = team_of(again)
        await team.load()
        before = team.members()
        assert [member.status for member in before] == ["dormant"]
        await again.send("make it again")
        [after] = team.members()
        assert (after.role, after.status) == ("writes", "idle")
        assert after.id != before[0].id


async def test_autonomous_teammates_claim_ready_tasks_once_and_the_next_when_it_is_free() -> None:
    def complete(request: Request) -> ScriptedAnswer:
        claimed = request.messages[-1].text()
        return tool_calls(
            [("task_update", {"taskId": int(claimed.removeprefix("<auto-claimed>Task #")[0]), "status": "completed"})]
        )

    works = [complete, text("done"), complete, text("done")]
    script = [tool_calls([spawn("bob"), spawn("ada")]), text("ok")]
    async with crew(tester=script, ada=works, bob=works) as (runtime, provider):
        lead = await runtime.spawn(LEAD, MODEL)
        team = team_of(lead)
        team.configure(TeamConfig(claims=True))
        keeper = companion(lead, TaskKeeper)
        await keeper.change(lambda board: (board.create("first"), board.create("second", blocked_by=[1])))
        await keeper.acknowledge()
        await lead.send("make a team")
        await idle(team)
        tasks = await runtime.store.load_tasks(lead.id)
        assert [task.status for task in tasks] == ["completed", "completed"]
        prompts = [
            message.text()
            for name in ("bob", "ada")
            for request in provider.of(name)
            for message in request.messages[-1:]
            if message.text().startswith("<auto-claimed>")
        ]
        assert sorted(prompt.splitlines()[0] for prompt in prompts) == [
            "<auto-claimed>Task #1: first</auto-claimed>",
            "<auto-claimed>Task #2: second</auto-claimed>",
        ]


async def test_autonomous_idle_timeout_shuts_down_and_same_name_can_respawn() -> None:
    async with crew(tester=[tool_calls([spawn()]), text("ok"), tool_calls([spawn()]), text("ok")]) as (runtime, _):
        lead = await runtime.spawn(LEAD, MODEL)
        team = team_of(lead)
        team.configure(TeamConfig(idle_timeout=0.01))
        await lead.send("make a team")
        with anyio.fail_after(10):
            while status(team) != "shutdown" or team.at_work:
                await team.changed()
        await lead.send("again")
        assert results(lead)[-1].is_error is False


async def test_teammate_task_updates_are_limited_to_owned_tasks_also_for_its_subagents() -> None:
    update = tool_calls([("task_update", {"taskId": 1, "status": "in_progress"})])
    options = {"tools": [*team_tools(), *task_tools(), *subagent_tools()]}
    bob = [update, tool_calls([("task", {"prompt": "do it"})]), update, text("no"), text("no")]
    script = [tool_calls([spawn(prompt="go")]), text("asked")]
    async with crew(tester=script, bob=bob, options=options) as (runtime, provider):
        lead = await runtime.spawn(LEAD, MODEL)
        keeper = companion(lead, TaskKeeper)
        await keeper.change(lambda board: board.create("not bob's", owner="ada"))
        await keeper.acknowledge()
        await lead.send("make a team")
        await idle(team_of(lead))
        refused = [
            result.display()
            for request in provider.of("bob")
            for result in request.messages[-1].tool_results()
            if result.is_error
        ]
        assert len(refused) == 2
        assert all("'bob' can only update tasks that it owns" in each for each in refused)


async def test_a_teammate_goes_on_when_its_background_command_has_ended(tmp_path: Path) -> None:
    options = {
        "tools": team_tools(),
        "policy": RuntimePolicy.permissive(),
        "working_directory": tmp_path,
        "builtin_tools": True,
    }
    wait = "until [ -e go ]; do read -t 0.01 x <> <(:) || :; done; echo built"
    bob = [tool_calls([("background_run", {"command": f"bash -c '{wait}'"})]), text("started"), text("built")]
    async with crew(tester=[tool_calls([spawn(prompt="build")]), text("ok")], bob=bob, options=options) as (
        runtime,
        provider,
    ):
        lead = await runtime.spawn(LEAD, MODEL)
        await lead.send("make a team")
        team = team_of(lead)
        mate = team.at_work["bob"]
        await idle(team)
        (tmp_path / "go").touch()
        [job] = runtime.jobs.of(mate.agent.id)
        with anyio.fail_after(10):
            await runtime.jobs.wait(mate.agent.id, job.id)
            while len(provider.of("bob")) < 3:
                await team.changed()
        assert "<background-results>" in provider.of("bob")[-1].messages[-1].text()


async def test_a_question_of_a_teammate_says_who_asks_and_its_turn_has_a_parent() -> None:
    @tool
    def act() -> str:
        """Do it."""
        return "done"

    recorder = Recorder()
    options = {"tools": [*team_tools(), act], "hooks": [recorder]}
    bob = [tool_calls([("act", {})]), text("ok"), text("ok")]
    script = [tool_calls([spawn(prompt="go")]), text("asked")]
    async with crew(runtime=Runtime, tester=script, bob=bob, options=options) as (runtime, _):
        session = await runtime.create_session(LEAD, MODEL)
        asked: list[tuple[str, str]] = []

        def hear(event: e.AgentEvent) -> None:
            if isinstance(event, e.QuestionAsked):
                asked.append((event.agent_id, session.permissions.open_questions()[0].agent_name))
                session.resolve_permission(event.request_id, PermissionDecision(allow=True))

        session.agent.environment.bus.tap(hear)
        await session.append_turn("make a team")
        mate = team_of(session.agent).at_work["bob"]
        await idle(team_of(session.agent))
        assert asked == [(mate.agent.id, "bob")]
        began = [event for event in recorder.of(e.TurnStarted) if event.agent_id == mate.agent.id]
        assert [(event.parent_id, event.session_id) for event in began] == [(session.agent.id, session.id)]
        assert results(mate.agent)[0].content == "done"
        await team_of(session.agent).send(LEAD, "bob", "again")
        await idle(team_of(session.agent))
        last = [event for event in recorder.of(e.TurnStarted) if event.agent_id == mate.agent.id][-1]
        assert (last.parent_id, last.session_id) == (session.agent.id, session.id)


async def test_who_has_shut_down_gets_no_mail_and_no_request_but_the_answer_to_its_own() -> None:
    asks = tool_calls([("team_request", {"to": LEAD, "protocol": "plan_approval", "content": "May I?"})])
    async with crew(tester=[tool_calls([spawn(prompt="go")]), text("ok")], bob=[asks, text("asked")]) as (runtime, _):
        lead = await runtime.spawn(LEAD, MODEL)
        await lead.send("make a team")
        team = team_of(lead)
        await idle(team)
        team.shut_down("bob")
        with anyio.fail_after(60):
            while team.at_work:
                await team.changed()
        with pytest.raises(OperationDenied, match="'bob' has shut down"):
            await team.send(LEAD, "bob", "hello")
        with pytest.raises(OperationDenied, match="'bob' has shut down"):
            await team.request(LEAD, "bob", "review", "Is it right?")
        [open_request] = team.requests()
        assert (await team.respond(LEAD, open_request.request_id, approve=True)).status == "approved"
        assert team.unread("bob") == 1


async def test_a_teammate_that_a_budget_ends_has_failed_and_says_so() -> None:
    async with crew(bob=[text("done")]) as (runtime, provider):
        lead = await runtime.spawn(LEAD, MODEL)
        team = team_of(lead)
        team.limits = RunOptions(budgets={"day": "10 tokens"})
        await join(team, "bob", "counts files", "go")
        await idle(team)
        [member] = team.members()
        assert (member.status, provider.of("bob")) == ("failed", [])
        assert "budget of today" in (member.failure or "")
        team.limits = RunOptions()
        await team.send(LEAD, "bob", "again")
        await idle(team)
        assert status(team) == "idle"
        assert [mail["content"] for mail in inbox(provider.of("bob")[0])] == ["go", "again"]
