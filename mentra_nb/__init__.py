"""mentra-nb: the mentra agent runtime in a notebook.

    %load_ext mentra_nb
    %mentra what can you do here?

The names below load when first used; importing the package loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    # the asynchronous core
    "Runtime": "runtime.runtime",
    "Session": "runtime.session",
    "Agent": "agent.agent",
    "AgentConfig": "agent.request",
    "RunOptions": "agent.limits",
    "CancellationToken": "agent.limits",
    "RuntimePolicy": "permission.policy",
    "ModelInfo": "providers.base",
    "ModelSelector": "providers.base",
    "ScriptedProvider": "providers.scripted",
    "VolatileStore": "store.volatile",
    "SqliteStore": "store.sqlite",
    # tools
    "tool": "tools.tool",
    "ToolContext": "tools.tool",
    "ToolError": "tools.tool",
    "ToolOutput": "tools.tool",
    "Image": "content",
    # the synchronous face
    "ask": "chat.api",
    "Chat": "chat.chat",
    "Reply": "chat.reply",
    "allow": "chat.api",
    "deny": "chat.api",
    "rules": "chat.api",
    "models": "chat.api",
    "connect": "chat.api",
    "replay": "chat.api",
    "tape": "chat.api",
    # the record
    "events": "record.read.frames",
    "sessions": "record.read.frames",
    "turns": "record.read.frames",
    "model_calls": "record.read.frames",
    "tool_calls": "record.read.frames",
    "decisions": "record.read.frames",
    "usage": "record.read.frames",
    "sql": "record.read.frames",
    "columns": "record.read.columns",
    "slowest_tools": "record.read.reports",
    "denial_reasons": "record.read.reports",
    "time_spent": "record.read.reports",
    "compare": "record.read.reports",
    "backtest": "chat.backtest",
    "messages": "chat.messages",
    "plot": "record.read.plots",
    "export": "record.read.export",
    "verify": "record.keep.verify",
    "prune": "record.keep.prune",
}

__all__ = list(_HOME)
__all__ += ["load_ipython_extension", "unload_ipython_extension"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mentra_nb' has no attribute {name!r}")
    value = getattr(import_module(f"mentra_nb.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext mentra_nb`"""
    from mentra_nb.notebook.extension import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext mentra_nb`"""
    from mentra_nb.notebook.extension import unload

    unload(shell)


if TYPE_CHECKING:
    from mentra_nb.agent.agent import Agent as Agent
    from mentra_nb.agent.limits import CancellationToken as CancellationToken
    from mentra_nb.agent.limits import RunOptions as RunOptions
    from mentra_nb.agent.request import AgentConfig as AgentConfig
    from mentra_nb.chat.api import allow as allow
    from mentra_nb.chat.api import ask as ask
    from mentra_nb.chat.api import connect as connect
    from mentra_nb.chat.api import deny as deny
    from mentra_nb.chat.api import models as models
    from mentra_nb.chat.api import replay as replay
    from mentra_nb.chat.api import rules as rules
    from mentra_nb.chat.api import tape as tape
    from mentra_nb.chat.backtest import backtest as backtest
    from mentra_nb.chat.chat import Chat as Chat
    from mentra_nb.chat.messages import messages as messages
    from mentra_nb.chat.reply import Reply as Reply
    from mentra_nb.content import Image as Image
    from mentra_nb.permission.policy import RuntimePolicy as RuntimePolicy
    from mentra_nb.providers.base import ModelInfo as ModelInfo
    from mentra_nb.providers.base import ModelSelector as ModelSelector
    from mentra_nb.providers.scripted import ScriptedProvider as ScriptedProvider
    from mentra_nb.record.keep.prune import prune as prune
    from mentra_nb.record.keep.verify import verify as verify
    from mentra_nb.record.read.columns import columns as columns
    from mentra_nb.record.read.export import export as export
    from mentra_nb.record.read.frames import decisions as decisions
    from mentra_nb.record.read.frames import events as events
    from mentra_nb.record.read.frames import model_calls as model_calls
    from mentra_nb.record.read.frames import sessions as sessions
    from mentra_nb.record.read.frames import sql as sql
    from mentra_nb.record.read.frames import tool_calls as tool_calls
    from mentra_nb.record.read.frames import turns as turns
    from mentra_nb.record.read.frames import usage as usage
    from mentra_nb.record.read.plots import plot as plot
    from mentra_nb.record.read.reports import compare as compare
    from mentra_nb.record.read.reports import denial_reasons as denial_reasons
    from mentra_nb.record.read.reports import slowest_tools as slowest_tools
    from mentra_nb.record.read.reports import time_spent as time_spent
    from mentra_nb.runtime.runtime import Runtime as Runtime
    from mentra_nb.runtime.session import Session as Session
    from mentra_nb.store.sqlite import SqliteStore as SqliteStore
    from mentra_nb.store.volatile import VolatileStore as VolatileStore
    from mentra_nb.tools.tool import ToolContext as ToolContext
    from mentra_nb.tools.tool import ToolError as ToolError
    from mentra_nb.tools.tool import ToolOutput as ToolOutput
    from mentra_nb.tools.tool import tool as tool
