"""Real MCP servers as separate processes: two of the protocol's own examples from npm, one from PyPI, one of ours."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kits.mcp_programs import KIT, free_port, npm, serving

from mentra_nb.mcp_client.servers import McpServers
from mentra_nb.settings import McpServer
from mentra_nb.tools.tool import Tool


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """The file to which the kit's server writes the calls that end it."""
    return tmp_path / "calls"


@pytest.fixture
def kit_stdio(calls: Path) -> McpServer:
    return McpServer.model_validate(
        {"command": sys.executable, "args": [str(KIT), "stdio"], "env": {"KIT_CALLS": str(calls)}}
    )


@pytest.fixture
def mortal_http(calls: Path) -> Iterator[McpServer]:
    """The kit's server over HTTP for one test, which may end it."""
    port = free_port()
    with serving([sys.executable, str(KIT), "http", str(port)], port, {"KIT_CALLS": str(calls)}):
        yield McpServer(url=f"http://127.0.0.1:{port}/mcp")


@pytest.fixture(scope="module")
def kit_http() -> Iterator[McpServer]:
    port = free_port()
    with serving([sys.executable, str(KIT), "http", str(port)], port):
        yield McpServer(url=f"http://127.0.0.1:{port}/mcp")


@pytest.fixture(scope="module")
def everything_http() -> Iterator[McpServer]:
    port, program = free_port(), npm("server-everything", "streamableHttp")
    with serving([str(program.command), *program.args], port, {"PORT": str(port)}):
        yield McpServer(url=f"http://127.0.0.1:{port}/mcp")


@pytest.fixture
def offered() -> dict[str, Tool]:
    return {}


@pytest.fixture
async def servers(offered: dict[str, Tool]) -> AsyncIterator[McpServers]:
    made = McpServers(offered)
    yield made
    await made.close()
