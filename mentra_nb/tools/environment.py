"""What an agent and its tools share: services from above, handed down frozen. No behaviour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mentra_nb.authorization import ToolAuthorizer
from mentra_nb.control.executor import LocalExecutor, RuntimeExecutor
from mentra_nb.control.hooks import EventBus, PreExecutionHook
from mentra_nb.control.policy import RuntimePolicy
from mentra_nb.store.base import RuntimeStore
from mentra_nb.tools.spec import Tool


@dataclass(frozen=True)
class AgentEnvironment:
    """The services of one agent. `tools` is live: what is registered later is offered from the next request on."""

    bus: EventBus
    store: RuntimeStore
    tools: Mapping[str, Tool]
    working_directory: Path
    policy: RuntimePolicy = field(default_factory=RuntimePolicy)
    executor: RuntimeExecutor = field(default_factory=LocalExecutor)
    authorizer: ToolAuthorizer | None = None
    pre_hooks: Sequence[PreExecutionHook] = ()
    app_contexts: Mapping[type, Any] = field(default_factory=dict)
