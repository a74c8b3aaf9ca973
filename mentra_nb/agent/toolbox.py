"""The tools of a turn: those the agent may call, and those its next request describes to the model.

A deferred tool is described once a search has found it; until then the system prompt has its name and one line, unless
the provider searches. Three tools are there only when they are needed: `search_tools`, as long as there are deferred
tools; `read_tool_result`, once a result was not sent whole; and `compact`, once the conversation was shortened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from mentra_nb.agent.config import AgentConfig
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.tools.needed import COMPACT, NEEDED, READ_TOOL_RESULT, SEARCH_TOOLS
from mentra_nb.tools.tool import Tool

PLANNING = """\
You are planning. Only tools that read are available now, and nothing may be changed yet. Find out what you need to
know, then answer with the plan alone: short numbered steps that name the files, commands and tools to be used. The user
decides about the plan; once it is approved, you carry it out with all your tools."""
"""What the system prompt says until a plan is approved."""


@dataclass(eq=False, repr=False)
class Toolbox:
    """`tools` are all that there are, live; `config` says which are offered."""

    tools: Mapping[str, Tool]
    config: AgentConfig
    change: Callable[[dict[str, Any]], Awaitable[None]]
    """Changes settings of the agent, and stores them with it."""
    loaded: set[str] = field(default_factory=set)
    _at_once: dict[str, tuple[ProviderToolSpec, ProviderToolSpec]] = field(default_factory=dict)
    """By name: the description of a loaded tool, as it is and without the mark that it is deferred."""

    def __post_init__(self) -> None:
        self.loaded |= set(self.config.loaded_tools)

    def get(self, name: str) -> Tool | None:
        """Return the tool of that name, whether it is offered or not."""
        return self.tools.get(name) or (_needed(name) if name in NEEDED else None)

    def offers(self, name: str) -> bool:
        """Return whether the agent may call a tool of that name."""
        if name in self.tools:
            return self.config.offers(name) and (self.tools[name].spec.reads_only or not self.config.planning)
        if name not in NEEDED:
            return False
        is_needed = bool(self.deferred()) if name == SEARCH_TOOLS else name in self.loaded
        return is_needed and name not in self.config.hidden_tools

    def may_call(self, name: str) -> bool:
        """Return whether a call of that tool may run: it is offered, and calls are wanted at all."""
        return self.config.tool_choice.mode != "none" and self.offers(name)

    def names(self) -> list[str]:
        """Return the names of the tools that the agent may call, sorted."""
        return sorted(name for name in {*self.tools, *NEEDED} if self.offers(name))

    @property
    def searches(self) -> bool:
        """Whether deferred tools are left out of requests until `search_tools` has found them."""
        own = SEARCH_TOOLS not in self.tools and SEARCH_TOOLS not in self.config.hidden_tools
        return own and not self.config.tool_search

    def deferred(self) -> list[ProviderToolSpec]:
        """Return the tools that `search_tools` searches, by name."""
        return [wire for wire in self._offered() if wire.deferred] if self.searches else []

    def described(self) -> list[ProviderToolSpec]:
        """Return the tools for a request, by name, so that the same ones are always sent alike and are cached."""
        found = self._offered()
        if not self.config.tool_search and any(wire.deferred for wire in found):
            known = {*self.loaded, self.config.tool_choice.name}
            kept = [wire for wire in found if not (wire.deferred and self.searches) or wire.name in known]
            found = [self._now(wire) if wire.deferred else wire for wire in kept]
        return found + [_needed(name).spec.wire for name in NEEDED if name not in self.tools and self.offers(name)]

    def section(self) -> str | None:
        """Return the part of the system prompt that says of a plan how to make it, and names the deferred tools."""
        found, sections = self.deferred(), [PLANNING] if self.config.planning else []
        if found:
            from mentra_nb.tools.builtin.search_tools import listing

            sections.append(listing(found))
        return "\n\n".join(sections) or None

    async def load(self, names: Iterable[str]) -> None:
        """Describe these tools to the model from the next request on, in later turns too."""
        wanted = self.loaded | set(names)
        if wanted != self.loaded:
            self.loaded = wanted
            await self.change({"loaded_tools": tuple(sorted(wanted))})

    async def carry_out(self) -> None:
        """Offer all tools from now on: the plan is approved."""
        self.config = self.config.model_copy(update={"planning": False})
        await self.change({"planning": False})

    def _offered(self) -> list[ProviderToolSpec]:
        tools = self.tools
        return [tools[name].spec.wire for name in sorted(tools) if self.offers(name)]

    def _now(self, wire: ProviderToolSpec) -> ProviderToolSpec:
        """Return a description without its mark, the same object each time, as wires keep the encoded form."""
        kept = self._at_once.get(wire.name)
        if kept is None or kept[0] is not wire:
            kept = self._at_once[wire.name] = wire, wire.model_copy(update={"deferred": False})
        return kept[1]


@cache
def _needed(name: str) -> Tool:
    """Return the tool of one of the names in `NEEDED`."""
    if name == READ_TOOL_RESULT:
        from mentra_nb.tools.builtin.read_tool_result import ReadToolResult

        return ReadToolResult()
    if name == COMPACT:
        from mentra_nb.tools.builtin.compact import Compact

        return Compact()
    from mentra_nb.tools.builtin.search_tools import SearchTools

    return SearchTools()
