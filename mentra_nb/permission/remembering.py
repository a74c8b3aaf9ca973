"""Remembered decisions: storing and deleting permission rules, each change with an event for the record."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Literal

from mentra_nb.authorization import PermissionRule, PermissionScope
from mentra_nb.errors import OperationDenied
from mentra_nb.event import types as e
from mentra_nb.event.bus import EventBus
from mentra_nb.ids import new_id
from mentra_nb.permission.rules import pattern_problem
from mentra_nb.store.protocols import RuntimeStore

KINDS = {"shell": "shell", "background_run": "shell", "read": "path", "write": "path"}
"""What the subjects of the runtime's own tools are."""


def check_scope(scope: PermissionScope | None, project: str | None) -> None:
    if scope == "project" and project is None:
        raise OperationDenied("this session has no project: remember it for the session or globally")


def check_tool(tool: str, known: Collection[str]) -> None:
    """Raise `OperationDenied` when a rule's tool is not one name, or looks like a misspelt one of `known`."""
    if not tool.strip() or set(tool) & set("*?"):
        raise OperationDenied(f"'{tool}' is not the name of a tool: a rule is for one tool, with a pattern")
    if tool in known:
        return
    from difflib import get_close_matches

    near = {name.lower(): name for name in known}
    if found := get_close_matches(tool.lower(), near, 1, 0.8):
        raise OperationDenied(f"there is no tool '{tool}': did you mean '{near[found[0]]}'?")


async def remember(
    store: RuntimeStore,
    bus: EventBus,
    session_id: str,
    project: str | None,
    tool: str,
    pattern: str,
    *,
    allow: bool,
    scope: PermissionScope = "session",
    folders: tuple[str, ...] | None = None,
    reason: str | None = None,
    decided_by: str = "user",
    request_id: str | None = None,
) -> PermissionRule:
    """Store a decision as a rule, which replaces one with the same scope, tool and pattern, and record it.

    With `folders`, absolute ones, it is a rule on the effect of a command in the sandbox.

    Raises:
        OperationDenied: it is for a project and there is none, or its pattern could never match.
    """
    check_scope(scope, project)
    if tool in KINDS and (problem := pattern_problem(pattern, KINDS[tool], allow=allow)) is not None:
        raise OperationDenied(problem)
    key = {"session": session_id, "project": project or "", "global": ""}[scope]
    same = (scope, key, tool, pattern)
    earlier = [
        rule
        for rule in await store.list_rules(session_id, project)
        if (rule.scope, rule.scope_key, rule.tool, rule.pattern) == same
    ]
    known = {"tool": tool, "pattern": pattern, "allow": allow, "scope": scope, "scope_key": key, "folders": folders}
    made = PermissionRule.model_validate({**known, "id": new_id("rule"), "reason": reason, "created_at": time.time()})
    rule = await store.save_rule(made)
    bus.emit(
        _changed("changed" if earlier else "made", rule, session_id, decided_by).model_copy(
            update={"replaces": earlier[0].id if earlier else None, "request_id": request_id}
        )
    )
    return with_breadth(rule)


def with_breadth(rule: PermissionRule) -> PermissionRule:
    """Return a rule with what it covers beyond what it looks like."""
    from mentra_nb.permission.breadth import breadth

    said = breadth(rule.pattern, KINDS.get(rule.tool, "text")) if rule.allow else None
    return rule if said is None else rule.model_copy(update={"breadth": said})


async def revoke(store: RuntimeStore, bus: EventBus, session_id: str, project: str | None, rule_id: str) -> bool:
    """Delete a rule and record it. Returns whether there was one with that id.

    The event of a rule that does not hold in this session has no pattern.
    """
    found = {rule.id: rule for rule in await store.list_rules(session_id, project)}
    if not await store.revoke_rule(rule_id):
        return False
    unknown = PermissionRule(id=rule_id, tool="", pattern="", allow=False)
    bus.emit(_changed("revoked", found.get(rule_id, unknown), session_id, "user"))
    return True


def rule_named(rules: Sequence[PermissionRule], said: str | int) -> PermissionRule:
    """Return the one of `rules` that is meant: by its number from 1, its id, or the beginning or end of its id.

    Raises:
        OperationDenied: none or more than one fits.
    """
    text = str(said).strip()
    if not text:
        raise OperationDenied("say which rule: %mentra rules revoke N, with its number in %mentra rules")
    part = text.removeprefix("rule-")
    if text.isdecimal() and len(text) < 6 and 0 < int(text) <= len(rules):
        return rules[int(text) - 1]
    found = [rule for rule in rules if rule.id == text or rule.id == part]
    if not found and len(part) >= 4:
        found = [rule for rule in rules if rule.id.removeprefix("rule-").startswith(part) or rule.id.endswith(part)]
    if len(found) == 1:
        return found[0]
    if found:
        raise OperationDenied(f"{len(found)} rules fit '{text}': take the number in %mentra rules, or mn.rules().id")
    raise OperationDenied(f"there is no rule '{text}': %mentra rules lists them")


def _changed(
    action: Literal["made", "changed", "revoked"], rule: PermissionRule, session_id: str, decided_by: str
) -> e.RuleChanged:
    return e.RuleChanged(
        agent_id="",
        action=action,
        rule_id=rule.id,
        tool_name=rule.tool,
        pattern=rule.pattern,
        allow=rule.allow,
        rule_scope=rule.scope,
        scope_key=rule.scope_key,
        folders=rule.folders,
        reason=rule.reason,
        decided_by=decided_by,
        session_id=session_id,
    )
