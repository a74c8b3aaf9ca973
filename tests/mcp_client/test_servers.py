"""Real MCP servers over both transports: what they offer, calls, errors, death in the middle, and what is trusted."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from kits.core import bench
from kits.mcp_programs import free_port, npm, serving

from mentra_nb.authorization import CustomCapability
from mentra_nb.chat.chat import chat_on
from mentra_nb.chat.engine import Engine
from mentra_nb.content import Image, ToolResult
from mentra_nb.errors import ConfigurationError
from mentra_nb.event import types as e
from mentra_nb.event.bus import NullAudit
from mentra_nb.event.screen import Notice
from mentra_nb.mcp_client.connection import McpConnection
from mentra_nb.mcp_client.results import LONGEST_NAME, output_of, tool_name
from mentra_nb.mcp_client.servers import McpServers
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import McpServer, Settings
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.schema import ToolError
from mentra_nb.tools.tool import Tool

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture(params=["kit_stdio", "kit_http"])
def kit(request: pytest.FixtureRequest) -> McpServer:
    """The kit's server, which speaks the newer protocol, over each transport."""
    config: McpServer = request.getfixturevalue(request.param)
    return config


@pytest.fixture(params=["stdio", "http"])
def everything(request: pytest.FixtureRequest) -> McpServer:
    """The example server of the protocol's project, which speaks the older protocol, over each transport."""
    config: McpServer = (
        npm("server-everything", env={"SECRET_OF_THE_SERVER": "s3cret"})
        if request.param == "stdio"
        else request.getfixturevalue("everything_http")
    )
    return config


def its_process(config: McpServer) -> psutil.Process:
    """Return the process of a server that was started by this one."""
    [found] = [
        each
        for each in psutil.Process().children(recursive=True)
        if each.cmdline()[-len(config.args) :] == list(config.args)
    ]
    return found


async def connected(servers: McpServers, name: str, config: McpServer) -> McpConnection:
    await servers.connect(name, config)
    return servers._connections[name]


async def test_tools_resources_and_prompts_are_listed_and_read(servers: McpServers, kit: McpServer) -> None:
    server = await connected(servers, "kit", kit)
    assert (await server.connect()).protocol_version >= "2026"
    [status] = servers.statuses()
    assert {"mcp__kit__add", "mcp__kit__fail"} < set(status.tools)
    assert (status.resources, status.prompts) == (("kit://greeting",), ("review",))
    assert await server.read("kit://greeting") == "Good morning."
    assert await server.prompt("review", {"code": "x = 1"}) == "Review this: x = 1"


async def test_the_older_protocol_is_spoken_too(servers: McpServers, everything: McpServer) -> None:
    server = await connected(servers, "everything", everything)
    assert (await server.connect()).protocol_version < "2026"
    assert output_of(await server.call("echo", {"message": "hello"})).content == "Echo: hello"
    shown: list[str] = []
    await server.call("trigger-long-running-operation", {"duration": 0.2, "steps": 2}, shown.append)
    assert shown != []
    picture = output_of(await server.call("get-tiny-image", {}))
    assert [type(image) for image in picture.images] == [Image]
    structured = output_of(await server.call("get-structured-content", {"location": "Chicago"}))
    assert "temperature" in str(structured.content)


async def test_a_failed_call_is_the_tools_own_error(servers: McpServers, kit: McpServer) -> None:
    server = await connected(servers, "kit", kit)
    with pytest.raises(ToolError, match="it cannot be done"):
        output_of(await server.call("fail", {}))
    with pytest.raises(ToolError, match="valid integer"):
        output_of(await server.call("add", {"a": "x", "b": 1}))
    assert output_of(await server.call("add", {"a": 1, "b": 2})).content == "3"


async def test_the_json_rpc_text_of_a_server_stays_out_of_the_models_context(
    servers: McpServers, everything: McpServer
) -> None:
    server = await connected(servers, "everything", everything)
    with pytest.raises(
        ToolError, match=r"^MCP tool call failed: 'everything' answered with error -32\d\d\d: [a-z ,;]+$"
    ):
        await server.read("demo://resource/there-is-none")


@pytest.mark.parametrize("transport", ["kit_stdio", "mortal_http"])
async def test_a_server_that_dies_in_a_call_leaves_it_unknown_and_it_is_not_called_again(
    servers: McpServers, transport: str, calls: Path, request: pytest.FixtureRequest
) -> None:
    kit: McpServer = request.getfixturevalue(transport)
    server = await connected(servers, "kit", kit)
    with pytest.raises(ToolError, match="which is not known; it was not called again"):
        await server.call("die", {})
    assert calls.read_text() == "die\n"
    if kit.command is not None:  # one that we start is started again, for the next call
        assert output_of(await server.call("add", {"a": 1, "b": 2})).content == "3"


