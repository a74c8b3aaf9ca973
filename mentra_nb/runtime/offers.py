"""What a runtime offers to every agent: its tools, MCP servers, application state and skills."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mentra_nb.background.afterwards import Afterwards
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.tools.function import as_tool
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import MainThread, Tool
from mentra_nb.tools.waiting_thread import check_waiting_thread, on_waiting_thread

if TYPE_CHECKING:
    from mentra_nb.mcp_client.servers import McpServers
    from mentra_nb.tools.builtin.skills import Skill, Skills

T = TypeVar("T")


class Offers:
    """Live: what is added is offered from the next request on."""

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}
        self.contexts: dict[type, Any] = {
            MainThread: MainThread(on_waiting_thread, check_waiting_thread),
            Afterwards: Afterwards(),
        }
        self._mcp: McpServers | None = None
        self._skills: Skills | None = None

    def add_tool(self, tool: Tool | Callable[..., Any]) -> Tool:
        """Add a tool, or replace the one of its name. Returns it. Raises `InvalidTool`."""
        made = as_tool(tool)
        self.tools[made.spec.name] = made
        return made

    def specs(self) -> list[ToolSpec]:
        """Return the descriptors of the tools, sorted by name."""
        return [self.tools[name].spec for name in sorted(self.tools)]

    def spec(self, name: str) -> ToolSpec | None:
        """Return the descriptor of a tool; `None` if no tool has that name."""
        tool = self.tools.get(name)
        return tool.spec if tool is not None else None

    @property
    def mcp(self) -> McpServers:
        """The MCP servers, whose tools are among the tools."""
        if self._mcp is None:
            from mentra_nb.mcp_client.servers import McpServers

            self._mcp = McpServers(self.tools)
        return self._mcp

    async def connect(self) -> None:
        """Connect the MCP servers that were added."""
        if self._mcp is not None:
            await self._mcp.connect_all()

    async def close(self) -> None:
        """Finish what turns have left to be done, and end the connections to MCP servers."""
        await self.contexts[Afterwards].finish()
        if self._mcp is not None:
            await self._mcp.close()

    def context(self, kind: type[T]) -> T:
        """Return the application state of exactly that type. Raises `ConfigurationError` if there is none."""
        try:
            return self.contexts[kind]  # type: ignore[no-any-return]  # keyed by its own type
        except KeyError:
            raise ConfigurationError(
                f"no application context of type {kind.__name__} is registered: give one to register_context"
            ) from None

    def add_skills(self, path: Path | str) -> None:
        """Add the skills in a folder. Raises `SkillLoadError`, and then nothing is added."""
        from mentra_nb.tools.builtin.skills import LoadSkillTool, Skills  # loads the YAML library

        skills = self._skills or Skills()
        skills.add_root(path)
        if self._skills is None:
            self._skills = skills
            self.add_tool(LoadSkillTool(skills))

    def skills(self) -> list[Skill]:
        """Return the skills, sorted by name, without their texts."""
        return self._skills.list() if self._skills is not None else []

    def skills_section(self, offers: Callable[[str], bool]) -> str | None:
        """Return the part of the system prompt that names the skills, if `offers` says they can be loaded."""
        return self._skills.prompt() if self._skills is not None and offers("load_skill") else None


def fitting(tools: Mapping[str, Tool], name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments that a person changed as the tool reads them. Raises `ToolError` where they do not fit it.

    Raises:
        OperationDenied: it is not among `tools`, so that nothing can be said about its arguments.
    """
    if (tool := tools.get(name)) is None:
        raise OperationDenied(f"'{name}' is not offered here, so its arguments cannot be changed")
    return tool.validate(arguments)
