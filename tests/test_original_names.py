"""Every public name of the original runtime is here, or has its row under *Names* in `DEPARTURES.md`."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import mentra_nb
from mentra_nb.event import types as event_types

DEPARTURES = Path(mentra_nb.__file__).parent / "runtime" / "DEPARTURES.md"

GONE = None
"""There is nothing of the kind here; a row of `DEPARTURES.md` says what to use instead."""

NAMES: dict[str, str | None] = {
    # the runtime
    "Runtime": "runtime.runtime:Runtime",
    "Runtime::builder": GONE,
    "Runtime::empty_builder": GONE,
    "RuntimeBuilder": GONE,
    "RuntimeBuilder::with_provider": GONE,
    "RuntimeBuilder::build": GONE,
    "Runtime::register_tool": "runtime.runtime:Runtime.register_tool",
    "Runtime::tools": "runtime.runtime:Runtime.tools",
    "Runtime::tool_descriptor": "runtime.runtime:Runtime.tool_descriptor",
    "Runtime::register_context": "runtime.runtime:Runtime.register_context",
    "Runtime::app_context": "runtime.runtime:Runtime.app_context",
    "Runtime::register_skills_dir": "runtime.runtime:Runtime.register_skills_dir",
    "Runtime::spawn": "runtime.runtime:Runtime.spawn",
    "Runtime::spawn_with_config": GONE,
    "Runtime::resume_agent": "runtime.runtime:Runtime.resume_agent",
    "Runtime::resume": "runtime.runtime:Runtime.resume",
    "Runtime::resume_all": "runtime.runtime:Runtime.resume_all",
    "Runtime::list_persisted_agents": "runtime.runtime:Runtime.list_persisted_agents",
    "Runtime::providers": "runtime.runtime:Runtime.providers",
    "Runtime::register_provider": "runtime.runtime:Runtime.register_provider",
    "Runtime::register_ollama": "runtime.runtime:Runtime.register_ollama",
    "Runtime::register_lmstudio": "runtime.runtime:Runtime.register_lmstudio",
    "Runtime::register_provider_instance": "runtime.runtime:Runtime.register_provider_instance",
    "Runtime::list_models": "runtime.runtime:Runtime.list_models",
    "Runtime::resolve_model": "runtime.runtime:Runtime.resolve_model",
    "Runtime::create_session": "runtime.runtime:Runtime.create_session",
    "Runtime::create_session_with_config": GONE,
    "Runtime::create_session_full": GONE,
    "Runtime::resume_session": "runtime.runtime:Runtime.resume_session",
    "Runtime::resume_session_with_project": GONE,
    "PersistedAgentSummary": "runtime.runtime:PersistedAgentSummary",
    "PersistedAgentSummary.id": "runtime.runtime:PersistedAgentSummary.id",
    "PersistedAgentSummary.runtime_identifier": "runtime.runtime:PersistedAgentSummary.runtime_identifier",
    "PersistedAgentSummary.name": "runtime.runtime:PersistedAgentSummary.name",
    "PersistedAgentSummary.is_teammate": "runtime.runtime:PersistedAgentSummary.is_teammate",
    "PersistedAgentSummary.status": "runtime.runtime:PersistedAgentSummary.status",
    "PersistedAgentSummary.history_len": "runtime.runtime:PersistedAgentSummary.history_len",
    # agents and sessions
    "Agent": "agent.agent:Agent",
    "AgentConfig": "agent.request:AgentConfig",
    "AgentStatus": GONE,
    "Agent::name": "agent.agent:Agent.name",
    "Agent::model": "agent.agent:Agent.model",
    "Agent::is_teammate": GONE,
    "Session": "runtime.session:Session",
    "Session::subscribe": "runtime.session:Session.subscribe",
    "SessionEvent": "event.screen:SessionEvent",
    "SessionEvent::SessionStarted": "event.screen:SessionStarted",
    "SessionId": GONE,
    "SessionMetadata": GONE,
    "SessionPermissionHandle": GONE,
    "SessionToolAuthorizer": "permission.asking:SessionPermissions",
    # control
    "CancellationFlag": GONE,
    "CancellationToken": "agent.limits:CancellationToken",
    "CommandOutput": GONE,
    "CommandRequest": "sandbox.executor:CommandRequest",
    "CommandSpec": GONE,
    "ExecOutput": "sandbox.executor:ExecOutput",
    "RunOptions": "agent.limits:RunOptions",
    "RuntimeExecutor": "sandbox.executor:RuntimeExecutor",
    "RuntimePolicy": "permission.policy:RuntimePolicy",
    # hooks
    "RuntimeHook": "event.bus:RuntimeHook",
    "RuntimeHook::on_event": "event.bus:RuntimeHook.on_event",
    "RuntimeHooks": "event.bus:RuntimeHooks",
    "RuntimeHooks::new": "event.bus:RuntimeHooks.__init__",
    "RuntimeHooks::with_hook": "event.bus:RuntimeHooks.with_hook",
    "RuntimeHooks::extend": "event.bus:RuntimeHooks.extend",
    "RuntimeHooks::emit": "event.bus:RuntimeHooks.emit",
    "AuditHook": "event.bus:AuditHook",
    "AuditLogHook": "event.bus:AuditLogHook",
    "RuntimeHookEvent": "event.types:RuntimeEvent",
    # errors
    "ErrorCategory": "errors:ErrorCategory",
    "RuntimeError": "errors:MentraError",
    "RuntimeError::ProviderNotFound": "errors:ProviderNotFound",
    "RuntimeError::NoModelsAvailable": "errors:NoModelsAvailable",
    "RuntimeError::Store": "errors:StoreError",
    "RuntimeError::FailedToListModels": "errors:FailedToListModels",
    "RuntimeError::FailedToSendRequest": GONE,
    "RuntimeError::FailedToStreamResponse": "errors:FailedToStreamResponse",
    "RuntimeError::FailedToCompactHistory": GONE,
    "SkillLoadError": "errors:SkillLoadError",
    "ProviderError": "errors:ProviderError",
    "ProviderError::Transport": "errors:TransportError",
    "ProviderError::Decode": "errors:DecodeError",
    "ProviderError::Retryable": "errors:RetryableError",
    "ProviderError::Http": "errors:HttpError",
    "ProviderError::Http.status": "errors:HttpError.status",
    "ProviderError::Serialize": GONE,
    "ProviderError::Deserialize": GONE,
    "ProviderError::InvalidRequest": "errors:InvalidRequest",
    "ProviderError::InvalidResponse": GONE,
    "ProviderError::MalformedStream": "errors:MalformedStream",
    "ProviderError::UnsupportedCapability": "errors:UnsupportedCapability",
    "is_transient_provider_error": "errors:is_transient_provider_error",
    "is_transient_runtime_error": "errors:is_transient_runtime_error",
    # stores
    "AgentStore": "store.protocols:AgentStore",
    "AgentStore::load_agent": "store.protocols:AgentStore.load_agent",
    "AgentStore::list_agents": "store.protocols:AgentStore.list_agents",
    "AgentStore::list_agents_by_runtime": "store.protocols:AgentStore.list_agents",
    "AuditStore": "event.bus:AuditStore",
    "AuditStore::record_audit_event": "event.bus:AuditStore.record_audit_event",
    "HybridRuntimeStore": GONE,
    "LeaseStore": "store.protocols:LeaseStore",
    "PermissionRuleStore": "store.protocols:RuleStore",
    "RunStore": "store.protocols:RunStore",
    "RuntimeStore": "store.protocols:RuntimeStore",
    "SqliteRuntimeStore": "store.sqlite:SqliteStore",
    "TaskStore": "store.protocols:TaskStore",
    "TaskItem": "store.records:TaskItem",
    "TaskStatus": "store.records:TaskStatus",
    # providers and models
    "Provider": "providers.base:Provider",
    "Provider::descriptor": "providers.base:Provider.descriptor",
    "Provider::list_models": "providers.base:Provider.list_models",
    "Provider::stream": "providers.base:Provider.stream",
    "ProviderEventStream": "providers.base:ProviderEvent",
    "ProviderDescriptor": "providers.base:ProviderDescriptor",
    "ProviderRegistry": "providers.registry:ProviderRegistry",
    "ProviderId": GONE,
    "BuiltinProvider": "providers.registry:PRESETS",
    "Request": "providers.base:Request",
    "ModelInfo": "providers.base:ModelInfo",
    "ModelInfo.id": "providers.base:ModelInfo.id",
    "ModelInfo.provider": "providers.base:ModelInfo.provider",
    "ModelInfo.created_at": "providers.base:ModelInfo.created_at",
    "ModelSelector": "providers.base:ModelSelector",
    "ModelSelector::Id": "providers.base:ModelSelector.id",
    "ModelSelector::NewestAvailable": "providers.base:ModelSelector.newest_available",
    "TokenUsage": "content:TokenUsage",
    # tools
    "ExecutableTool": "tools.tool:Tool",
    "RuntimeToolDescriptor": "tools.spec:ToolSpec",
    "RuntimeToolDescriptor.name": "tools.spec:ToolSpec.name",
    "ToolAuthorizationOutcome": "authorization:ToolAuthorizationOutcome",
    "ToolAuthorizationPreview": "authorization:ToolAuthorizationPreview",
}

EVENTS = {
    "AuthorizationDenied": "agent_id action detail",
    "ToolAuthorizationStarted": "agent_id tool_name tool_call_id preview",
    "ToolAuthorizationFinished": "agent_id tool_name tool_call_id outcome reason",
    "ToolAuthorizationBlocked": "agent_id tool_name tool_call_id outcome reason",
    "RecoveryPrepared": "runtime_instance_id",
    "ModelRequestStarted": "agent_id model attempt",
    "ModelRequestFinished": "agent_id model attempt success error",
    "ModelResponseFinished": "agent_id model attempt success error stop_reason usage",
    "ToolExecutionStarted": "agent_id tool_name tool_call_id",
    "ToolExecutionFinished": "agent_id tool_name tool_call_id is_error error output_preview",
    "PolicyDenied": "agent_id tool_name reason",
    "BackgroundTaskStarted": "agent_id task_id command cwd",
    "BackgroundTaskFinished": "agent_id task_id status",
    "MemorySearchStarted": "agent_id limit query_preview",
    "MemorySearchFinished": "agent_id success result_count error",
    "MemoryIngestStarted": "agent_id source_revision",
    "MemoryIngestFinished": "agent_id source_revision success stored_records error",
    "MemoryCompactionProposed": "agent_id base_revision transcript_path",
    "MemoryCompactionApplied": "agent_id base_revision resulting_history_len",
    "MemoryCompactionSkipped": "agent_id base_revision",
    "RunAborted": "agent_id reason",
}
"""The variants of `RuntimeHookEvent` and their fields."""


def has(owner: Any, name: str) -> bool:
    """Whether there is that attribute, also one that only instances have."""
    if (
        hasattr(owner, name)
        or name in getattr(owner, "model_fields", ())
        or name in getattr(owner, "__annotations__", ())
    ):
        return True
    return isinstance(owner, type) and f"self.{name}" in inspect.getsource(owner.__init__)


@pytest.mark.parametrize(("original", "here"), [(name, here) for name, here in NAMES.items() if here is not GONE])
def test_a_name_of_the_original_is_here(original: str, here: str) -> None:
    module, _, path = here.partition(":")
    name, _, attribute = path.partition(".")
    found = getattr(importlib.import_module(f"mentra_nb.{module}"), name)
    assert not attribute or has(found, attribute)


@pytest.mark.parametrize("variant", EVENTS)
def test_an_event_of_the_original_is_here_with_its_fields(variant: str) -> None:
    event = getattr(event_types, variant)
    assert set(EVENTS[variant].split()) <= set(event.model_fields)
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", variant).lower()
    assert event.model_fields["kind"].default == kind


def names_with_a_row() -> list[str]:
    section = DEPARTURES.read_text(encoding="utf-8").split("| **Names** | | |\n")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| ")]
    assert all(len(row) == 3 and all(row) for row in rows)
    return [name for original, *_ in rows for name in re.findall(r"`([^`]+)`", original)]


def test_what_is_not_here_has_a_row_in_departures_with_what_to_use_and_why() -> None:
    gone = [name for name, here in NAMES.items() if here is GONE]
    assert sorted(names_with_a_row()) == sorted(gone)