async def test_a_server_that_died_between_calls_is_started_again(servers: McpServers, kit_stdio: McpServer) -> None:
    server = await connected(servers, "kit", kit_stdio)
    first = await server.connect()
    its_process(kit_stdio).kill()
    while server.status == "connected":
        await asyncio.sleep(0)
    assert output_of(await server.call("add", {"a": 1, "b": 2})).content == "3"
    assert await server.connect() is not first


async def test_a_session_that_a_server_forgot_is_begun_anew_by_the_next_call(servers: McpServers) -> None:
    port, program = free_port(), npm("server-everything", "streamableHttp")
    command, env = [str(program.command), *program.args], {"PORT": str(port)}
    with serving(command, port, env):
        server = await connected(servers, "everything", McpServer(url=f"http://127.0.0.1:{port}/mcp"))
        with pytest.raises(ToolError, match="error"):
            await server.read("demo://resource/there-is-none")
        assert server.status == "connected"
    with serving(command, port, env):
        with pytest.raises(ToolError, match="which is not known; it was not called again"):
            await server.call("echo", {"message": "a"})
        assert output_of(await server.call("echo", {"message": "b"})).content == "Echo: b"


async def test_closing_ends_the_servers_process(servers: McpServers, kit_stdio: McpServer) -> None:
    await servers.connect("kit", kit_stdio)
    process = its_process(kit_stdio)
    await servers.close()
    assert not process.is_running()


