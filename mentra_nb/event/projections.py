"""From `AgentEvent` to `SessionEvent`, which screens show: one table of pure functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

from mentra_nb.authorization import ToolAuthorizationOutcome
from mentra_nb.content import ToolUse
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.secrets.mask import mask_secrets

SUMMARY_LIMIT = 100
ARGUMENTS_LIMIT = 60
RESULT_LIMIT = 200
OUTPUT_LIMIT = 52_000
"""Characters of a result that a screen gets: all of what a model reads."""
SUBJECT_KEYS = ("command", "path", "file_path", "code")
"""The arguments that say what a call acts on."""
LONGEST_SECRET = 4096


def _cut(text: str, limit: int) -> str:
    """Return the beginning of a text. What is cut is masked first, while each secret is whole."""
    return text if len(text) <= limit else mask_secrets(text[: limit + LONGEST_SECRET])[:limit] + "..."


def subject_of(arguments: dict[str, Any]) -> str | None:
    """Return what a call acts on: its command, path or code, or its operations on files; `None` if it has none."""
    for key in SUBJECT_KEYS:
        if isinstance(found := arguments.get(key), str):
            return found
    operations = arguments.get("operations")
    if not isinstance(operations, list) or not operations:
        return None
    told = [_operation(each) for each in operations if isinstance(each, dict)]
    return ", ".join(told) if len(told) == len(operations) and all(told) else None


def _operation(given: dict[str, Any]) -> str:
    """Return `create note.md` or `move a.csv to b.csv`; nothing for what is not such an operation."""
    match given:
        case {"op": str(op), "from": str(source), "to": str(to)}:
            return f"{op} {source} to {to}"
        case {"op": str(op), "path": str(path)}:
            return f"{op} {path}"
    return ""


def summarize_call(name: str, arguments: dict[str, Any]) -> str:
    """Return one line for a call: what it acts on if that can be told, else its arguments."""
    if (subject := subject_of(arguments)) is not None:
        return _cut(f"{name}: {subject}", SUMMARY_LIMIT)
    return _cut(f"{name}({json.dumps(arguments, ensure_ascii=False)})", ARGUMENTS_LIMIT)


def _queued(call: ToolUse) -> shown.ToolQueued:
    return shown.ToolQueued(
        tool_call_id=call.id,
        tool_name=call.name,
        summary=summarize_call(call.name, call.input),
        mutability="unknown",
        input_json=json.dumps(call.input, ensure_ascii=False),
    )


def _asked(event: e.QuestionAsked) -> shown.QuestionAsked:
    return shown.QuestionAsked(
        request_id=event.request_id,
        tool_call_id=event.tool_call_id,
        tool_name=event.tool_name,
        description=event.description,
        preview=json.dumps(event.structured_input, ensure_ascii=False),
        agent_id=event.agent_id,
    )


def _finished(event: e.TurnFinished) -> shown.SessionEvent:
    if event.success:
        return shown.AssistantMessageCompleted(text=event.text)
    return shown.SessionError(message=event.error or "", recoverable=event.recoverable)


def _answered(event: e.QuestionAnswered) -> shown.QuestionAnswered:
    return shown.QuestionAnswered(
        request_id=event.request_id,
        tool_call_id=event.tool_call_id,
        tool_name=event.tool_name,
        outcome=event.outcome,
        rule_scope=event.rule_scope,
        decided_by=event.decided_by,
        reason=event.reason,
        pattern=event.pattern,
    )


def _decided(event: e.ToolAuthorizationFinished) -> shown.ToolDecided:
    return shown.ToolDecided(
        tool_call_id=event.tool_call_id,
        tool_name=event.tool_name,
        allowed=event.outcome is ToolAuthorizationOutcome.ALLOW,
        decided_by=event.decided_by or "",
        pattern=event.pattern,
        reason=event.reason,
    )


def _ingested(event: Any) -> shown.SessionEvent:
    if event.success:
        return shown.MemoryUpdated(agent_id=event.agent_id, stored_records=event.stored_records)
    why = event.error or "for an unknown reason"
    return shown.Notice(severity="warning", message=f"the memory of agent {event.agent_id} was not updated: {why}")


def _tasks(event: Any) -> shown.TasksUpdated:
    return shown.TasksUpdated(tasks=event.tasks)


def _teammate(event: Any) -> shown.SessionEvent:
    member = event.teammate
    return shown.TaskUpdated(
        task_id=member["id"],
        kind="teammate",
        status="spawned" if event.kind == "teammate_spawned" else _TEAMMATE[member["status"]],
        title=member["name"],
        detail=member["failure"] or member["role"],
    )


def _advised(event: Any) -> shown.QuestionAdvised:
    return shown.QuestionAdvised(
        request_id=event.request_id,
        tool_call_id=event.tool_call_id,
        tool_name=event.tool_name,
        risk=event.risk,
        reason=event.reason,
    )


def _compacted(event: Any) -> shown.CompactionCompleted | None:
    """Return the event for a summary; old results are shortened silently."""
    if event.mode == "shortened":
        return None
    return shown.CompactionCompleted(
        agent_id=event.agent_id,
        replaced_items=event.replaced_items or 0,
        preserved_items=event.preserved_items or 0,
        resulting_transcript_len=event.resulting_history_len,
        extracted_facts_count=event.extracted_facts_count or 0,
        summary_preview=event.summary_preview or "",
    )


_SESSION: dict[type[e.AgentEvent], Callable[[Any], shown.SessionEvent]] = {
    e.SessionStarted: lambda x: shown.SessionStarted(session_id=x.session_id),
    e.TurnStarted: lambda x: shown.UserMessage(text=x.prompt, model=x.model),
    e.TurnFinished: _finished,
    e.RetryAttempt: lambda x: shown.RetryNotice(**x.model_dump()),
    e.TextDelta: lambda x: shown.AssistantTokenDelta(delta=x.delta),
    e.ReasoningDelta: lambda x: shown.AssistantReasoningDelta(delta=x.delta),
    e.ToolUseReady: lambda x: _queued(x.call),
    e.ToolCallStarted: lambda x: shown.ToolStarted(tool_call_id=x.call.id, tool_name=x.call.name),
    e.ToolAuthorizationFinished: _decided,
    e.ToolExecutionProgress: lambda x: shown.ToolProgress(tool_call_id=x.id, tool_name=x.name, progress=x.progress),
    e.ToolExecutionFinished: lambda x: shown.ToolCompleted(
        tool_call_id=x.tool_call_id,
        tool_name=x.tool_name,
        summary=_cut(x.output_preview, RESULT_LIMIT),
        output=_cut(x.output_preview, OUTPUT_LIMIT),
        is_error=x.is_error,
        duration_ms=x.duration_ms,
    ),
    e.UsageReport: lambda x: shown.UsageReported(**x.model_dump()),
    e.QuestionAsked: _asked,
    e.QuestionAnswered: _answered,
    e.SubagentSpawned: lambda x: shown.TaskUpdated(
        task_id=x.subagent_id, kind="subagent", status="spawned", title=x.name, detail=x.prompt or None
    ),
    e.SubagentActed: lambda x: shown.TaskUpdated(
        task_id=x.subagent_id, kind="subagent", status="running", title=x.name, detail=x.tool_name
    ),
    e.SubagentFinished: lambda x: shown.TaskUpdated(
        task_id=x.subagent_id,
        kind="subagent",
        status="finished" if x.error is None else "failed",
        title=x.name,
        detail=x.error,
    ),
    e.BackgroundTaskStarted: lambda x: shown.TaskUpdated(
        task_id=x.task_id, kind="background_task", status="running", title=x.task_id, detail=x.command
    ),
    e.BackgroundTaskFinished: lambda x: shown.TaskUpdated(
        task_id=x.task_id,
        kind="background_task",
        status="finished" if x.status == "finished" else "failed",
        title=x.task_id,
        detail=x.status if x.status == "interrupted" else None,
    ),
    e.Branched: lambda x: shown.HistoryBranched(entry_id=x.entry_id, abandoned_entries=x.abandoned_entries),
}


_TEAMMATE: dict[str, Literal["running", "finished", "failed"]] = {
    "idle": "running",
    "working": "running",
    "failed": "failed",
    "shutdown": "finished",
}
_RARE: dict[str, Callable[[Any], shown.SessionEvent | None]] = {
    "permission_advised": _advised,
    "memory_compaction_proposed": lambda x: shown.CompactionStarted(agent_id=x.agent_id),
    "memory_compaction_applied": _compacted,
    "memory_compaction_skipped": lambda x: shown.Notice(
        severity="info" if x.trigger == "manual" else "warning", message=f"history not shortened: {x.reason}"
    ),
    "tasks_updated": _tasks,
    "teammate_spawned": _teammate,
    "teammate_updated": _teammate,
    "memory_recalled": lambda x: shown.MemoryRecalled(lines=x.lines),
    "memory_ingest_finished": _ingested,
}
"""By the kind of the event, so that a turn without one does not make its class."""


def to_session(event: e.AgentEvent) -> shown.SessionEvent | None:
    """Return the event for a screen, or `None` if a screen does not show it."""
    project: Callable[[Any], shown.SessionEvent | None] | None
    project = _SESSION.get(type(event)) or _RARE.get(getattr(event, "kind", ""))
    return project(event) if project is not None else None
