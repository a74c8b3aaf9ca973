"""One MCP server: connecting, listing, calling, and what is known when it dies.

A task of its own holds the connection. When the server ends, so does the task, and the next call connects again. A call
that was under way then may have taken effect: it is reported as unknown and never sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mentra_nb.errors import ConfigurationError
from mentra_nb.forms import Form
from mentra_nb.mcp_client.bounds import MAX_ENTRIES, MAX_MESSAGE, is_too_long, usable_schema
from mentra_nb.mcp_client.results import CODES, contents, printable, read_parts
from mentra_nb.mcp_client.transports import Heard, transport
from mentra_nb.settings import McpServer
from mentra_nb.tools.schema import ToolError

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult, Prompt, Resource
    from mcp.types import Tool as ServerTool

CONNECT_SECONDS = 30.0
"""How long a server may take to start and to agree on the protocol."""
LIST_SECONDS = 30.0
"""How long each list of a server may take, with all its pages."""
CALL_SECONDS = 120.0
"""How long a call may take."""
MAX_PAGES = 1000
"""Pages of a list after which the server is taken for broken."""
LAST_WORDS = 500
"""Characters of what a server wrote to its error stream that are shown when it does not start."""

RELIST_SECONDS = 1.0
"""How long after a list the next one may begin, however often the server says that it has changed."""
PROGRESS_SECONDS = 0.1
"""How long after the news of a call the next are shown."""

Status = Literal["disconnected", "connecting", "connected", "error"]
Item = TypeVar("Item")
Show = Callable[[str], None]
Ask = Callable[[Form], Awaitable[dict[str, Any] | None]]
UNKNOWN = "it may have taken effect, which is not known; it was not called again"


async def decline(_form: Form) -> None:
    """Decline a question: there is nobody to ask."""


class McpConnection:
    """The connection to one server.

    Args:
        name: The server's name in the settings.
        config: How to reach it.
        relisted: Called with its tools and the schemas of their arguments, such as providers take, when it has
            connected and when it says that they have changed.
    """

    def __init__(
        self, name: str, config: McpServer, relisted: Callable[[list[tuple[ServerTool, dict[str, Any]]]], None]
    ) -> None:
        self.name, self.config = name, config
        self.error: str | None = None
        """Why it could not be reached, if it could not."""
        self.resources: list[Resource] = []
        self.prompts: list[Prompt] = []
        self._relisted = relisted
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._asking: list[Ask] = []
        """How each call that is under way asks a person."""
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._heard: Heard | None = None
        self._connecting = asyncio.Lock()

    @property
    def status(self) -> Status:
        """Whether it can be called."""
        if self._connecting.locked():
            return "connecting"
        return "connected" if self._client is not None else "error" if self.error else "disconnected"

    async def connect(self) -> Client:
        """Return the client of the server; connect if it is not connected. Raises `ConfigurationError`."""
        async with self._connecting:
            if self._client is not None:
                return self._client
            self._stop = asyncio.Event()
            ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._hold(ready, self._stop), name=f"mcp {self.name}")
            try:
                client = await asyncio.shield(ready)
            except asyncio.CancelledError:
                self._task.cancel()
                await self._end()
                raise
            except BaseException as error:
                self.error = str(error)
                raise
            self.error = None
            return client

    async def close(self) -> None:
        """End the connection, and the server's process if there is one. An attempt to connect fails."""
        if self._connecting.locked() and self._task is not None:  # one that is ending must not be disturbed
            self._task.cancel()
        async with self._connecting:
            await self._end()

    async def _end(self) -> None:
        if (task := self._task) is not None:
            self._stop.set()
            await asyncio.wait([task])
            self._task = None

    async def _hold(self, ready: asyncio.Future[Client], stop: asyncio.Event) -> None:
        """Connect, tell `ready`, and keep the connection until it is to `stop` or the server ends."""
        from mcp import Client
        from mcp.types import Implementation

        heard = self._heard = Heard()
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(CONNECT_SECONDS):
                    client = await stack.enter_async_context(
                        Client(
                            transport(self.config, heard, stop),
                            client_info=Implementation(name="mentra-nb", version=version("mentra-nb")),
                            message_handler=self._hear,
                            elicitation_callback=self._elicit,
                            read_timeout_seconds=CALL_SECONDS,
                            cache=None,
                        )
                    )
                await self._list(client)
                self._client = client
                ready.set_result(client)
                listing = asyncio.create_task(self._keep_listed(client))
                try:
                    await stop.wait()
                finally:
                    listing.cancel()
                    self._client = None
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # handed to what waits for it
            if not ready.done():
                ready.set_exception(ConfigurationError(f"the MCP server '{self.name}' {self._why(error, heard)}"))
                ready.exception()  # nobody may be waiting any more
        finally:
            self._client = None

    def _why(self, error: BaseException, heard: Heard) -> str:
        """Return why the server could not be reached, to follow its name."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, ModuleNotFoundError):
            return "needs the official SDK: pip install 'mentra-nb[mcp]'"
        if isinstance(error, FileNotFoundError | PermissionError) and self.config.command:
            return f"cannot be started: {self.config.command!r}: {error.strerror}"
        if heard.is_too_long:
            return f"sent {_TOO_MUCH}"
        if isinstance(error, ConfigurationError):
            return str(error)
        late = isinstance(error, TimeoutError)
        why = f"did not answer within {CONNECT_SECONDS:g} s" if late else "did not connect"
        detail = printable(heard.last_line(LAST_WORDS), LAST_WORDS) or ("" if late else _reason(error, heard))
        return f"{why}: {detail}" if detail else why

    async def _list(self, client: Client) -> None:
        """Read what the server has. A list that it does not offer is empty."""
        from mcp import MCPError

        async with asyncio.timeout(LIST_SECONDS):
            offers = client.server_capabilities
            tools = await _pages(client.list_tools, "tools") if offers.tools is not None else []
            self.resources, self.prompts = [], []
            with contextlib.suppress(MCPError):
                self.resources = await _pages(client.list_resources, "resources") if offers.resources else []
            with contextlib.suppress(MCPError):
                self.prompts = await _pages(client.list_prompts, "prompts") if offers.prompts else []
            checked = await asyncio.to_thread(lambda: [(each, usable_schema(each.input_schema)) for each in tools])
        self._relisted(checked)

    async def _keep_listed(self, client: Client) -> None:
        """List again when the server has said that a list has changed. What it had stays if it cannot be listed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            with contextlib.suppress(Exception):
                await self._list(client)
            await asyncio.sleep(RELIST_SECONDS)

    async def _hear(self, message: Any) -> None:
        """Note that a list has changed. End the connection after a message that was too long to be read."""
        if type(message).__name__.endswith("ListChangedNotification"):
            self._changed.set()
        elif is_too_long(message) and self._heard is not None:
            self._heard.is_too_long = True
            self._stop.set()

    async def _elicit(self, context: Any, params: Any) -> Any:
        """Put a question of the server to the person whose call is under way; decline if that is not clear."""
        from mcp.types import ElicitResult

        who, values = f"The MCP server '{self.name}'", None
        with contextlib.suppress(ValueError):
            url = getattr(params, "url", None)
            form = (
                Form(who=who, message=f"{params.message}\n{url}")
                if url is not None
                else Form.from_schema(who, params.message, params.requested_schema)
            )
            values = await self._asking[0](form) if len(self._asking) == 1 else None
        return ElicitResult(action="decline") if values is None else ElicitResult(action="accept", content=values)

    # ---- calling ----------------------------------------------------------------------------------------------

    async def call(
        self, tool: str, arguments: dict[str, Any], show: Show = lambda text: None, ask: Ask = decline
    ) -> CallToolResult:
        """Call a tool of the server, once.

        Args:
            show: Gets a line when the server tells how far it is.
            ask: Puts a question of the server to a person, and returns what they filled in, or `None`.

        Raises:
            ToolError: the server cannot be reached, refused the call, or ended, was too slow or failed in the middle.
        """

        shown = -PROGRESS_SECONDS

        async def told(progress: float, total: float | None, message: str | None) -> None:
            nonlocal shown
            if (now := time.monotonic()) - shown < PROGRESS_SECONDS:
                return
            shown = now
            show(printable(message or f"{progress:g}{f' of {total:g}' if total else ''}", 200))

        self._asking.append(ask)
        try:
            return await self._asked(lambda client: client.call_tool(tool, arguments or None, CALL_SECONDS, told))
        finally:
            self._asking.remove(ask)

    async def read(self, uri: str) -> str:
        """Return the text of a resource. Raises as `call`."""
        found = await self._asked(lambda client: client.read_resource(uri))
        return "\n".join(map(contents, found.contents))

    async def prompt(self, name: str, arguments: dict[str, str]) -> str:
        """Return the text of a prompt. Raises as `call`."""
        found = await self._asked(lambda client: client.get_prompt(name, arguments or None))
        return "\n\n".join("\n".join(read_parts([message.content])[0]) for message in found.messages)

    async def _asked(self, ask: Callable[[Client], Awaitable[Item]]) -> Item:
        from mcp import MCPError
        from mcp.types import CONNECTION_CLOSED, REQUEST_TIMEOUT

        what = f"MCP tool call failed: '{self.name}' "
        try:
            client = await self.connect()
        except ConfigurationError as error:
            raise ToolError(f"MCP tool call failed: {error}") from error
        if self._heard is not None:
            self._heard.is_too_long = False
        try:
            return await ask(client)
        except MCPError as error:
            if self._heard is not None and self._heard.is_too_long:
                raise ToolError(f"{what}sent {_TOO_MUCH}: {UNKNOWN}") from None
            if error.code == CONNECTION_CLOSED:
                raise ToolError(f"{what}ended while it worked: {UNKNOWN}") from None
            if error.code == REQUEST_TIMEOUT:
                raise ToolError(f"{what}did not answer within {CALL_SECONDS:g} s: {UNKNOWN}") from None
            await self._close_if_lost(client)
            raise ToolError(f"{what}answered with error {error.code}: {CODES.get(error.code, UNKNOWN)}") from None
        except TimeoutError:
            raise ToolError(f"{what}did not answer within {CALL_SECONDS:g} s: {UNKNOWN}") from None
        except Exception as error:  # noqa: BLE001  # whatever a server makes of the protocol
            raise ToolError(f"{what}broke the protocol ({type(error).__name__}): {UNKNOWN}") from None

    async def _close_if_lost(self, client: Client) -> None:
        """End a connection over HTTP whose session the server no longer knows, so that the next call begins one."""
        from mcp import MCPError

        if self.config.url is None:
            return
        try:
            async with asyncio.timeout(LIST_SECONDS):
                await client.list_tools()
        except MCPError as error:
            if error.code not in CODES and self._client is client:
                await self.close()
        except Exception:  # noqa: BLE001  # the call has an answer already
            return


