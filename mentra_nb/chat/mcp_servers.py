"""MCP servers of the notebook's runtime: `mn.mcp` and `mn.mcp_servers`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mentra_nb.chat.engine import engine
from mentra_nb.errors import ConfigurationError
from mentra_nb.mcp_client.servers import McpStatus
from mentra_nb.settings import McpServer, check_server_name
from mentra_nb.words import counted

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("name", "status", "tools", "resources", "prompts", "error", "address")


class ConnectedServer:
    """An MCP server of this notebook. Its tools are offered to the model; its resources and prompts are read here.

    Example:
        >>> import sys
        >>> clock = mn.mcp("clock", command=sys.executable, args=["-m", "mcp_server_time"])
        >>> clock
        <MCP server 'clock': connected, 2 tools>
        >>> clock.tools()
        ['mcp__clock__get_current_time', 'mcp__clock__convert_time']
        >>> clock.resources(), clock.prompts()
        ([], [])
        >>> clock.read("clock://zones")
        Traceback (most recent call last):
        ...
        mentra_nb.tools.schema.ToolError: MCP tool call failed: 'clock' answered with error ...
        >>> clock.prompt("plan", day="Monday")
        Traceback (most recent call last):
        ...
        mentra_nb.tools.schema.ToolError: MCP tool call failed: 'clock' answered with error ...
        >>> clock.close()
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def _status(self) -> McpStatus:
        found = [each for each in engine().runtime.mcp.statuses() if each.name == self.name]
        return found[0] if found else McpStatus(self.name)

    def __repr__(self) -> str:
        status = self._status
        return f"<MCP server {self.name!r}: {status.status}, {counted(len(status.tools), 'tool')}>"

    def tools(self) -> list[str]:
        """Return the names by which a model calls its tools."""
        return list(self._status.tools)

    def resources(self) -> list[str]:
        """Return the addresses of its resources."""
        return list(self._status.resources)

    def prompts(self) -> list[str]:
        """Return the names of its prompts."""
        return list(self._status.prompts)

    def read(self, uri: str) -> str:
        """Return the text of a resource. Raises `ToolError`."""
        return engine().call(engine().runtime.mcp.read, self.name, uri)

    def prompt(self, name: str, **arguments: str) -> str:
        """Return the text of a prompt, to be asked with `mn.ask`. Raises `ToolError`."""
        return engine().call(engine().runtime.mcp.prompt, self.name, name, arguments)

    def close(self) -> None:
        """End the connection; its tools are offered no longer."""
        engine().call(engine().runtime.mcp.remove, self.name)


def mcp(
    name: str,
    *,
    command: str | None = None,
    args: Iterable[str] = (),
    env: Mapping[str, str] | None = None,
    pass_env: Iterable[str] = (),
    cwd: Path | str | None = None,
    url: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> ConnectedServer:
    """Connect an MCP server and offer its tools, each as `mcp__NAME__TOOL`, which asks before it runs.

    Needs the extra `mcp`. With a name alone it returns the server of that name, which the settings or an earlier call
    gave; it connects if it is not connected.

    Args:
        name: Up to 32 letters, digits, and single - or _.
        command: The program to start; this and the rest as the keys of `[mcp.NAME]` in `docs/settings.md`.

    Raises:
        ConfigurationError: the server cannot be reached, or an argument is wrong; nothing is changed.

    Example:
        >>> mn.mcp("nothing")
        Traceback (most recent call last):
        ...
        mentra_nb.errors.ConfigurationError: there is no MCP server 'nothing'; there are: ...
    """
    used, server = engine(), None
    if command is not None or url is not None:
        server = _checked(
            name,
            command=command,
            args=tuple(args),
            env=dict(env or {}),
            pass_env=tuple(pass_env),
            cwd=cwd,
            url=url,
            headers=dict(headers or {}),
        )
    used.call(used.runtime.mcp.connect, name, server)
    return ConnectedServer(name)


def _checked(name: str, **given: Any) -> McpServer:
    """Return the configuration of a server. Raises `ConfigurationError`."""
    try:
        check_server_name(name)
        return McpServer.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = f"{first['loc'][0]}: " if first["loc"] else ""
        raise ConfigurationError(f"mn.mcp: {where}{first['msg'].removeprefix('Value error, ')}") from None
    except ValueError as error:
        raise ConfigurationError(f"mn.mcp: {error}") from None


def mcp_servers() -> pd.DataFrame:
    """Return the MCP servers of this notebook, a row each, sorted by name.

    Returns:
        Columns: `name`; `status` (`connected`, `connecting`, `disconnected` or `error`); `tools`, `resources` and
        `prompts` (counts); `error` (why it could not be reached, else null); `address` (its command line or address).

    Example:
        >>> "nothing" in mn.mcp_servers()["name"].tolist()
        False
    """
    import pandas as pd

    rows = [
        (s.name, s.status, len(s.tools), len(s.resources), len(s.prompts), s.error, s.address)
        for s in engine().runtime.mcp.statuses()
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame.attrs["mentra_nb"] = True
    return frame
