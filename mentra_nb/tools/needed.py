"""The tools that are offered only once they are needed: their names, and the services they use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple

from mentra_nb.providers.base import ProviderToolSpec

COMPACT: Final = "compact"
READ_TOOL_RESULT: Final = "read_tool_result"
SEARCH_TOOLS: Final = "search_tools"
NEEDED: Final = (COMPACT, READ_TOOL_RESULT, SEARCH_TOOLS)


class Compaction(NamedTuple):
    """The service that shortens the conversation."""

    ask: Callable[[], None]
    """Has it shortened before the next request."""


class WholeResults(NamedTuple):
    """The service that has the results of the agent's calls that were too long to be shown whole."""

    load: Callable[[str], Awaitable[str | None]]
    """Returns the whole result of a call, by its id, as text."""


class ToolIndex(NamedTuple):
    """The service that has the tools a model has seen only the names of."""

    deferred: Callable[[], list[ProviderToolSpec]]
    """Returns all deferred tools."""
    load: Callable[[Iterable[str]], Awaitable[None]]
    """Shows the model these tools from the next request on."""


def read_on(id: str, line: int | str, column: int = 1) -> str:
    """Return how a model calls for the part of a result that begins there."""
    place = f"start_line={line}" + (f", start_column={column}" if column > 1 else "")
    return f'{READ_TOOL_RESULT}(tool_use_id="{id}", {place})'