async def test_the_environment_is_not_inherited(
    servers: McpServers, monkeypatch: pytest.MonkeyPatch, offered: dict[str, Tool]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-mine")
    monkeypatch.setenv("PASSED", "on purpose")
    config = npm("server-everything", env={"OWN": "given"}).model_copy(update={"pass_env": ("PASSED",)})
    server = await connected(servers, "everything", config)
    environment = str(output_of(await server.call("get-env", {})).content)
    assert "sk-of-mine" not in environment
    assert '"OWN": "given"' in environment
    assert '"PASSED": "on purpose"' in environment


async def test_files_are_read_through_a_server(servers: McpServers, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("remember")
    server = await connected(servers, "files", npm("server-filesystem", str(tmp_path)))
    read = output_of(await server.call("read_text_file", {"path": str(tmp_path / "note.txt")}))
    assert "remember" in str(read.content)
    with pytest.raises(ToolError, match="outside allowed directories"):
        output_of(await server.call("read_text_file", {"path": "/etc/hostname"}))


async def test_the_time_is_told_by_a_server(servers: McpServers) -> None:
    server = await connected(servers, "time", McpServer(command=sys.executable, args=("-m", "mcp_server_time")))
    assert "Tokyo" in str(output_of(await server.call("get_current_time", {"timezone": "Asia/Tokyo"})).content)


# ---- authorization ------------------------------------------------------------------------------------------------


async def test_the_servers_annotations_grant_nothing_and_what_a_call_may_touch_is_named(
    servers: McpServers, kit_stdio: McpServer, offered: dict[str, Tool]
) -> None:
    await servers.connect("kit", kit_stdio)
    spec = offered["mcp__kit__add"].spec
    assert (spec.reads_only, spec.parallel, spec.asks, spec.effect) == (False, False, True, "once")
    assert spec.capabilities == (CustomCapability(Custom="mcp:kit"),)
    assert (spec.side_effect_level, spec.execution_category) == ("External", "ExclusiveLocalMutation")


async def test_a_call_is_authorized_limited_and_recorded_as_any_other(kit_stdio: McpServer) -> None:
    add = tool_calls([("mcp__kit__add", {"a": 1, "b": 2}), ("mcp__kit__large", {"lines": 5000})])
    async with bench(add, text("done"), authorizer=None, mcp={"kit": kit_stdio}) as table:
        agent = await table.agent()
        await agent.send("add")
        assert [each.outcome for each in table.recorder.of(e.ToolAuthorizationFinished)] == ["deny", "deny"]
    async with bench(add, text("done"), mcp={"kit": kit_stdio}) as table:
        agent = await table.agent()
        await agent.send("add")
        blocks = [block for message in agent.history() for block in message.content]
        sizes = [len(block.display()) for block in blocks if isinstance(block, ToolResult)]
        assert sizes[0] == 1
        assert sizes[1] < 60_000


# ---- settings and names -------------------------------------------------------------------------------------------


async def test_a_server_that_cannot_be_reached_does_not_stop_the_others(
    servers: McpServers, kit_stdio: McpServer
) -> None:
    ends = McpServer(command=sys.executable, args=("-c", "import sys; sys.exit('no key given')"))
    servers.add({"kit": kit_stdio, "missing": McpServer(command="no-such-program"), "ends": ends})
    await servers.connect_all()
    assert [(each.name, each.status) for each in servers.statuses()] == [
        ("ends", "error"),
        ("kit", "connected"),
        ("missing", "error"),
    ]
    assert [each.error for each in servers.statuses()] == [
        "the MCP server 'ends' did not connect: no key given",
        None,
        "the MCP server 'missing' cannot be started: 'no-such-program': No such file or directory",
    ]
    with pytest.raises(ConfigurationError, match="there is no MCP server 'other'; there are: ends, kit, missing"):
        await servers.read("other", "kit://greeting")


async def test_a_server_that_says_nothing_is_given_up(servers: McpServers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mentra_nb.mcp_client.connection.CONNECT_SECONDS", 0.3)
    silent = McpServer(command=sys.executable, args=("-c", "import sys; sys.stdin.read()"))
    with pytest.raises(ConfigurationError, match=r"did not answer within 0.3 s"):
        await servers.connect("silent", silent)
    assert servers.statuses() == []


async def test_closing_while_a_server_is_connected_ends_its_process(servers: McpServers) -> None:
    silent = McpServer(command=sys.executable, args=("-c", "import sys; sys.stdin.read()  # silent"))
    connection = McpConnection("silent", silent, lambda tools: None)
    connecting = asyncio.create_task(connection.connect())
    while not [each for each in psutil.Process().children() if "silent" in " ".join(each.cmdline())]:
        await asyncio.sleep(0)
    process = its_process(silent)
    await connection.close()
    with pytest.raises(ConfigurationError):
        await connecting
    assert not process.is_running()


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({}, "give either command or url"),
        ({"command": "x", "url": "http://h/mcp"}, "give either command or url"),
        ({"url": "http://h/sse"}, "the old transport"),
        ({"url": "ftp://h/mcp"}, "http:// or https://"),
        ({"url": "https://user:pw@h/mcp"}, "without a user"),
        ({"url": "http://h/mcp", "headers": {"Authorization": "Bearer x"}}, "plain text"),
    ],
)
def test_a_server_is_reached_in_one_way_that_is_safe(config: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        McpServer.model_validate(config)


def test_headers_may_go_to_this_machine_in_plain_text_and_are_never_shown() -> None:
    config = McpServer.model_validate({"url": "http://127.0.0.1/mcp", "headers": {"Authorization": "Bearer s3cret"}})
    assert "s3cret" not in repr(config) + config.model_dump_json()


@pytest.mark.parametrize("tool", ["add", "a.b", "x" * 80, "é", "read file"])
def test_the_name_of_a_tool_fits_every_provider(tool: str) -> None:
    name = tool_name("kit", tool)
    assert len(name) <= LONGEST_NAME
    assert name.startswith("mcp__kit__")
    assert name.replace("_", "").replace("-", "").isalnum()
    assert name.isascii()
    assert tool_name("kit", tool) == name
    assert len({tool_name("kit", other) for other in ("a.b", "a_b", "a b", "x" * 80, "x" * 81)}) == 5


async def test_a_stop_during_a_call_returns_at_once(servers: McpServers, kit_stdio: McpServer) -> None:
    server = await connected(servers, "kit", kit_stdio)
    process = its_process(kit_stdio)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await server.call("add", {"a": 1, "b": 2})
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert output_of(await server.call("add", {"a": 2, "b": 2})).content == "4"


def test_a_server_of_the_settings_is_connected_with_the_first_turn_and_one_that_fails_is_said_once(
    kit_stdio: McpServer,
) -> None:
    settings = Settings(model="scripted/scripted", mcp={"kit": kit_stdio, "gone": McpServer(command="no-such-program")})
    provider = ScriptedProvider([text("1"), text("2")])
    runtime = Runtime([provider], store=VolatileStore(), audit=NullAudit(), builtin_tools=False, mcp=settings.mcp)
    engine = Engine(settings, runtime)
    try:
        chat, said = chat_on(engine, "talk"), list[list[str]]()
        for _ in range(2):
            turn = chat.start("hello", can_ask=False)
            turn.result()
            events = [turn.events.get_nowait() for _ in range(turn.events.qsize())]
            said.append([event.message for event in events if isinstance(event, Notice)])
    finally:
        engine.close()
    assert "mcp__kit__add" in [each.name for each in provider.recorded_requests[0].tools]
    assert ["cannot be started" in "".join(texts) for texts in said] == [True, False]
