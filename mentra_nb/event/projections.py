"""From what happened to who wants to know: `AgentEvent` → recorded events, `AgentEvent` → screen events.

Pure functions in two tables; an event that is in neither is seen by hooks and taps only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mentra_nb.content import ToolUse
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e

SUMMARY_LIMIT = 100
ARGUMENTS_LIMIT = 60
RESULT_LIMIT = 200


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + "..."


def summarize_call(name: str, arguments: dict[str, Any]) -> str:
    """One line for a call: its command or path if it has one, else its arguments."""
    for key in ("command", "path", "file_path"):
        if isinstance(arguments.get(key), str):
            return _cut(f"{name}: {arguments[key]}", SUMMARY_LIMIT)
    return _cut(f"{name}({json.dumps(arguments, ensure_ascii=False)})", ARGUMENTS_LIMIT)


# ---- recorded -------------------------------------------------------------------------------------------------


def _turn_started(event: e.RunStarted) -> list[e.RuntimeEvent]:
    return [
        e.TurnStarted(
            agent_id=event.agent_id,
            run_id=event.run_id,
            model=event.model,
            prompt=event.prompt,
            resumes=event.resumes,
            **event.origin.model_dump(),
        )
    ]


def _turn_finished(event: e.RunFinished) -> list[e.RuntimeEvent]:
    return [
        e.TurnFinished(
            agent_id=event.agent_id,
            run_id=event.run_id,
            stop_reason=event.stop_reason,
            success=True,
            duration_ms=event.duration_ms,
            session_id=event.origin.session_id,
            cell_id=event.origin.cell_id,
            execution_count=event.origin.execution_count,
        )
    ]


def _turn_failed(event: e.RunFailed) -> list[e.RuntimeEvent]:
    return [
        e.RunAborted(agent_id=event.agent_id, run_id=event.run_id, reason=event.error),
        e.TurnFinished(
            agent_id=event.agent_id,
            run_id=event.run_id,
            stop_reason="cancelled" if event.cancelled else "error",
            success=False,
            error=event.error,
            duration_ms=event.duration_ms,
            session_id=event.origin.session_id,
            cell_id=event.origin.cell_id,
            execution_count=event.origin.execution_count,
        ),
    ]


def _permission_requested(event: e.QuestionAsked) -> list[e.RuntimeEvent]:
    q = event.question
    return [
        e.PermissionRequested(
            agent_id=event.agent_id,
            run_id=q.run_id,
            request_id=q.request_id,
            tool_name=q.tool_name,
            tool_call_id=q.tool_call_id,
            description=q.description,
            subject=q.subject,
            deadline=q.deadline,
            session_id=q.session_id,
        )
    ]


_AUDIT: dict[type[e.AgentEvent], Callable[[Any], list[e.RuntimeEvent]]] = {
    e.RunStarted: _turn_started,
    e.RunFinished: _turn_finished,
    e.RunFailed: _turn_failed,
    e.QuestionAsked: _permission_requested,
}


def to_audit(event: e.AgentEvent) -> list[e.RuntimeEvent]:
    """The recorded form of an event: itself if it is a `RuntimeEvent`, else what the table says, else nothing."""
    if isinstance(event, e.RuntimeEvent):
        return [event]
    project = _AUDIT.get(type(event))
    return project(event) if project else []


# ---- shown ----------------------------------------------------------------------------------------------------


def _queued(call: ToolUse) -> shown.ToolQueued:
    return shown.ToolQueued(
        tool_call_id=call.id,
        tool_name=call.name,
        summary=summarize_call(call.name, call.input),
        mutability="unknown",
        input_json=json.dumps(call.input, ensure_ascii=False),
    )


def _asked(event: e.QuestionAsked) -> shown.PermissionAsked:
    q = event.question
    return shown.PermissionAsked(
        request_id=q.request_id,
        tool_call_id=q.tool_call_id,
        tool_name=q.tool_name,
        description=q.description,
        preview=json.dumps(q.preview.structured_input, ensure_ascii=False),
        agent_id=event.agent_id,
        question=q,
    )


def _answered(event: e.PermissionResolved) -> shown.PermissionAnswered:
    return shown.PermissionAnswered(
        request_id=event.request_id,
        tool_call_id=event.tool_call_id,
        tool_name=event.tool_name,
        outcome=event.outcome,
        rule_scope=event.rule_scope,
        decided_by=event.decided_by,
        reason=event.reason,
    )


_SESSION: dict[type[e.AgentEvent], Callable[[Any], shown.SessionEvent]] = {
    e.SessionRecorded: lambda x: shown.SessionStarted(session_id=x.session_id),
    e.RunStarted: lambda x: shown.UserMessage(text=x.prompt),
    e.RunFinished: lambda x: shown.AssistantMessageCompleted(text=x.text),
    e.RunFailed: lambda x: shown.SessionError(message=x.error, recoverable=x.recoverable),
    e.RetryAttempt: lambda x: shown.RetryNotice(**x.model_dump()),
    e.TextDelta: lambda x: shown.AssistantTokenDelta(delta=x.delta),
    e.ReasoningDelta: lambda x: shown.AssistantReasoningDelta(delta=x.delta),
    e.ToolUseReady: lambda x: _queued(x.call),
    e.ToolCallStarted: lambda x: shown.ToolStarted(tool_call_id=x.call.id, tool_name=x.call.name),
    e.ToolExecutionProgress: lambda x: shown.ToolProgress(tool_call_id=x.id, tool_name=x.name, progress=x.progress),
    e.ToolExecutionFinished: lambda x: shown.ToolCompleted(
        tool_call_id=x.tool_call_id,
        tool_name=x.tool_name,
        summary=_cut(x.output_preview, RESULT_LIMIT),
        is_error=x.is_error,
        duration_ms=x.duration_ms,
    ),
    e.UsageReport: lambda x: shown.UsageReported(**x.model_dump()),
    e.QuestionAsked: _asked,
    e.PermissionResolved: _answered,
    e.SubagentSpawned: lambda x: shown.TaskUpdated(
        task_id=x.subagent_id, kind="subagent", status="spawned", title=x.name
    ),
    e.SubagentFinished: lambda x: shown.TaskUpdated(
        task_id=x.subagent_id,
        kind="subagent",
        status="finished" if x.error is None else "failed",
        title=x.name,
        detail=x.error,
    ),
    e.Branched: lambda x: shown.Branched(entry_id=x.entry_id, abandoned_entries=x.abandoned_entries),
}


def to_session(event: e.AgentEvent) -> shown.SessionEvent | None:
    """What a screen is told of an event, or `None`."""
    project = _SESSION.get(type(event))
    return project(event) if project else None