async def _pages(list_page: Callable[..., Awaitable[Any]], member: str) -> list[Any]:
    """Return all items of a list that comes in pages. Raises `ConfigurationError` if it has no end."""
    items: list[Any] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await list_page(cursor=cursor)
        items += getattr(page, member)
        cursor = page.next_cursor
        if len(items) > MAX_ENTRIES:
            raise ConfigurationError(f"lists more than {MAX_ENTRIES} {member}")
        if not cursor:
            return items
    raise ConfigurationError(f"lists its {member} in more than {MAX_PAGES} pages")


_TOO_MUCH = f"a message of more than {MAX_MESSAGE >> 20} MiB"


def _reason(error: BaseException, heard: Heard) -> str:
    """Return what went wrong while a server was to connect."""
    from mcp import MCPError
    from mcp.types import CONNECTION_CLOSED
    from pydantic import ValidationError

    if heard.location is not None and heard.status is not None and 300 <= heard.status < 400:
        place = printable(heard.location, 200)
        return f"it redirects to {place}, which is not followed; if that is right, give this address"
    if heard.status in (401, 403):
        return f"it asks for a key (HTTP status {heard.status}), which belongs in headers"
    if heard.status is not None and heard.status != 200:
        return f"it answered with HTTP status {heard.status}"
    if isinstance(error, MCPError) and error.code == CONNECTION_CLOSED:
        return "it ended"
    if isinstance(error, MCPError | ValidationError):
        return "it breaks the protocol"
    if isinstance(error, RuntimeError):
        return "it speaks no version of the protocol that is known here"
    return str(error) or type(error).__name__
