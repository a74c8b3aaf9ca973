"""The rules of one conversation: remembering, revoking and listing them, also before its first turn."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar, get_args

from mentra_nb.arguments import check_text
from mentra_nb.authorization import PermissionRule, PermissionScope
from mentra_nb.chat.engine import Engine
from mentra_nb.chat.identity import Identity
from mentra_nb.errors import ConfigurationError
from mentra_nb.event.bus import EventBus
from mentra_nb.permission import remembering

T = TypeVar("T")
SCOPES: tuple[PermissionScope, ...] = get_args(PermissionScope)
"""The scopes in which a conversation can remember an answer."""


class Rules:
    """The rules that hold in the conversation `identity`, in the store of an engine.

    `own_tools` are the names of the tools that only this conversation offers.
    """

    def __init__(self, engine: Engine, identity: Identity, own_tools: Iterable[str] = ()) -> None:
        self._engine, self._identity, self._own_tools = engine, identity, own_tools

    def remember(
        self,
        tool: str,
        pattern: str,
        *,
        allow: bool,
        scope: PermissionScope,
        reason: str | None = None,
        inside: Sequence[str] | None = None,
    ) -> PermissionRule:
        """Store a rule, record it and return it. With folders in `inside`, it is one on effects.

        Raises:
            ConfigurationError: there is no such scope, or one of the words is not text.
            OperationDenied: the tool's name is misspelt, or the pattern could never match.
        """
        check_text("mn.allow('shell', 'git status*')", {"reason": reason}, tool=tool, pattern=pattern)
        if scope not in SCOPES:
            raise ConfigurationError(f"there is no scope {scope!r}; use one of {', '.join(SCOPES)}")
        remembering.check_tool(tool, {*(spec.name for spec in self._engine.runtime.tools()), *self._own_tools})
        folders = None if inside is None else tuple(os.path.realpath(folder) for folder in inside)
        if folders is not None and tool != "shell":
            raise ConfigurationError(
                f"inside=… is for tool 'shell', whose commands run in the sandbox, not for '{tool}'"
            )
        return self._change(
            remembering.remember, tool, pattern, allow=allow, scope=scope, reason=reason, folders=folders
        )

    def revoke(self, rule: str | int) -> PermissionRule:
        """Delete a rule, record it and return it. `rule` as in `mn.revoke`; raises `OperationDenied`."""
        found = remembering.rule_named(self.all(), rule)
        self._change(remembering.revoke, found.id)
        return found

    def all(self) -> list[PermissionRule]:
        """Return the rules that hold, with what they cover beyond what they look like."""
        store = self._engine.runtime.store

        async def read() -> list[PermissionRule]:
            return await store.list_rules(await self._identity.session_id(store), self._identity.project)

        return [remembering.with_breadth(rule) for rule in self._engine.call(read)]

    def _change(self, how: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Call `remember` or `revoke` of `remembering` for this conversation."""
        store, bus = self._engine.runtime.store, EventBus(self._engine.runtime.hooks, self._engine.runtime.audit)

        async def change() -> T:
            return await how(
                store, bus, await self._identity.session_id(store), self._identity.project, *args, **kwargs
            )

        return self._engine.call(change)
