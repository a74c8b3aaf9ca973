"""An MCP server for tests, with the official SDK: `python mcp_server.py stdio|http PORT`."""

from __future__ import annotations

import os
import sys
import time

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

server = MCPServer("kit")


@server.tool(annotations=ToolAnnotations(read_only_hint=True, destructive_hint=False))
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def die(after: float = 0.0) -> str:
    """End the server's process in the middle of the call."""
    with open(os.environ["KIT_CALLS"], "a") as file:  # noqa: PTH123
        file.write("die\n")
    time.sleep(after)
    os._exit(1)


@server.tool()
def large(lines: int) -> str:
    """Return many lines."""
    return "\n".join(f"line {n}" for n in range(lines))


@server.tool(name="a.tool with a name that is too long for most providers, and odd: ä")
def odd() -> str:
    """Return the name of the kit."""
    return "kit"


@server.tool()
def fail() -> str:
    """Fail."""
    raise ToolError("it cannot be done\x1b[2J")


@server.resource("kit://greeting")
def greeting() -> str:
    """Return a greeting."""
    return "Good morning."


@server.prompt()
def review(code: str) -> str:
    """Return a request to review code."""
    return f"Review this: {code}"


if __name__ == "__main__":
    if sys.argv[1] == "http":
        server.run(transport="streamable-http", port=int(sys.argv[2]))
    else:
        server.run(transport="stdio")
