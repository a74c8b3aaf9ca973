"""The record's 22 kinds with their exact fields, our additions, and the screen's events: all survive JSON."""

from __future__ import annotations

import json
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kits.core import Recorder
from pydantic import BaseModel

from mentra_nb.content import Message, TokenUsage
from mentra_nb.event import screen as se
from mentra_nb.event import types as e
from mentra_nb.event.bus import EventBus, NullAudit, RuntimeHooks
from mentra_nb.event.projections import to_session

SEED = {
    "authorization_denied": "agent_id action detail",
    "tool_authorization_started": "agent_id tool_name tool_call_id preview",
    "tool_authorization_finished": "agent_id tool_name tool_call_id outcome reason",
    "tool_authorization_blocked": "agent_id tool_name tool_call_id outcome reason",
    "recovery_prepared": "runtime_instance_id",
    "model_request_started": "agent_id model attempt",
    "model_request_finished": "agent_id model attempt success error",
    "model_response_finished": "agent_id model attempt success error stop_reason usage",
    "tool_execution_started": "agent_id tool_name tool_call_id",
    "tool_execution_finished": "agent_id tool_name tool_call_id is_error error output_preview",
    "policy_denied": "agent_id tool_name reason",
    "background_task_started": "agent_id task_id command cwd",
    "background_task_finished": "agent_id task_id status",
    "memory_search_started": "agent_id limit query_preview",
    "memory_search_finished": "agent_id success result_count error",
    "memory_ingest_started": "agent_id source_revision",
    "memory_ingest_finished": "agent_id source_revision success stored_records error",
    "memory_compaction_proposed": "agent_id base_revision transcript_path",
    "memory_compaction_applied": "agent_id base_revision resulting_history_len",
    "memory_compaction_skipped": "agent_id base_revision",
    "run_aborted": "agent_id reason",
    "tool_execution_blocked": "agent_id tool_name tool_call_id reason",
}
ADDED = {
    "effect_made",
    "rule_changed",
    "turn_started",
    "turn_finished",
    "permission_requested",
    "permission_resolved",
    "permission_advised",
    "feedback_given",
    "session_started",
    "journal_gap",
}
OUR_FIELDS = {
    "rule_id",
    "run_id",
    "request_id",
    "provider",
    "duration_ms",
    "model_output",
    "details",
    "decided_by",
    "wait_ms",
    "subject",
    "subjects",
    "invalid",
    "input",
    "records",
    "reason",
    "trigger",
    "mode",
    "tokens",
    "window",
    "tokens_before",
    "tokens_after",
    "replaced_items",
    "preserved_items",
    "extracted_facts_count",
    "summary_preview",
}

SESSION = {
    "session_started": "session_id",
    "user_message": "text",
    "assistant_token_delta": "delta",
    "assistant_reasoning_delta": "delta",
    "assistant_message_completed": "text",
    "tool_queued": "tool_call_id tool_name summary mutability input_json",
    "tool_started": "tool_call_id tool_name",
    "tool_progress": "tool_call_id tool_name progress",
    "tool_completed": "tool_call_id tool_name summary is_error",
    "permission_requested": "request_id tool_call_id tool_name description preview agent_id",
    "permission_resolved": "request_id tool_call_id tool_name outcome rule_scope",
    "permission_advised": "request_id tool_call_id tool_name risk reason",
    "task_updated": "task_id kind status title detail",
    "tasks_updated": "tasks",
    "branched": "entry_id abandoned_entries",
    "compaction_started": "agent_id",
    "compaction_completed": "agent_id replaced_items preserved_items resulting_transcript_len "
    "extracted_facts_count summary_preview",
    "memory_recalled": "lines",
    "memory_updated": "agent_id stored_records",
    "notice": "severity message",
    "retry_attempt": "agent_id error_message attempt max_attempts next_delay_ms",
    "usage_report": "agent_id input_tokens output_tokens cache_read_tokens cache_creation_tokens",
    "error": "message recoverable",
}


