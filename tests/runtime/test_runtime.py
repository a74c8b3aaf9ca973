"""The composition root: providers, models, tools, stored agents, and what it opens when."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import anyio
import platformdirs
import pytest
from kits import stores
from kits.core import MODEL, Recorder, allow_all, bench

from mentra_nb import paths
from mentra_nb.agent.config import AgentConfig
from mentra_nb.errors import (
    ConfigurationError,
    FailedToListModels,
    InvalidTool,
    NoModelsAvailable,
    OperationDenied,
    ProviderNotFound,
    StoreError,
    TransportError,
)
from mentra_nb.event import types as e
from mentra_nb.event.bus import AuditHook, AuditLogHook, AuditStore, NullAudit, RuntimeHooks
from mentra_nb.providers.base import ModelInfo, ModelSelector
from mentra_nb.providers.scripted import ControlledStream, ScriptedProvider, text, tool_calls
from mentra_nb.runtime.live_agents import WARM
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.runtime.session import Session
from mentra_nb.store.records import AgentRecord
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import tool
from mentra_nb.tools.tool import ToolContext

pytestmark = pytest.mark.anyio

NEWEST = ModelSelector.newest_available()


def runtime(*providers: ScriptedProvider) -> Runtime:
    return Runtime(providers, store=VolatileStore(), audit=NullAudit())


class Listing(ScriptedProvider):
    """A provider that lists these models, or fails to."""

    def __init__(self, *models: ModelInfo, fails: bool = False) -> None:
        super().__init__(id="listing")
        self.listed, self.fails = list(models), fails

    async def list_models(self) -> list[ModelInfo]:
        if self.fails:
            raise TransportError("no network")
        return self.listed


def model(id: str, year: int | None = None) -> ModelInfo:
    created = datetime(year, 1, 1, tzinfo=UTC) if year else None
    return ModelInfo(id=id, provider="listing", created_at=created)


# ---- providers and models -------------------------------------------------------------------------------------


def test_the_first_provider_is_the_default_and_stays_it() -> None:
    made = runtime(ScriptedProvider(id="one"), ScriptedProvider(id="two"))
    replaced = ScriptedProvider(id="one")
    made.register_provider_instance(ScriptedProvider(id="aaa"))
    made.register_provider_instance(replaced)
    assert made.provider() is replaced
    assert [d.id for d in made.providers()] == ["aaa", "one", "two"]


def test_display_mentions_missing_provider() -> None:
    with pytest.raises(ProviderNotFound, match="no providers are registered"):
        runtime().provider()
    with pytest.raises(ProviderNotFound, match="provider 'x' is not registered; registered are one"):
        runtime(ScriptedProvider(id="one")).provider("x")


async def test_resolve_model_supports_openrouter_provider() -> None:
    async with bench() as table:
        table.runtime.register_provider("openrouter", "a key")
        assert (await table.runtime.resolve_model("openrouter", "x/y")).provider == "openrouter"


@pytest.mark.parametrize("name", ["ollama", "lmstudio"])
async def test_resolve_model_supports_local_provider_registration(name: str) -> None:
    async with bench() as table:
        getattr(table.runtime, f"register_{name}")()
        assert [d.id for d in table.runtime.providers()] == [name, "scripted"]
        assert (await table.runtime.resolve_model(name, "m")).provider == name
        assert table.runtime.provider().descriptor.id == "scripted"


def test_a_provider_that_needs_a_key_says_so() -> None:
    with pytest.raises(ConfigurationError, match="needs an API key"):
        runtime().register_provider("openai")


async def test_resolve_model_returns_explicit_id_without_listing_models() -> None:
    made = runtime(Listing(fails=True))
    assert await made.resolve_model("listing", "m") == ModelInfo(id="m", provider="listing")
    assert (await made.resolve_model("listing", ModelSelector("m"))).id == "m"


async def test_resolve_model_selects_newest_available_then_breaks_ties_by_id() -> None:
    provider = Listing(model("old", 2020), model("b", 2024), model("a", 2024), model("dateless"))
    assert (await runtime(provider).resolve_model("listing", NEWEST)).id == "a"
    assert (await runtime(Listing(model("z"), model("y"))).resolve_model("listing", NEWEST)).id == "y"


async def test_resolve_model_reports_empty_provider_listing() -> None:
    with pytest.raises(NoModelsAvailable, match="'listing' did not return any models"):
        await runtime(Listing()).resolve_model("listing", NEWEST)


async def test_resolve_model_reports_missing_provider() -> None:
    with pytest.raises(ProviderNotFound):
        await runtime().resolve_model("listing", "m")


async def test_a_listing_that_fails_is_named() -> None:
    with pytest.raises(FailedToListModels, match="failed to list models: no network"):
        await runtime(Listing(fails=True)).list_models()


async def test_an_agent_of_an_unknown_provider_is_refused_and_not_stored() -> None:
    async with bench() as table:
        with pytest.raises(ProviderNotFound):
            await table.runtime.spawn("x", ModelInfo(id="m", provider="none"))
        assert await table.runtime.list_persisted_agents() == []


# ---- tools ----------------------------------------------------------------------------------------------------


@tool(asks=False)
def act() -> str:
    """Do it."""
    return "done"


def test_runtime_exposes_registered_tool_descriptors() -> None:
    made = Runtime(tools=[act], store=VolatileStore(), audit=NullAudit())
    names = [spec.name for spec in made.tools()]
    assert names == sorted(names)
    assert {"act", "read", "shell", "write"} <= set(names)
    descriptor = made.tool_descriptor("act")
    assert descriptor is not None
    assert descriptor.description == "Do it."
    assert made.tool_descriptor("none") is None
    assert Runtime(builtin_tools=False, store=VolatileStore(), audit=NullAudit()).tools() == []


def test_default_runtime_exposes_its_tools_and_an_empty_one_none() -> None:
    names = {spec.name for spec in Runtime(store=VolatileStore(), audit=NullAudit()).tools()}
    assert {"read", "shell", "write"} <= names
    assert "load_skill" not in names  # it comes with a folder of skills
    assert Runtime(builtin_tools=False, store=VolatileStore(), audit=NullAudit()).tools() == []


def test_an_invalid_tool_is_refused_at_once() -> None:
    with pytest.raises(InvalidTool):
        runtime().register_tool(lambda: 1)


async def test_a_tool_registered_later_is_seen_by_agents_and_sessions_that_exist() -> None:
    turns = [text("one"), tool_calls([("act", {})]), text("ok"), tool_calls([("act", {})]), text("ok")]
    async with bench(*turns) as table:
        agent, session = await table.agent(), await table.session()
        await agent.send("hi")
        table.runtime.register_tool(act)
        await agent.send("go")
        await session.append_turn("go")
    assert [[t.name for t in r.tools] for r in table.provider.recorded_requests] == [[]] + [["act"]] * 4
    assert agent.history()[-2].tool_results()[0].content == "done"
    assert session.history()[-2].tool_results()[0].content == "done"


async def test_a_tool_of_a_session_is_its_own_and_goes_before_the_runtimes() -> None:
    mine = tool(name="act", asks=False)(lambda: "mine")
    async with bench(tool_calls([("act", {})]), text("ok"), tools=[act]) as table:
        session = await table.session(tools={"act": mine})
        await session.append_turn("go")
        assert table.runtime.tool_descriptor("act") is act.spec
    assert session.history()[-2].tool_results()[0].content == "mine"


class Shop:
    name = "corner"


async def test_tools_can_read_registered_app_context() -> None:
    def where(ctx: ToolContext) -> str:
        return ctx.app_context(Shop).name

    async with bench(tool_calls([("where", {})]), text("ok"), tools=[where]) as table:
        agent = await table.agent()
        shop = Shop()
        table.runtime.register_context(shop)
        await agent.send("go")
        assert table.runtime.app_context(Shop) is shop
        with pytest.raises(ConfigurationError, match="no application context of type Path is registered"):
            table.runtime.app_context(Path)
    assert agent.history()[2].tool_results()[0].content == "corner"


# ---- stored agents --------------------------------------------------------------------------------------------


async def test_resume_all_rebuilds_agents_from_agent_memory(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    async with bench(text("hi"), store=SqliteStore(path)) as table:
        agent = await table.agent()
        await agent.send("hello")
        [summary] = await table.runtime.list_persisted_agents()
        assert (summary.id, summary.name, summary.status, summary.history_len) == (agent.id, "tester", "Finished", 2)
    async with bench(text("again"), store=SqliteStore(path)) as table:
        [resumed] = await table.runtime.resume_all()
        assert resumed.history() == agent.history()
        assert (await resumed.send("more")).text() == "again"
        assert len(table.provider.recorded_requests[0].messages) == 3


async def test_resume_filters_agents_by_runtime_identifier(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    async with bench(store=SqliteStore(path), identifier="one") as table:
        first = await table.agent()
    async with bench(store=SqliteStore(path), identifier="two") as table:
        second = await table.agent()
        assert [a.id for a in await table.runtime.resume()] == [second.id]
        assert [a.id for a in await table.runtime.resume("one")] == [first.id]
        assert [a.id for a in await table.runtime.resume_all()] == [first.id, second.id]
        assert [a.id for a in await table.runtime.list_persisted_agents("one")] == [first.id]


async def test_list_persisted_agents_includes_teammates_for_runtime() -> None:
    async with bench(text("hi")) as table:
        lead = await table.agent()
        await lead.send("hello")
        for id, kind, identifier in (("2", "teammate", "default"), ("3", "subagent", "default"), ("4", "agent", "x")):
            await table.runtime.store.create_agent(stores.agent(id, time.time() + 1, identifier, kind=kind))
        listed = await table.runtime.list_persisted_agents()
        assert [(a.id, a.is_teammate, a.status, a.history_len) for a in listed] == [
            (lead.id, False, "Finished", 2),
            ("2", True, "Idle", 0),
        ]
        assert [lease.key for lease in await table.runtime.store.list_leases()] == [f"agent:{lead.id}"]


async def test_an_agent_that_is_not_stored_cannot_be_resumed() -> None:
    async with bench() as table:
        with pytest.raises(StoreError, match="there is no stored agent 'x'"):
            await table.runtime.resume_agent("x")


async def test_an_agent_that_could_not_be_stored_leaves_no_lease() -> None:
    class Full(VolatileStore):
        async def create_agent(self, agent: AgentRecord) -> None:
            raise StoreError("the disk is full")

    async with bench(store=Full()) as table:
        with pytest.raises(StoreError):
            await table.agent()
        assert await table.runtime.store.list_leases() == []


async def test_resuming_all_takes_over_none_while_one_takes_a_turn() -> None:
    stream = ControlledStream()
    async with bench(text("one"), stream) as table, anyio.create_task_group() as group:
        idle, busy = await table.agent(), await table.agent()
        await idle.send("hi")
        group.start_soon(busy.send, "hi")
        await stream.wait_opened()
        with pytest.raises(OperationDenied, match="is taking a turn"):
            await table.runtime.resume_all()
        table.provider.push(text("two"))
        assert (await idle.send("and?")).text() == "two"
        stream.send_answer(text("done"))


async def test_agents_that_have_not_been_used_for_long_keep_no_messages_and_go_on() -> None:
    async with bench(*[text(str(number)) for number in range(2 * WARM + 1)]) as table:
        agents = [await table.agent() for _ in range(2 * WARM)]
        for agent in agents:
            await agent.send("hi")
        assert [agent.transcript.is_loaded for agent in agents] == [False] * WARM + [True] * WARM
        assert agents[0].transcript.snapshot().items == []
        assert (await agents[0].send("and?")).text() == str(2 * WARM)
        assert [message.text() for message in agents[0].history()] == ["hi", "0", "and?", str(2 * WARM)]
        assert [agent.transcript.is_loaded for agent in agents[: WARM + 1]] == [True] + [False] * WARM


@pytest.mark.slow
async def test_an_idle_session_takes_up_little_memory(tmp_path: Path) -> None:
    many, provider = 100, ScriptedProvider()
    async with Runtime([provider], store=SqliteStore(tmp_path / "s"), audit=NullAudit()) as made:

        async def talk(session: Session) -> None:
            provider.push(text("word " * 200))
            await session.append_turn("question " * 20)
            provider.recorded_requests.clear()

        others = [await made.create_session("other", MODEL) for _ in range(WARM)]
        for session in [*others, *others]:
            await talk(session)
        tracemalloc.start()
        before, sessions = held(), []
        for _ in range(many):
            sessions.append(await made.create_session("idle", MODEL))
            await talk(sessions[-1])
        for session in others:
            await talk(session)
        each = (held() - before) / many
        tracemalloc.stop()
    assert 1_000 < each < 6 * 1024


def held() -> int:
    """Return the bytes of Python's own memory that are in use."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def test_agents_that_take_turns_together_keep_their_messages_until_fewer_do() -> None:
    many = 2 * WARM
    async with bench(*[text("ok") for _ in range(2 * many + 2)]) as table:
        agents = [await table.agent() for _ in range(many)]
        for _ in range(2):
            async with anyio.create_task_group() as group:
                for agent in agents:
                    group.start_soon(agent.send, "hi")
            assert all(agent.transcript.is_loaded for agent in agents)
        for _ in range(2):
            await agents[0].send("and?")
        assert sum(agent.transcript.is_loaded for agent in agents) == WARM
        assert agents[0].transcript.is_loaded


