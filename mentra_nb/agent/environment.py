"""What the runtime hands to each agent, frozen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mentra_nb.authorization import ToolAuthorizer
from mentra_nb.event.bus import EventBus
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.sandbox.executor import LocalExecutor, RuntimeExecutor

if TYPE_CHECKING:
    from mentra_nb.agent.delegation import Delegation
    from mentra_nb.providers.base import Provider
    from mentra_nb.sandbox.fenced import Fence
    from mentra_nb.store.protocols import RuntimeStore
    from mentra_nb.tools.post_hooks import PostExecutionHook
    from mentra_nb.tools.pre_hooks import PreExecutionHook
    from mentra_nb.tools.template import AgentTemplate
    from mentra_nb.tools.tool import Tool


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class AgentEnvironment:
    """The services of one agent. `tools` is live: a tool registered later is offered from the next request on."""

    bus: EventBus
    store: RuntimeStore
    tools: Mapping[str, Tool]
    working_directory: Path
    find_provider: Callable[[str], Provider]
    """Returns the provider of an id. Raises `ProviderNotFound`."""
    policy: RuntimePolicy = field(default_factory=RuntimePolicy)
    executor: RuntimeExecutor = field(default_factory=LocalExecutor)
    fence: Callable[[], Fence] | None = None
    """Returns what runs a command so that its effect can be judged first; `None`: nothing does."""
    authorizer: ToolAuthorizer | None = None
    pre_hooks: Sequence[PreExecutionHook] = ()
    post_hooks: Sequence[PostExecutionHook] = ()
    services: Mapping[type, Any] = field(default_factory=dict)
    """What tools may use, by exact type: application objects and the runtime's own services."""
    system_sections: Sequence[Callable[[Callable[[str], bool]], str | None]] = ()
    """Text appended to the agent's system prompt; each function is given the test for offered tools."""
    delegate: Callable[[Delegation, str, str, AgentTemplate | None], Awaitable[str]] | None = None
    """As `Delegation.give`."""
    holder: str | None = None
    """Id of the runtime whose lease on the agent is checked with every write; `None` for no check."""
