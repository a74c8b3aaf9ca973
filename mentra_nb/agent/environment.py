"""What an agent and its tools share: services from above, handed down frozen. No behaviour."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mentra_nb.agent.limits import RunOptions
from mentra_nb.authorization import ToolAuthorizer
from mentra_nb.event.bus import EventBus, PreExecutionHook
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.base import Provider
from mentra_nb.sandbox.executor import LocalExecutor, RuntimeExecutor
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.tools.tool import Tool


@dataclass(frozen=True)
class AgentEnvironment:
    """The services of one agent. `tools` is live: what is registered later is offered from the next request on."""

    bus: EventBus
    store: RuntimeStore
    tools: Mapping[str, Tool]
    working_directory: Path
    find_provider: Callable[[str], Provider]
    """The provider of an id. Raises `ProviderNotFound`."""
    policy: RuntimePolicy = field(default_factory=RuntimePolicy)
    executor: RuntimeExecutor = field(default_factory=LocalExecutor)
    authorizer: ToolAuthorizer | None = None
    pre_hooks: Sequence[PreExecutionHook] = ()
    app_contexts: Mapping[type, Any] = field(default_factory=dict)
    system_sections: Sequence[Callable[[Callable[[str], bool]], str | None]] = ()
    """What follows an agent's own system text; each is told which tools the agent is offered."""
    delegate: Callable[[Any, RunOptions, str], Awaitable[str]] | None = None
    """How an agent, in a run with these options, gives a task to a subagent."""
    holder: str | None = None
    """The runtime whose lease on the agent every write is checked against; `None` for no check."""