async def test_an_agent_that_waits_for_an_answer_keeps_its_messages() -> None:
    stream = ControlledStream()
    async with bench(text("ok"), stream) as table, anyio.create_task_group() as group:
        busy, others = await table.agent(), [await table.agent() for _ in range(WARM + 1)]
        await busy.send("hi")
        group.start_soon(busy.send, "wait")
        await stream.wait_opened()
        for agent in others:
            table.provider.push(text("ok"))
            await agent.send("hi")
        assert busy.transcript.is_loaded
        stream.send_answer(text("done"))
        await busy.wait_until_idle()
        assert [message.text() for message in busy.history()] == ["hi", "ok", "wait", "done"]


async def test_an_agent_keeps_its_configuration(tmp_path: Path) -> None:
    config = AgentConfig(system="Be brief.", hidden_tools=("act",), temperature=0.1)
    async with bench(store=SqliteStore(tmp_path / "s")) as table:
        agent = await table.agent(config)
    async with bench(store=SqliteStore(tmp_path / "s")) as table:
        assert (await table.runtime.resume_agent(agent.id)).config == config


# ---- beginning and end ----------------------------------------------------------------------------------------


async def test_recovery_is_announced_once_with_the_id_of_the_runtime() -> None:
    recorder = Recorder()
    async with Runtime([ScriptedProvider()], store=VolatileStore(), audit=NullAudit(), hooks=[recorder]) as made:
        await made.spawn("a", MODEL)
        await made.spawn("b", MODEL)
    [prepared] = recorder.events
    assert isinstance(prepared, e.RecoveryPrepared)
    assert prepared.runtime_instance_id == made.id


