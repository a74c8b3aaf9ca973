"""mentra-nb: the mentra agent runtime in a notebook.

    %load_ext mentra_nb
    %mentra what can you do here?

In code (`import mentra_nb as mn`), each with its own help:

    ask, aask, Chat              ask a model, once or in a conversation; a `Reply` comes back
    map, amap, forget_rows       a prompt over the rows of a frame, each asked once; delete stored answers
    agreement                    how far two columns of answers agree
    preview                      what an object would be for the model
    models, connect              which models there are; register a server
    tape, replay                 write a server's answers down; answer from them
    use                          ask a provider object: your own class, or a script
    tool                         make a function a tool
    tasks, task_tools            the tasks of a conversation; what a model keeps them with
    memories, pin, forget        what is remembered; `memory_tools`, `MemoryConfig` and `hybrid_store`: how and where
    subagent_tools               what a model gives tasks to subagents with
    team, team_tools, TeamConfig agents that work beside a conversation; what a model makes them with; how they work
    undo                         take back what a turn did to files and variables
    mcp, mcp_servers             offer the tools of an MCP server; which servers there are
    allow, deny, rules, revoke   what tools may do unasked
    suggest_rules                rules that your own answers would make
    budgets                      what may still be used
    jobs, stop_job, stop_jobs    commands in the background; woken_turns: the turns that their ends begin
    turns, sessions, tool_calls, model_calls, decisions, rule_changes, effects, usage, advice, feedback, events,
    messages, sql, columns       what happened, as DataFrames
    slowest_tools, denial_reasons, reviewer_report, time_spent, compare, backtest, plot: what that says
    export, verify, prune        hand the record over, check it, shorten it; record_head: keep its digest
    Runtime, Session, Agent      the same without a notebook, asynchronously
    errors                       every exception, as a tree

The names load when they are first used; importing the package loads nothing else.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AgentConfig",
    "AgentEvent",
    "AgentSnapshot",
    "AgentTemplate",
    "Agreement",
    "AuditHook",
    "AuditStore",
    "Boundary",
    "CancellationToken",
    "Chat",
    "CommandRequest",
    "ConnectedServer",
    "ExecOutput",
    "Form",
    "FormField",
    "FunctionTool",
    "Image",
    "Journal",
    "JournalHealth",
    "LocalExecutor",
    "McpServer",
    "McpServers",
    "McpStatus",
    "MemoryConfig",
    "Message",
    "ModelInfo",
    "ModelSelector",
    "NullAudit",
    "OutputOptions",
    "PermissionDecision",
    "PermissionQuestion",
    "PermissionRule",
    "PersistedAgentSummary",
    "PostExecutionContext",
    "PostExecutionDecision",
    "PostExecutionHook",
    "PreExecutionContext",
    "PreExecutionDecision",
    "PreExecutionHook",
    "Preview",
    "Provider",
    "ProviderCapabilities",
    "ProviderDescriptor",
    "RecordHead",
    "Reply",
    "Request",
    "ResponseFormat",
    "RoundSource",
    "RunOptions",
    "RunningTurn",
    "Runtime",
    "RuntimeEvent",
    "RuntimeExecutor",
    "RuntimeHook",
    "RuntimeHooks",
    "RuntimePolicy",
    "RuntimeStore",
    "ScriptedProvider",
    "Session",
    "SessionEvent",
    "Skill",
    "Spent",
    "SqliteStore",
    "TeamConfig",
    "TeamView",
    "TokenUsage",
    "Tool",
    "ToolAuthorizationDecision",
    "ToolAuthorizationOutcome",
    "ToolAuthorizationPreview",
    "ToolAuthorizationRequest",
    "ToolAuthorizer",
    "ToolCallSummary",
    "ToolChoice",
    "ToolContext",
    "ToolError",
    "ToolOutput",
    "ToolSpec",
    "TurnOrigin",
    "UndoResult",
    "VolatileStore",
    "__version__",
    "aask",
    "advice",
    "agreement",
    "allow",
    "allow_everything",
    "amap",
    "ask",
    "authorization",
    "backtest",
    "budgets",
    "columns",
    "compare",
    "connect",
    "content",
    "decisions",
    "denial_reasons",
    "deny",
    "effects",
    "errors",
    "event_types",
    "events",
    "export",
    "feedback",
    "forget",
    "forget_rows",
    "http",
    "hybrid_store",
    "jobs",
    "load_ipython_extension",
    "mcp",
    "mcp_servers",
    "memories",
    "memory_tools",
    "messages",
    "model_calls",
    "models",
    "pin",
    "plot",
    "preview",
    "provider",
    "prune",
    "record_head",
    "records",
    "replay",
    "reviewer_report",
    "revoke",
    "rule_changes",
    "rules",
    "screen_events",
    "scripted",
    "sessions",
    "slowest_tools",
    "sql",
    "stop_job",
    "stop_jobs",
    "strategy",
    "subagent_tools",
    "suggest_rules",
    "tape",
    "task_tools",
    "tasks",
    "team",
    "team_tools",
    "time_spent",
    "tool",
    "tool_calls",
    "turns",
    "undo",
    "unload_ipython_extension",
    "usage",
    "use",
    "verify",
    "woken_turns",
]

_NOT_BY_STAR = ["map"]
"""Names that `from mentra_nb import *` does not bring, because they would hide one of Python's own."""