def example(hint: Any) -> Any:
    """Some value of that type, never the default."""
    origin = get_origin(hint)
    if origin is typing.Annotated:
        return example(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return example(next(arg for arg in get_args(hint) if arg is not type(None)))
    if origin is Literal:
        return get_args(hint)[-1]
    if origin is tuple:
        return (example(get_args(hint)[0]),)
    if origin is dict:
        return {"key": "value"}
    if hint is Any:
        return {"any": [1, None]}
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return made(hint)
    if hint in (str, bool, int, float):
        return {str: "text", bool: True, int: 3, float: 2.5}[hint]
    return next(iter(hint))  # an enumeration


def made(cls: type[BaseModel]) -> Any:
    return cls(**{name: example(field.annotation) for name, field in cls.model_fields.items() if not field.exclude})


RECORDED = [*e.SEED_KINDS, *e.ADDED_KINDS]
SHOWN = se.SessionEvent.__subclasses__()


def test_the_22_kinds_of_the_original_are_there_in_its_order() -> None:
    assert [cls.model_fields["kind"].default for cls in e.SEED_KINDS] == list(SEED)


@pytest.mark.parametrize("cls", e.SEED_KINDS)
def test_a_recorded_kind_has_the_exact_fields_of_the_original_and_additions_are_optional(
    cls: type[e.RuntimeEvent],
) -> None:
    payload = made(cls).model_dump(mode="json")
    seed = {"kind", *SEED[payload["kind"]].split()}
    assert seed <= set(payload)
    assert set(payload) - seed <= OUR_FIELDS | {"tool_call_id"}
    assert cls.model_validate({name: payload[name] for name in seed}).kind == payload["kind"]


def test_our_own_kinds_come_after() -> None:
    assert {cls.model_fields["kind"].default for cls in e.ADDED_KINDS} == ADDED


@pytest.mark.parametrize("cls", RECORDED)
def test_a_recorded_event_survives_json(cls: type[e.RuntimeEvent]) -> None:
    event = made(cls)
    assert e.runtime_event_from_json(json.loads(event.model_dump_json())) == event


@pytest.mark.parametrize("cls", SHOWN)
def test_all_session_event_variants_serialize_with_type_tag(cls: type[se.SessionEvent]) -> None:
    event = made(cls)
    payload = json.loads(event.model_dump_json())
    assert set(SESSION.get(payload["type"], "").split()) <= set(payload)
    assert se.session_event_from_json(payload) == event


def test_every_screen_event_of_the_original_exists() -> None:
    assert {cls.model_fields["type"].default for cls in SHOWN} - {"tool_decided"} == set(SESSION)


def test_an_optional_field_without_a_value_is_written_as_null() -> None:
    event = e.ModelResponseFinished(agent_id="a", model="m", attempt=1, success=True)
    payload = event.model_dump(mode="json")
    assert (payload["error"], payload["usage"], payload["stop_reason"]) == (None, None, None)


def test_an_event_of_the_original_without_our_fields_still_loads() -> None:
    loaded = e.runtime_event_from_json({"kind": "run_aborted", "agent_id": "a", "reason": "r"})
    assert loaded == e.RunAborted(agent_id="a", reason="r")


@pytest.mark.parametrize("load", [e.runtime_event_from_json, se.session_event_from_json])
def test_a_kind_of_a_newer_version_is_refused_by_name(load: Any) -> None:
    with pytest.raises(KeyError, match="from_the_future"):
        load({"kind": "from_the_future", "type": "from_the_future"})


def test_recovery_is_scoped_to_the_runtime_and_everything_else_to_its_agent() -> None:
    assert e.RecoveryPrepared(runtime_instance_id="runtime-1").scope() == "runtime-1"
    assert "agent_id" not in e.RecoveryPrepared(runtime_instance_id="runtime-1").model_dump()
    assert e.RunAborted(agent_id="agent-1", reason="r").scope() == "agent-1"


usages = st.builds(TokenUsage, input_tokens=st.none() | st.integers(0, 2**53), output_tokens=st.none() | st.integers(0))


@given(agent_id=st.text(), model=st.text(), error=st.none() | st.text(), usage=st.none() | usages)
def test_whatever_is_in_a_response_event_comes_back(
    agent_id: str, model: str, error: str | None, usage: TokenUsage | None
) -> None:
    event = e.ModelResponseFinished(agent_id=agent_id, model=model, attempt=1, success=True, error=error, usage=usage)
    assert e.runtime_event_from_json(json.loads(event.model_dump_json())) == event


# ---- projections ----------------------------------------------------------------------------------------------


def recorded(*events: e.AgentEvent) -> list[e.RuntimeEvent]:
    recorder = Recorder()
    bus = EventBus(RuntimeHooks([recorder]), NullAudit())
    for event in events:
        bus.emit(event)
    return recorder.events


def test_a_recorded_event_is_recorded_as_it_is() -> None:
    event = e.PolicyDenied(agent_id="a", tool_name="t", reason="r")
    assert recorded(event) == [event]


def test_a_delta_is_shown_and_not_recorded() -> None:
    event = e.TextDelta(agent_id="a", delta="x")
    assert recorded(event) == []
    assert to_session(event) == se.AssistantTokenDelta(delta="x")


def test_what_only_this_process_needs_of_a_turn_or_question_is_not_recorded() -> None:
    failed = e.TurnFinished(
        agent_id="a",
        run_id="r",
        stop_reason="error",
        success=False,
        error="boom",
        error_type="X",
        recoverable=True,
        duration_ms=1,
    )
    assert {"usage", "error_type", "recoverable"} & failed.model_dump(mode="json").keys() == set()
    assert to_session(failed) == se.SessionError(message="boom", recoverable=True)
    assert "structured_input" not in e.QuestionAsked.model_construct(structured_input=None).model_dump()


def queued(name: str, **arguments: Any) -> str:
    shown = to_session(e.ToolUseReady(agent_id="a", index=0, call=e.ToolUse(id="1", name=name, input=arguments)))
    assert isinstance(shown, se.ToolQueued)
    return shown.summary


def test_derive_tool_summary_prefers_the_command_then_the_path() -> None:
    assert queued("shell", path="p", command="ls") == "shell: ls"
    assert queued("read", path="a.txt") == "read: a.txt"
    assert queued("edit", file_path="a.txt") == "edit: a.txt"


def test_a_call_with_operations_on_files_is_told_by_them() -> None:
    move = {"op": "move", "from": "a.csv", "to": "b.csv"}
    assert queued("files", operations=[{"op": "create", "path": "n.md", "content": "x"}, move]) == (
        "files: create n.md, move a.csv to b.csv"
    )
    assert queued("files", operations=[move, {"op": 1}]).startswith('files({"operations": [{"op": "move", ')
    assert queued("count", operations=[]) == 'count({"operations": []})'


def test_derive_tool_summary_falls_back_to_the_arguments() -> None:
    assert queued("add", a=1) == 'add({"a": 1})'


def test_input_summary_is_cut_by_characters() -> None:
    assert queued("shell", command="ä" * 500) == "shell: " + "ä" * 93 + "..."
    assert len(queued("add", text="ä" * 500)) == 63


CALL = e.ToolUse(id="1", name="t", input={"n": "ä"})


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (
            e.ToolUseReady(agent_id="a", index=0, call=CALL),
            se.ToolQueued(
                tool_call_id="1", tool_name="t", summary='t({"n": "ä"})', mutability="unknown", input_json='{"n": "ä"}'
            ),
        ),
        (e.ToolCallStarted(agent_id="a", call=CALL), se.ToolStarted(tool_call_id="1", tool_name="t")),
        (
            e.ToolExecutionProgress(agent_id="a", id="1", name="t", progress="half"),
            se.ToolProgress(tool_call_id="1", tool_name="t", progress="half"),
        ),
        (
            e.SubagentSpawned(agent_id="a", subagent_id="b", name="a::task", model="m"),
            se.TaskUpdated(task_id="b", kind="subagent", status="spawned", title="a::task"),
        ),
        (
            e.SubagentFinished(agent_id="a", subagent_id="b", name="a::task"),
            se.TaskUpdated(task_id="b", kind="subagent", status="finished", title="a::task"),
        ),
        (
            e.SubagentFinished(agent_id="a", subagent_id="b", name="a::task", error="boom"),
            se.TaskUpdated(task_id="b", kind="subagent", status="failed", title="a::task", detail="boom"),
        ),
        (
            e.BackgroundTaskStarted(agent_id="a", task_id="bg-1", command="make", cwd="/"),
            se.TaskUpdated(task_id="bg-1", kind="background_task", status="running", title="bg-1", detail="make"),
        ),
        *(
            (
                e.BackgroundTaskFinished(agent_id="a", task_id="bg-1", status=status),
                se.TaskUpdated(task_id="bg-1", kind="background_task", status=shown, title="bg-1", detail=detail),
            )
            for status, shown, detail in (
                ("finished", "finished", None),
                ("failed", "failed", None),
                ("interrupted", "failed", "interrupted"),
            )
        ),
        (e.TurnStarted(agent_id="a", run_id="r", model="m", prompt="hi"), se.UserMessage(text="hi", model="m")),
        (e.ToolUseUpdated(agent_id="a", index=0, id="1", name="t", delta="{"), None),
        (e.AssistantMessageCommitted(agent_id="a", message=Message.assistant("hi")), None),
        (e.MemoryIngestStarted(agent_id="a", source_revision=1), None),
    ],
)
def test_what_a_screen_gets(event: e.AgentEvent, shown: se.SessionEvent | None) -> None:
    assert to_session(event) == shown


