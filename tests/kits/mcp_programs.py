"""How tests start MCP servers: those from npm, and any that takes connections on a port."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kits.programs import mcp_program
from mentra_nb.settings import McpServer

KIT = Path(__file__).parent / "mcp_server.py"
HOSTILE = Path(__file__).parent / "mcp_hostile.py"


def npm(name: str, *args: str, env: dict[str, str] | None = None) -> McpServer:
    """Return the configuration of one of the servers from npm. Fails the test if it is not installed."""
    program = mcp_program(name)
    if program is None:
        pytest.fail(f"{name} is not installed: make mcp")
    return McpServer.model_validate({"command": str(program[0]), "args": [str(program[1]), *args], "env": env or {}})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(command: list[str], port: int, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end, from the moment it takes connections."""
    process = subprocess.Popen(
        command, env={**os.environ, **(env or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            assert process.poll() is None, "the server has ended"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                continue
        yield process
    finally:
        process.kill()
        process.wait()