PROGRAM = """
import anyio, pathlib, sys
from mentra_nb import ModelInfo, Runtime
from mentra_nb.providers.scripted import ScriptedProvider, text

home = pathlib.Path(sys.argv[1])

async def main():
    async with Runtime([ScriptedProvider([text("hi")])]) as runtime:
        await (await runtime.spawn("a", ModelInfo(id="scripted", provider="scripted"))).send("hello")

made = Runtime([ScriptedProvider()])
repr(made)
anyio.run(made.close)
assert not home.exists(), "making a runtime opened a file"
anyio.run(main)
print(*sorted(file.name for file in home.iterdir()))
"""


def test_making_a_runtime_opens_no_file_and_state_and_record_go_to_the_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    environment = {**os.environ, "MENTRA_HOME": str(home)}
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(home)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert {"record", "state.sqlite"} <= set(done.stdout.split())


def test_uses_platform_data_directory_when_available(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MENTRA_HOME", "MENTRA_STATE", "MENTRA_RECORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert paths.home() == platformdirs.user_data_path("mentra", appauthor=False)
    assert (paths.state_file().parent, paths.record_folder().parent) == (paths.home(), paths.home())
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path))
    assert (paths.state_file(), paths.record_folder()) == (tmp_path / "state.sqlite", tmp_path / "record")


