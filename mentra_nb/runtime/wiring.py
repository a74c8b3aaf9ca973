"""What the agents of a runtime share: the environment each is given, and what is done once before the first."""

from __future__ import annotations

import logging
import time
from collections import ChainMap
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from mentra_nb.agent.environment import AgentEnvironment
from mentra_nb.agent.subagent import delegate
from mentra_nb.authorization import ToolAuthorizer
from mentra_nb.background.jobs import Jobs
from mentra_nb.event.bus import EventBus
from mentra_nb.event.types import RecoveryPrepared
from mentra_nb.paths import has_entries, home
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.permission.questions import expired
from mentra_nb.providers.registry import ProviderRegistry
from mentra_nb.runtime.offers import Offers
from mentra_nb.sandbox.executor import LocalExecutor, RuntimeExecutor
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.tools.tool import Tool

if TYPE_CHECKING:
    from mentra_nb.sandbox.fenced import Fence
    from mentra_nb.tools.post_hooks import PostExecutionHook
    from mentra_nb.tools.pre_hooks import PreExecutionHook

log: logging.Logger = logging.getLogger(__name__)

QUESTION_GRACE = 60.0
"""Seconds after its deadline in which only the process that asked a question closes it."""


@dataclass(eq=False, repr=False)
class Wiring:
    """The parts of one runtime, put together for its agents."""

    runtime_id: str
    store: RuntimeStore
    bus: EventBus
    providers: ProviderRegistry
    offers: Offers
    policy: RuntimePolicy
    executor: RuntimeExecutor
    authorizer: ToolAuthorizer | None
    pre_hooks: Sequence[PreExecutionHook]
    post_hooks: Sequence[PostExecutionHook]
    working_directory: Path | None
    jobs: Jobs
    _announced: bool = field(default=False, init=False)
    _prepared: bool = field(default=False, init=False)
    _folders: dict[Path, Path] = field(default_factory=dict, init=False)
    """The folders that agents work in: one object for each."""

    @cached_property
    def _fence(self) -> Fence:
        from mentra_nb.sandbox.fenced import Fence

        return Fence()

    @cached_property
    def _shared(self) -> dict[str, Any]:
        """What is the same object in each environment, as there may be thousands of idle agents."""
        return {
            "store": self.store,
            "find_provider": self.providers.get,
            "policy": self.policy,
            "executor": self.executor,
            "fence": (lambda: self._fence) if isinstance(self.executor, LocalExecutor) else None,
            "pre_hooks": self.pre_hooks,
            "post_hooks": self.post_hooks,
            "services": ChainMap({Jobs: self.jobs}, self.offers.contexts),
            "system_sections": (self.offers.skills_section,),
            "delegate": delegate,
            "holder": self.runtime_id,
        }

    def announce(self) -> None:
        """Say once that the runtime is there."""
        if not self._announced:
            self._announced = True
            self.bus.emit(RecoveryPrepared(runtime_instance_id=self.runtime_id))

    async def prepare(self) -> None:
        """Connect the MCP servers, close the questions and mend the files that a dead process left. Once."""
        self.announce()
        if not self._prepared:
            self._prepared = True
            await self.offers.connect()
            for question in await self.store.expire_questions(time.time() - QUESTION_GRACE):
                self.bus.emit(expired(question))
            await self._recover_effects()

    async def _recover_effects(self) -> None:
        """Finish or take back what a killed process was doing to files, and record it; delete what is overdue."""
        effects = home() / "effects"
        if has_entries(effects / "waiting"):
            from mentra_nb.sandbox.waiting import remove_left

            await anyio.to_thread.run_sync(remove_left, effects / "waiting")
        if not has_entries(effects / "pending"):
            return
        from mentra_nb.effect.journal import Journal
        from mentra_nb.event.effects import effects_made

        try:
            recovered = await anyio.to_thread.run_sync(Journal().recover)
        except OSError:
            log.exception("changes to files that were interrupted could not be finished or taken back")
            return
        for each in recovered:
            about = {"run_id": each.entry.turn, "tool_name": each.entry.tool, "tool_call_id": each.entry.call}
            for event in effects_made(each.entry, each.outcome, agent_id="", **about):
                self.bus.emit(event)

    def plain_environment(self) -> AgentEnvironment:
        """Return the environment of an agent without a session."""
        return self.environment(self.bus, self.authorizer, {})

    def environment(
        self, bus: EventBus, authorizer: ToolAuthorizer | None, own_tools: MutableMapping[str, Tool]
    ) -> AgentEnvironment:
        """Return the environment of an agent on a bus, with an authorizer and tools of its own."""
        folder = (self.working_directory or Path.cwd()).resolve()
        return AgentEnvironment(
            bus=bus,
            tools=ChainMap(own_tools, self.offers.tools),
            working_directory=self._folders.setdefault(folder, folder),
            authorizer=authorizer,
            **self._shared,
        )
