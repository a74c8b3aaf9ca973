"""A tool of an MCP server as a tool of ours. What the server says of its own tools grants nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from mentra_nb.authorization import CustomCapability
from mentra_nb.forms import Form
from mentra_nb.mcp_client.connection import McpConnection
from mentra_nb.mcp_client.results import output_of, printable, tool_name
from mentra_nb.permission.person import AskPerson
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput

if TYPE_CHECKING:
    from mcp.types import Tool as ServerTool


class McpTool(Tool):
    """Asks before each call, unless a rule covers it: the server's annotations, such as `readOnlyHint`, do not count.

    The arguments go to the server as they are; the server checks them.
    """

    def __init__(
        self, connection: McpConnection, tool: ServerTool, schema: dict[str, Any], *, deferred: bool = False
    ) -> None:
        self.connection, self.tool = connection, tool
        self.spec = ToolSpec(
            wire=ProviderToolSpec(
                name=tool_name(connection.name, tool.name),
                description=printable(tool.description or tool.title or "") or None,
                input_schema=schema,
                deferred=deferred,
            ),
            capabilities=(CustomCapability(Custom=f"mcp:{connection.name}"),),
        )

    @property
    def server(self) -> str:
        """The server's name in the settings."""
        return self.connection.name

    def structured_input(self, context: ToolContext, arguments: dict[str, Any]) -> Any:
        return {"kind": "mcp", "server": self.server, "tool": self.tool.name, "arguments": arguments}

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        return output_of(
            await self.connection.call(self.tool.name, arguments, context.progress, partial(_ask_person, context))
        )


async def _ask_person(context: ToolContext, form: Form) -> dict[str, Any] | None:
    """Ask the person of the session in which a call runs, if there is one."""
    ask: AskPerson | None = context.services.get(AskPerson)
    if ask is None:
        return None
    return await ask(
        form,
        agent_id=context.agent_id,
        agent_name=context.agent_name,
        model=context.model,
        run_id=context.run_id,
        tool_call_id=context.tool_call_id,
        tool_name=context.tool_name,
    )