_NAMES = {
    "chat.api": "ask aask allow deny revoke rules models connect replay use tape",
    "chat.jobs": "jobs stop_job stop_jobs",
    "chat.memories": "memories pin forget",
    "chat.tasks": "tasks",
    "chat.teams": "TeamView team",
    "chat.budgets": "budgets",
    "chat.chat": "Chat",
    "chat.reply": "Reply ToolCallSummary",
    "chat.turn": "RunningTurn",
    "chat.undo": "UndoResult undo",
    "chat.messages": "messages",
    "chat.preview": "preview Preview",
    "chat.backtest": "backtest",
    "chat.suggest": "suggest_rules",
    "rows.agreement": "Agreement agreement",
    "rows.api": "amap forget_rows map",
    "record.read.frames": (
        "events sessions turns model_calls tool_calls decisions effects rule_changes usage advice feedback sql"
    ),
    "record.read.columns": "columns",
    "record.read.reports": "slowest_tools denial_reasons reviewer_report time_spent compare",
    "record.read.plots": "plot",
    "record.read.export": "export",
    "record.keep.verify": "verify record_head RecordHead",
    "record.keep.prune": "prune",
    "record.write.journal": "Journal",
    "record.write.health": "JournalHealth",
    "tools.function": "tool FunctionTool",
    "tools.tool": "Tool ToolContext ToolOutput",
    "tools.spec": "ToolSpec",
    "tools.schema": "ToolError",
    "tools.builtin.skills": "Skill",
    "memory.config": "MemoryConfig",
    "memory.tools": "memory_tools",
    "tools.builtin.task": "subagent_tools",
    "tools.template": "AgentTemplate",
    "task_board.tools": "task_tools",
    "teams.config": "TeamConfig",
    "teams.tools": "team_tools",
    "sandbox.executor": "RuntimeExecutor LocalExecutor CommandRequest ExecOutput",
    "content": "Image Message TokenUsage",
    "permission.policy": "RuntimePolicy",
    "forms": "Form FormField",
    "authorization": (
        "PermissionDecision PermissionQuestion PermissionRule ToolAuthorizer allow_everything "
        "ToolAuthorizationRequest ToolAuthorizationDecision ToolAuthorizationOutcome ToolAuthorizationPreview"
    ),
    "tools.post_hooks": "PostExecutionHook PostExecutionContext PostExecutionDecision",
    "tools.pre_hooks": "PreExecutionHook PreExecutionContext PreExecutionDecision",
    "runtime.runtime": "Runtime",
    "runtime.agents": "PersistedAgentSummary",
    "runtime.session": "Session",
    "agent.agent": "Agent",
    "agent.turn": "AgentSnapshot",
    "agent.config": "AgentConfig",
    "agent.output": "OutputOptions",
    "agent.limits": "RunOptions CancellationToken Spent",
    "agent.waking": "woken_turns",
    "agent.steering": "RoundSource Boundary",
    "store.protocols": "RuntimeStore",
    "store.hybrid": "hybrid_store",
    "store.sqlite": "SqliteStore",
    "store.volatile": "VolatileStore",
    "event.types": "AgentEvent RuntimeEvent TurnOrigin",
    "event.screen": "SessionEvent",
    "event.bus": "AuditHook AuditStore NullAudit RuntimeHook RuntimeHooks",
    "providers.base": (
        "ModelInfo ModelSelector Provider ProviderCapabilities ProviderDescriptor Request ResponseFormat ToolChoice"
    ),
    "providers.scripted": "ScriptedProvider",
    "chat.mcp_servers": "mcp mcp_servers ConnectedServer",
    "settings": "McpServer",
    "mcp_client.servers": "McpServers McpStatus",
}
"""The names that are taken from each module."""