class Named:
    """A hook that writes down its name."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told = name, told

    def on_event(self, store: AuditStore, event: e.RuntimeEvent) -> None:
        self.told.append(self.name)


class Kept(NullAudit):
    def __init__(self, told: list[str]) -> None:
        self.told = told

    def record_audit_event(self, scope: str, event_type: str, payload: object) -> None:
        self.told.append("record")


def test_hooks_are_called_in_order_after_the_record_and_adding_one_removes_none() -> None:
    told: list[str] = []
    hooks = RuntimeHooks([Named("a", told)]).with_hook(Named("b", told)).extend([Named("c", told), Named("d", told)])
    hooks.emit(Kept(told), e.RunAborted(agent_id="x", reason="y"))
    assert told == ["record", "a", "b", "c", "d"]


def test_only_replacing_all_by_name_leaves_the_record_out() -> None:
    told: list[str] = []
    hooks = RuntimeHooks([Named("a", told)]).replace_all([Named("b", told)])
    hooks.emit(Kept(told), e.RunAborted(agent_id="x", reason="y"))
    assert told == ["b"]
    assert AuditLogHook is AuditHook


async def test_a_hook_given_to_the_runtime_does_not_silence_the_record() -> None:
    recorded: list[str] = []

    class Audit(NullAudit):
        def record_audit_event(self, scope: str, event_type: str, payload: object) -> None:
            recorded.append(event_type)

    async with bench(text("hi"), audit=Audit()) as table:
        await (await table.agent()).send("hello")
    assert recorded == table.recorder.kinds()


async def test_a_record_that_fails_is_warned_of_once_and_fails_neither_turn_nor_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Audit(NullAudit):
        def record_audit_event(self, scope: str, event_type: str, payload: object) -> None:
            raise OSError("disk full")

        def sync(self) -> None:
            raise OSError("disk gone")

    async with bench(tool_calls([("act", {})]), text("hi"), tools=[act], audit=Audit()) as table:
        session = await table.session(ask="always")
        allow_all(session)
        assert (await session.append_turn("hello")).text() == "hi"
    assert session.history()[2].tool_results()[0].content == "done"
    assert table.recorder.kinds()[-1] == "turn_finished"
    assert [r.message for r in caplog.records if "disk full" in r.message] == [
        "the record fails and events are missing from it: disk full"
    ]
