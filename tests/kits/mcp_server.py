"""An MCP server for tests, with the official SDK: `python mcp_server.py stdio|http PORT`."""

import os
import sys
import time
from typing import Annotated, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver import Elicit, ElicitationResult, Resolve
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

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


class Trip(BaseModel):
    city: str = Field(title="City")
    days: int = 2
    sea: bool = False
    season: Literal["summer", "winter"] = "summer"


async def where_to() -> Elicit[Trip]:
    return Elicit("Where to?", Trip)


@server.tool()
def plan(trip: Annotated[ElicitationResult[Trip], Resolve(where_to)]) -> str:
    """Plan a trip, which the person is asked about."""
    return f"{trip.action}: {trip.data if trip.action == 'accept' else None}"


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
