"""Servers that misbehave: what they send has bounds, no turn hangs, and what is wrong is one sentence."""

from __future__ import annotations

import json
import re
import resource
import sys
from typing import Any

import pytest
from kits.core import bench
from kits.http_server import Reply, Server
from kits.mcp_programs import HOSTILE

from mentra_nb.content import ToolResult
from mentra_nb.errors import ConfigurationError
from mentra_nb.mcp_client import bounds, connection, transports
from mentra_nb.mcp_client.bounds import ANY_ARGUMENTS, MAX_PICTURES, bounded_utf_8, usable_schema
from mentra_nb.mcp_client.results import LONGEST_NAME
from mentra_nb.mcp_client.servers import McpServers
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.settings import McpServer
from mentra_nb.tools.schema import ToolError
from mentra_nb.tools.tool import Tool

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

UNKNOWN = "it may have taken effect, which is not known; it was not called again"
BREAKS = "it breaks the protocol"


def hostile(mode: str) -> McpServer:
    return McpServer(command=sys.executable, args=("-S", str(HOSTILE), mode))


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Let a server that is to hang be given up soon; any other has all the time there is."""
    if found := re.search(r"within ([\d.]+) s", why):
        monkeypatch.setattr(connection, "CONNECT_SECONDS", float(found[1]))
        monkeypatch.setattr(connection, "LIST_SECONDS", float(found[1]))


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("hangs", "did not answer within 0.5 s"),
        ("says-and-hangs", "did not answer within 2 s: \ufffd[2Jwaiting for the database"),
        ("floods", "did not answer within 0.5 s"),
        ("hangs-in-list", "did not answer within 0.5 s"),
        ("dies-in-list", "did not connect: it ended"),
        ("not-a-list", f"did not connect: {BREAKS}"),
        ("broken-schema", f"did not connect: {BREAKS}"),
        ("old", "did not connect: it speaks no version of the protocol that is known here"),
    ],
)
async def test_a_server_that_cannot_be_used_is_said_in_one_sentence(
    servers: McpServers, patience: None, mode: str, why: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        await servers.connect("odd", hostile(mode))
    assert str(refused.value) == f"the MCP server 'odd' {why}"
    assert servers.statuses() == []


@pytest.mark.parametrize(
    ("mode", "why"),
    [("too-many", "lists more than 1000 tools"), ("endless-pages", "lists its tools in more than 1000 pages")],
)
async def test_a_list_has_an_end(servers: McpServers, mode: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        await servers.connect("odd", hostile(mode))
    assert str(refused.value) == f"the MCP server 'odd' {why}"


@pytest.mark.parametrize(("mode", "deferred"), [("some", False), ("many", True)])
async def test_of_many_tools_the_model_searches_those_it_needs(
    servers: McpServers, offered: dict[str, Tool], mode: str, deferred: bool
) -> None:
    await servers.connect("odd", hostile(mode))
    assert {tool.spec.wire.deferred for tool in offered.values()} == {deferred}


async def test_any_name_becomes_one_that_providers_take_and_none_is_there_twice(
    servers: McpServers, offered: dict[str, Tool]
) -> None:
    await servers.connect("odd", hostile("names"))
    assert len(offered) == 10  # of eleven, two of which are equal
    for name, tool in offered.items():
        assert name.startswith("mcp__odd__")
        assert len(name) <= LONGEST_NAME
        assert name.isascii()
        assert name.replace("_", "").replace("-", "").isalnum()
        assert "\x1b" not in (tool.spec.description or "")
        assert "\u202e" not in (tool.spec.description or "")


async def test_a_schema_that_a_provider_could_refuse_is_left_out(servers: McpServers, offered: dict[str, Tool]) -> None:
    await servers.connect("odd", hostile("schemas"))
    assert [tool.spec.input_schema for tool in offered.values()] == [ANY_ARGUMENTS] * 2


LOOP = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "properties": {"x": {"$ref": "#/$defs/a"}}}


@pytest.mark.parametrize(
    "schema",
    [
        3,
        {"type": "array"},
        {"type": ["object"]},
        {"type": "nonsense"},
        {"properties": 3},
        {"properties": {"a": []}},
        {"properties": {"a": {"pattern": "(" * 50}}},
        {"required": "a"},
        {"required": [1, None]},
        {"description": "x" * 40_000},
        LOOP,
        {"properties": {"a": {"$ref": "http://127.0.0.1:1/schema"}}},
        {"properties": {"a": {"$ref": "#/$defs/none"}}},
        {"properties": {"a": {"$ref": 3}}},
    ],
)
def test_what_is_no_schema_or_refers_to_nothing_stands_for_any_arguments(schema: Any) -> None:
    assert usable_schema(schema) == ANY_ARGUMENTS


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"properties": {"a": {"$ref": "#/$defs/t"}}, "$defs": {"t": {"items": {"$ref": "#/$defs/t"}}}},
        {"properties": {"a": {"$ref": "#"}}},
        {"properties": {"a": {"$ref": "#/$defs/a~1b"}}, "$defs": {"a/b": True}},
        {"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"$ref": "#/$defs/c"}, "c": {"type": "null"}}},
    ],
)
def test_a_schema_that_is_one_is_sent_as_it_is(schema: dict[str, Any]) -> None:
    assert usable_schema(schema) == {"type": "object", "properties": {}, **schema}


@pytest.mark.parametrize("mode", ["junk", "storm", "logs", "asks-for-sampling", "asks-for-roots"])
async def test_what_a_server_says_beside_its_answer_does_no_harm(
    servers: McpServers, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    await servers.connect("odd", hostile(mode))
    assert (await servers.call("odd", "act", {})).content == "done"
    await servers.close()
    assert capfd.readouterr() == ("", "")


async def test_a_storm_of_changes_is_listed_a_few_times(servers: McpServers, monkeypatch: pytest.MonkeyPatch) -> None:
    await servers.connect("odd", hostile("storm"))
    known, listed = servers._connections["odd"], 0
    whole = known._list

    async def counted(client: Any) -> None:
        nonlocal listed
        listed += 1
        await whole(client)

    monkeypatch.setattr(known, "_list", counted)
    await servers.call("odd", "act", {})
    assert 1 <= listed <= 5  # of 5,000


async def test_a_flood_of_progress_is_shown_ten_times_a_second(servers: McpServers) -> None:
    shown: list[str] = []
    await servers.connect("odd", hostile("progress"))
    assert (await servers.call("odd", "act", {}, shown.append)).content == "done"
    assert 1 <= len(shown) < 100  # of 20,000, in a few seconds
    assert all("\x1b" not in line for line in shown)


async def test_of_what_a_server_writes_to_its_error_stream_only_the_end_is_kept(servers: McpServers) -> None:
    await servers.connect("odd", hostile("errors"))
    heard = servers._get("odd")._heard
    assert heard is not None
    assert (await servers.call("odd", "act", {})).content == "done"
    await servers.close()
    assert heard.last_line(100) == "no room left"
    assert len(heard._errors) == transports.KEPT


@pytest.mark.parametrize("mode", ["large", "endless-line"])
async def test_an_answer_without_end_is_not_read_into_memory_and_leaves_the_call_unknown(
    servers: McpServers, mode: str
) -> None:
    await servers.connect("odd", hostile(mode))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ToolError) as refused:
        await servers.call("odd", "act", {})
    assert str(refused.value) == (f"MCP tool call failed: 'odd' sent a message of more than 16 MiB: {UNKNOWN}")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB


async def test_after_a_message_that_was_too_long_the_next_call_is_answered(servers: McpServers) -> None:
    await servers.connect("odd", hostile("large-once"))
    with pytest.raises(ToolError, match="more than 16 MiB"):
        await servers.call("odd", "act", {"large": True})
    assert (await servers.call("odd", "act", {})).content == "done"


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_lines_are_decoded_as_they_are_however_they_are_cut(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_MESSAGE", 40)
    import codecs

    data = ("é" * 20 + "\n" + "é" * 21 + "\nshort\n" + "x" * 1000).encode()
    decoder = codecs.getincrementaldecoder(bounded_utf_8())("replace")
    lines = "".join(decoder.decode(data[at : at + size]) for at in range(0, len(data), size)).split("\n")
    assert lines[0] == "é" * 20
    assert "short" in lines
    assert lines.count('"a message is too long"') == 2
    assert all(len(line) <= 40 for line in lines)


async def test_pictures_that_are_none_or_too_many_are_named_and_not_shown(servers: McpServers) -> None:
    await servers.connect("odd", hostile("broken-pictures"))
    found = await servers.call("odd", "act", {})
    assert (found.images, str(found.content)[:36]) == ((), "[image of type image/png, not shown]")
    await servers.connect("odd", hostile("pictures"))
    assert len((await servers.call("odd", "act", {})).images) == MAX_PICTURES


async def test_a_strange_answer_leaves_the_call_unknown(servers: McpServers) -> None:
    await servers.connect("odd", hostile("odd-answer"))
    with pytest.raises(ToolError, match=rf"^MCP tool call failed: 'odd' broke the protocol \(\w+\): {UNKNOWN}$"):
        await servers.call("odd", "act", {})


async def test_a_turn_goes_on_where_a_server_ends_it_all() -> None:
    async with bench(tool_calls([("mcp__odd__act", {})]), text("done"), mcp={"odd": hostile("endless-line")}) as table:
        agent = await table.agent()
        assert (await agent.send("act")).text() == "done"
        [result] = [block for each in agent.history() for block in each.content if isinstance(block, ToolResult)]
        assert "more than 16 MiB" in result.display()


# ---- over HTTP ------------------------------------------------------------------------------------------------------


def reply(status: int, body: bytes = b"", kind: str = "application/json", **headers: str) -> Reply:
    return Reply([body] if body else [], status, {"content-type": kind, **headers})


REPLIES = {
    "401": (reply(401), "did not connect: it asks for a key (HTTP status 401), which belongs in headers"),
    "403": (reply(403), "did not connect: it asks for a key (HTTP status 403), which belongs in headers"),
    "404": (reply(404), "did not connect: it answered with HTTP status 404"),
    "500": (reply(500, b"\x1b[2J"), "did not connect: it answered with HTTP status 500"),
    "elsewhere": (
        reply(307, location="http://other.example/mcp"),
        "did not connect: it redirects to http://other.example/mcp, which is not followed; if that is right, "
        "give this address",
    ),
    "page": (reply(200, b"<html>", "text/html"), f"did not connect: {BREAKS}"),
    "no JSON": (reply(200, b"{nope"), f"did not connect: {BREAKS}"),
    "nothing": (reply(200), f"did not connect: {BREAKS}"),
    "large": (
        Reply([b" " * 1_000_000] * 20, 200, {"content-type": "application/json"}),
        "sent a message of more than 16 MiB",
    ),
    "mute": (Reply(end="mute"), "did not answer within 0.5 s"),
    "stalled": (Reply([b"{"], 200, {"content-type": "application/json"}, end="stall"), "did not answer within 0.5 s"),
}


@pytest.mark.parametrize(("replied", "why"), REPLIES.values(), ids=REPLIES)
async def test_a_server_over_http_that_cannot_be_used_is_said_in_one_sentence(
    server: Server, servers: McpServers, patience: None, replied: Reply, why: str
) -> None:
    server.reply(*[replied] * 4)
    config = McpServer.model_validate({"url": f"{server.url}/mcp", "headers": {"Authorization": "Bearer s3cret"}})
    with pytest.raises(ConfigurationError) as refused:
        await servers.connect("odd", config)
    assert str(refused.value) == f"the MCP server 'odd' {why}"
    assert "s3cret" not in json.dumps(str(refused.value))


async def test_where_nothing_listens_it_is_said(servers: McpServers) -> None:
    with pytest.raises(ConfigurationError, match=r"^the MCP server 'odd' did not connect: [A-Za-z ]+$"):
        await servers.connect("odd", McpServer(url="http://127.0.0.1:1/mcp"))