def test_tool_execution_finished_is_shown_with_its_name_and_cut_at_200() -> None:
    shown = to_session(
        e.ToolExecutionFinished(agent_id="a", tool_name="t", tool_call_id="1", is_error=False, output_preview="x" * 300)
    )
    assert isinstance(shown, se.ToolCompleted)
    assert (shown.tool_name, shown.summary) == ("t", "x" * 200 + "...")


def test_a_compaction_is_shown_from_its_beginning_and_a_shortened_result_is_not() -> None:
    about = {"agent_id": "a", "base_revision": 9}
    applied = e.MemoryCompactionApplied(
        **about,
        resulting_history_len=3,
        mode="summary",
        replaced_items=7,
        preserved_items=2,
        extracted_facts_count=1,
        summary_preview="[Compaction summary]",
    )
    completed = se.CompactionCompleted(
        agent_id="a",
        replaced_items=7,
        preserved_items=2,
        resulting_transcript_len=3,
        extracted_facts_count=1,
        summary_preview="[Compaction summary]",
    )
    proposed = e.MemoryCompactionProposed(**about, transcript_path="store:a/entry-1")
    assert to_session(proposed) == se.CompactionStarted(agent_id="a")
    assert to_session(applied) == completed
    assert to_session(applied.model_copy(update={"mode": "shortened"})) is None
    skipped = to_session(e.MemoryCompactionSkipped(**about, trigger="auto", reason="the summary failed: gone"))
    assert skipped == se.Notice(severity="warning", message="history not shortened: the summary failed: gone")