_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

_MODULES = {
    "authorization": "authorization",
    "content": "content",
    "errors": "errors",
    "http": "providers.http",
    "event_types": "event.types",
    "provider": "providers.base",
    "records": "store.records",
    "screen_events": "event.screen",
    "scripted": "providers.scripted",
    "strategy": "agent.strategy",
}
"""Modules with the rest of a family: all errors, all kinds of events, all parts of a message."""

if sys.platform == "emscripten":
    from mentra_nb.browser import work_without_threads

    work_without_threads()


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = import_module(f"mentra_nb.{_MODULES[name]}")
    elif name in _HOME:
        value = getattr(import_module(f"mentra_nb.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'mentra_nb' has no attribute {name!r}")
    if name in ("ask", "Chat", "map", "amap"):
        _attach()
    globals()[name] = value
    return value


def _attach() -> None:
    """In a notebook without `%load_ext mentra_nb`, show turns all the same: they stream and can ask a person."""
    if "ipykernel" in sys.modules:
        from mentra_nb.notebook.extension import attach

        attach()


def __dir__() -> list[str]:
    return sorted([*__all__, *_NOT_BY_STAR])


def load_ipython_extension(shell: Any) -> None:
    """Load the magics: `%load_ext mentra_nb`."""
    from mentra_nb.notebook.extension import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Unload the magics: `%unload_ext mentra_nb`."""
    from mentra_nb.notebook.extension import unload

    unload(shell)


if TYPE_CHECKING:
    from mentra_nb import authorization, content, errors
    from mentra_nb.agent import strategy
    from mentra_nb.agent.agent import Agent
    from mentra_nb.agent.config import AgentConfig
    from mentra_nb.agent.limits import CancellationToken, RunOptions, Spent
    from mentra_nb.agent.output import OutputOptions
    from mentra_nb.agent.steering import Boundary, RoundSource
    from mentra_nb.agent.turn import AgentSnapshot
    from mentra_nb.agent.waking import woken_turns
    from mentra_nb.authorization import (
        PermissionDecision,
        PermissionQuestion,
        PermissionRule,
        ToolAuthorizationDecision,
        ToolAuthorizationOutcome,
        ToolAuthorizationPreview,
        ToolAuthorizationRequest,
        ToolAuthorizer,
        allow_everything,
    )
    from mentra_nb.chat.api import aask, allow, ask, connect, deny, models, replay, revoke, rules, tape, use
    from mentra_nb.chat.backtest import backtest
    from mentra_nb.chat.budgets import budgets
    from mentra_nb.chat.chat import Chat
    from mentra_nb.chat.jobs import jobs, stop_job, stop_jobs
    from mentra_nb.chat.mcp_servers import ConnectedServer, mcp, mcp_servers
    from mentra_nb.chat.memories import forget, memories, pin
    from mentra_nb.chat.messages import messages
    from mentra_nb.chat.preview import Preview, preview
    from mentra_nb.chat.reply import Reply, ToolCallSummary
    from mentra_nb.chat.suggest import suggest_rules
    from mentra_nb.chat.tasks import tasks
    from mentra_nb.chat.teams import TeamView, team
    from mentra_nb.chat.turn import RunningTurn
    from mentra_nb.chat.undo import UndoResult, undo
    from mentra_nb.content import Image, Message, TokenUsage
    from mentra_nb.event import screen as screen_events
    from mentra_nb.event import types as event_types
    from mentra_nb.event.bus import AuditHook, AuditStore, NullAudit, RuntimeHook, RuntimeHooks
    from mentra_nb.event.screen import SessionEvent
    from mentra_nb.event.types import AgentEvent, RuntimeEvent, TurnOrigin
    from mentra_nb.forms import Form, FormField
    from mentra_nb.mcp_client.servers import McpServers, McpStatus
    from mentra_nb.memory.config import MemoryConfig
    from mentra_nb.memory.tools import memory_tools
    from mentra_nb.permission.policy import RuntimePolicy
    from mentra_nb.providers import base as provider
    from mentra_nb.providers import http, scripted
    from mentra_nb.providers.base import (
        ModelInfo,
        ModelSelector,
        Provider,
        ProviderCapabilities,
        ProviderDescriptor,
        Request,
        ResponseFormat,
        ToolChoice,
    )
    from mentra_nb.providers.scripted import ScriptedProvider
    from mentra_nb.record.keep.prune import prune
    from mentra_nb.record.keep.verify import RecordHead, record_head, verify
    from mentra_nb.record.read.columns import columns
    from mentra_nb.record.read.export import export
    from mentra_nb.record.read.frames import (
        advice,
        decisions,
        effects,
        events,
        feedback,
        model_calls,
        rule_changes,
        sessions,
        sql,
        tool_calls,
        turns,
        usage,
    )
    from mentra_nb.record.read.plots import plot
    from mentra_nb.record.read.reports import compare, denial_reasons, reviewer_report, slowest_tools, time_spent
    from mentra_nb.record.write.health import JournalHealth
    from mentra_nb.record.write.journal import Journal
    from mentra_nb.rows.agreement import Agreement, agreement
    from mentra_nb.rows.api import amap, forget_rows
    from mentra_nb.rows.api import map as map
    from mentra_nb.runtime.agents import PersistedAgentSummary
    from mentra_nb.runtime.runtime import Runtime
    from mentra_nb.runtime.session import Session
    from mentra_nb.sandbox.executor import CommandRequest, ExecOutput, LocalExecutor, RuntimeExecutor
    from mentra_nb.settings import McpServer
    from mentra_nb.store import records
    from mentra_nb.store.hybrid import hybrid_store
    from mentra_nb.store.protocols import RuntimeStore
    from mentra_nb.store.sqlite import SqliteStore
    from mentra_nb.store.volatile import VolatileStore
    from mentra_nb.task_board.tools import task_tools
    from mentra_nb.teams.config import TeamConfig
    from mentra_nb.teams.tools import team_tools
    from mentra_nb.tools.builtin.skills import Skill
    from mentra_nb.tools.builtin.task import subagent_tools
    from mentra_nb.tools.function import FunctionTool, tool
    from mentra_nb.tools.post_hooks import PostExecutionContext, PostExecutionDecision, PostExecutionHook
    from mentra_nb.tools.pre_hooks import PreExecutionContext, PreExecutionDecision, PreExecutionHook
    from mentra_nb.tools.schema import ToolError
    from mentra_nb.tools.spec import ToolSpec
    from mentra_nb.tools.template import AgentTemplate
    from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput
