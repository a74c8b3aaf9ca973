"""The MCP servers of a runtime: which there are, and their tools among the runtime's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mentra_nb.errors import ConfigurationError
from mentra_nb.mcp_client.bounds import ALL_DESCRIBED
from mentra_nb.mcp_client.connection import McpConnection
from mentra_nb.mcp_client.results import output_of
from mentra_nb.mcp_client.tool import McpTool
from mentra_nb.settings import McpServer
from mentra_nb.tools.tool import Tool, ToolOutput

if TYPE_CHECKING:
    from mcp.types import Tool as ServerTool


@dataclass(frozen=True)
class McpStatus:
    """What is known of a server. `tools` are the names by which a model calls them.

    Example:
        >>> runtime.mcp.statuses()
        []
    """

    name: str
    status: Literal["disconnected", "connecting", "connected", "error"] = "disconnected"
    address: str = ""
    """Its command line, or its address."""
    tools: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    error: str | None = None
    """Why it could not be reached."""


class McpServers:
    """The servers of a runtime. Their tools are offered as `mcp__NAME__TOOL` while they are connected.

    Args:
        offered: Where the tools are put, and taken out when a server is removed.

    Example:
        >>> import sys
        >>> clock = mn.McpServer(command=sys.executable, args=["-m", "mcp_server_time"])
        >>> (await runtime.mcp.connect("clock", clock)).tools
        ('mcp__clock__get_current_time', 'mcp__clock__convert_time')
        >>> "Tokyo" in (await runtime.mcp.call("clock", "get_current_time", {"timezone": "Asia/Tokyo"})).content
        True
        >>> [each.status for each in runtime.mcp.statuses()]
        ['connected']
        >>> await runtime.mcp.read("clock", "clock://zones")
        Traceback (most recent call last):
        ...
        mentra_nb.tools.schema.ToolError: MCP tool call failed: 'clock' answered with error ...
        >>> await runtime.mcp.prompt("clock", "plan", {})
        Traceback (most recent call last):
        ...
        mentra_nb.tools.schema.ToolError: MCP tool call failed: 'clock' answered with error ...
        >>> await runtime.mcp.remove("clock")
        >>> runtime.mcp.add({"clock": clock})
        >>> await runtime.mcp.connect_all()
        >>> await runtime.mcp.close()
    """

    def __init__(self, offered: MutableMapping[str, Tool]) -> None:
        self._offered = offered
        self._connections: dict[str, McpConnection] = {}

    def add(self, servers: Mapping[str, McpServer]) -> None:
        """Add servers, which `connect_all` connects. A server of the same name is replaced when it is not connected."""
        for name, config in servers.items():
            known = self._connections.get(name)
            if known is None or known.status != "connected":
                self._connections[name] = self._connection(name, config)

    async def connect(self, name: str, config: McpServer | None = None) -> McpStatus:
        """Add a server and connect; it replaces one of the same name. Without `config`, connect one that was added.

        Raises `ConfigurationError` if it cannot be reached or there is none; then nothing is changed.
        """
        made = self._get(name) if config is None else self._connection(name, config)
        await made.connect()
        if config is not None:
            await self.remove(name)
            self._connections[name] = made
        return self._status(made)

    async def connect_all(self) -> None:
        """Connect the servers that were added and not yet tried. One that fails does not stop the others."""
        new = [each for each in self._connections.values() if each.status == "disconnected"]
        found = await asyncio.gather(*(each.connect() for each in new), return_exceptions=True)
        for error in found:  # one that could not be reached has it in its status
            if isinstance(error, BaseException) and not isinstance(error, ConfigurationError):
                raise error

    async def call(
        self, name: str, tool: str, arguments: dict[str, Any], show: Callable[[str], None] = lambda text: None
    ) -> ToolOutput:
        """Call a server's tool, once and without asking anybody; `show` gets a line for each step it reports.

        Raises `ConfigurationError` if there is no such server, or `ToolError`.
        """
        return output_of(await self._get(name).call(tool, arguments, show))

    async def read(self, name: str, uri: str) -> str:
        """Return the text of a server's resource. Raises as `call`."""
        return await self._get(name).read(uri)

    async def prompt(self, name: str, prompt: str, arguments: Mapping[str, str]) -> str:
        """Return the text of a server's prompt. Raises as `call`."""
        return await self._get(name).prompt(prompt, dict(arguments))

    def _get(self, name: str) -> McpConnection:
        if name not in self._connections:
            known = ", ".join(sorted(self._connections)) or "none"
            raise ConfigurationError(f"there is no MCP server '{name}'; there are: {known}")
        return self._connections[name]

    async def remove(self, name: str) -> None:
        """End the connection to a server and offer its tools no longer. Does nothing if there is none."""
        known = self._connections.pop(name, None)
        if known is not None:
            await known.close()
            self._take_out(known)

    async def close(self) -> None:
        """End all connections. The servers stay added."""
        await asyncio.gather(*(each.close() for each in self._connections.values()))

    def statuses(self) -> list[McpStatus]:
        """Return what is known of each server, sorted by name."""
        return [self._status(self._connections[name]) for name in sorted(self._connections)]

    def _status(self, known: McpConnection) -> McpStatus:
        return McpStatus(
            known.name,
            known.status,
            known.config.address,
            tuple(name for name, tool in self._offered.items() if _is_of(tool, known)),
            tuple(str(each.uri) for each in known.resources),
            tuple(each.name for each in known.prompts),
            known.error,
        )

    def _connection(self, name: str, config: McpServer) -> McpConnection:
        def relisted(tools: list[tuple[ServerTool, dict[str, Any]]]) -> None:
            self._take_out(made)
            many = len(tools) > ALL_DESCRIBED
            for each in (McpTool(made, tool, schema, deferred=many) for tool, schema in tools):
                self._offered[each.spec.name] = each

        made = McpConnection(name, config, relisted)
        return made

    def _take_out(self, known: McpConnection) -> None:
        for name in [name for name, tool in self._offered.items() if _is_of(tool, known)]:
            del self._offered[name]


def _is_of(tool: Tool, known: McpConnection) -> bool:
    return isinstance(tool, McpTool) and tool.connection is known
