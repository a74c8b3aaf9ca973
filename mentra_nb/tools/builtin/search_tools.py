"""`search_tools`: find tools that a model has seen only the names of, and load them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.tools.needed import SEARCH_TOOLS, ToolIndex
from mentra_nb.tools.schema import schema_of, validated
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput
from mentra_nb.words import counted

MAX_LISTED = 300
"""Tools whose names a model is told at once."""
MAX_LINE = 120
"""Characters of what it is told about each."""


class _Search(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, description="What the tool is to do, in a few words, or its name.")
    limit: int = Field(5, ge=1, le=20, description="How many tools to load at most.")


class SearchTools(Tool):
    """Load the tools that fit best, and return their names and descriptions."""

    spec: ToolSpec = ToolSpec(
        wire=ProviderToolSpec(
            name=SEARCH_TOOLS,
            description="Find further tools by what they do or by name. Those found can be called from then on.",
            input_schema=schema_of(_Search),
        ),
        reads_only=True,
        asks=False,
    )

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return validated(_Search, arguments).model_dump()

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        index = context.service(ToolIndex)
        found = best(arguments["query"], index.deferred())[: arguments["limit"]]
        if not found:
            return ToolOutput("no tool fits these words: use others, or the name of one")
        await index.load(tool.name for tool in found)
        lines = [f"- {tool.name}: {tool.description or ''}".rstrip(": ") for tool in found]
        return ToolOutput("These tools can be called now:\n" + "\n".join(lines))


def listing(tools: Sequence[ProviderToolSpec]) -> str:
    """Return the part of a system prompt that names the tools to search for, each with one line."""
    lines = [_line(tool) for tool in tools[:MAX_LISTED]]
    if len(tools) > MAX_LISTED:
        lines.append(f"- and {counted(len(tools) - MAX_LISTED, 'more tool')}, which `{SEARCH_TOOLS}` finds")
    return f"Further tools. Load one with `{SEARCH_TOOLS}` before you call it:\n" + "\n".join(lines)


def best(query: str, tools: Iterable[ProviderToolSpec]) -> list[ProviderToolSpec]:
    """Return the tools that have words of the query in their name, description or parameters, the best first."""
    words = set(_words(query))
    scored = [(_score(words, tool) + 10 * (tool.name.lower() in query.lower()), tool) for tool in tools]
    return [tool for score, tool in sorted(scored, key=lambda each: (-each[0], each[1].name)) if score > 0]


def _score(words: set[str], tool: ProviderToolSpec) -> float:
    name, about = set(_words(tool.name)), set(_words(tool.description or ""))
    parameters = set(_words(" ".join(tool.input_schema.get("properties", {}))))
    begun = sum(any(each.startswith(word) for each in name) for word in words - name if len(word) > 2)
    return 4 * len(words & name) + 2 * begun + 2 * len(words & about) + len(words & parameters)


def _words(text: str) -> list[str]:
    """Return the words of a text or of a name in any style, in lower case and without a plural's `s`."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+", text)
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in map(str.lower, parts)]


def _line(tool: ProviderToolSpec) -> str:
    first = (tool.description or "").strip().partition("\n")[0]
    return f"- {tool.name}: {first[:MAX_LINE]}" if first else f"- {tool.name}"
