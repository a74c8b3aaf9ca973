"""Make records of the state store for tests."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from mentra_nb.authorization import PermissionQuestion, PermissionRule, ToolAuthorizationPreview
from mentra_nb.content import Message
from mentra_nb.store.records import AgentRecord, Entry, EntryKind, LeaseHolder, RunRecord, SessionRecord, ToolCallRecord


def agent(id: str = "agent-1", at: float = 1.0, runtime: str = "default", **rest: Any) -> AgentRecord:
    fields = {"name": "n", "model": "m", "provider_id": "p", "config": {"system": "ä"}} | rest
    return AgentRecord(id=id, runtime_identifier=runtime, created_at=at, updated_at=at, **fields)


def session(id: str, name: str = "talk", project: str | None = None, at: float = 1.0, **rest: Any) -> SessionRecord:
    fields = {"agent_id": "agent-1", "model": "m"} | rest
    return SessionRecord(id=id, name=name, project=project, created_at=at, updated_at=at, **fields)


def entry(
    id: str,
    parent: str | None,
    message: Message | None = None,
    *,
    run_id: str = "run-1",
    kind: EntryKind = "user_turn",
    agent_id: str = "agent-1",
) -> Entry:
    message = message or Message.user(id)
    return Entry(id=id, agent_id=agent_id, parent_id=parent, run_id=run_id, kind=kind, message=message, created_at=1.0)


def run(id: str = "run-1", at: float = 1.0, **rest: Any) -> RunRecord:
    return RunRecord(**{"id": id, "agent_id": "agent-1", "cell_id": "cell", "started_at": at} | rest)


def tool_call(id: str = "call-1") -> ToolCallRecord:
    return ToolCallRecord(
        run_id="run-1",
        call_id=id,
        agent_id="agent-1",
        tool="t",
        arguments={"a": ["ä", None]},
        arguments_hash="h",
        effect="once",
        started_at=1.0,
    )


def rule(id: str, scope: str = "session", key: str = "s1", allow: bool = True, pattern: str = "*") -> PermissionRule:
    return PermissionRule.model_validate(
        {"id": id, "tool": "t", "pattern": pattern, "allow": allow, "scope": scope, "scope_key": key, "reason": "why"}
    )


def question(
    id: str, session_id: str = "s1", *, deadline: float | None = None, run_id: str | None = "run-1"
) -> PermissionQuestion:
    return PermissionQuestion(
        request_id=id,
        session_id=session_id,
        agent_id="agent-1",
        agent_name="n",
        run_id=run_id,
        tool_call_id="c",
        tool_name="t",
        description="d",
        subject="s",
        arguments={"a": 1},
        preview=ToolAuthorizationPreview(working_directory="/w"),
        arguments_hash="h",
        asked_at=time.time(),
        deadline=deadline if deadline is not None else time.time() + 60,
    )


def holder(runtime_id: str = "runtime-1", **rest: Any) -> LeaseHolder:
    return LeaseHolder.here(runtime_id).model_copy(update=rest)


def gone_pid() -> int:
    """Return the pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
