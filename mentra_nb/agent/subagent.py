"""Subagents: a task is given to a new agent, within the limits of the turn that gives it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.delegation import Delegation
from mentra_nb.content import TokenUsage
from mentra_nb.errors import EmptyAssistantResponse, MentraError, OperationDenied, ProviderNotFound
from mentra_nb.event import types as e
from mentra_nb.ids import new_id
from mentra_nb.providers.base import Provider
from mentra_nb.store.records import AgentRecord
from mentra_nb.tools.template import AgentTemplate

MAX_ROUNDS = 30
SYSTEM = "You are a subagent with one task. Use the tools where they help, and end with a short final answer."
TASK_TOOL = "task"


async def delegate(by: Delegation, call_id: str, prompt: str, template: AgentTemplate | None = None) -> str:
    """Give `prompt` to a new agent with the parent's model and tools, and return its final text.

    The subagent shares the parent's permissions, budgets, deadline and stop, and its usage is reported on the parent's
    bus. It cannot delegate. It is stored as a subagent, which is never resumed on its own. A `template` gives it
    another prompt or model, and fewer tools.

    Raises:
        MentraError: the subagent's turn failed.
    """
    parent: Agent = by.parent
    provider, model = _model(parent, template)
    record = _record(parent, template, provider, model)
    await parent.environment.store.create_agent(record)
    by.made.setdefault(call_id, []).append(record.id)
    bus = parent.environment.bus
    child = Agent(record, provider, replace(parent.environment, bus=bus.child(), holder=None, delegate=_refuse))
    child.parent = parent
    about = {"agent_id": parent.id, "subagent_id": child.id, "name": child.name}
    child.environment.bus.tap(relay := _Relay(bus.emit, about))
    bus.emit(e.SubagentSpawned(model=child.model, prompt=prompt[:200], **about))
    origin = by.origin.model_copy(
        update={"parent_id": parent.id, "parent_run_id": by.run_id, "parent_call_id": call_id or None}
    )
    options = by.options.child(max_rounds=(template and template.max_rounds) or MAX_ROUNDS)
    failed: str | None = "it was stopped"
    try:
        text = (await child.run(prompt, options, origin)).text()
        failed = None
    except EmptyAssistantResponse as empty:
        failed = str(empty) if options.ended_early is not None else None
        if failed is not None:
            raise
        text = ""  # it did its task, and had nothing to say
    except MentraError as error:
        failed = str(error)
        for companion in child.companions.values():
            await companion.requeue()  # a subagent that failed is not resumed
        raise
    finally:
        provider_id = provider.descriptor.id
        bus.emit(e.SubagentFinished(error=failed, provider=provider_id, model=model, usage=relay.usage, **about))
    return text


class _Relay:
    """Passes what a screen shows of a subagent on to the bus of its parent, and counts its tokens."""

    def __init__(self, emit: Callable[[e.AgentEvent], object], about: dict[str, str]) -> None:
        self._emit, self._about = emit, about
        self.usage: TokenUsage = TokenUsage()

    def __call__(self, event: e.AgentEvent) -> None:
        if isinstance(event, e.UsageReport):
            self._emit(event)
        elif isinstance(event, e.ToolCallStarted):
            self._emit(e.SubagentActed(tool_name=event.call.name, **self._about))
        elif isinstance(event, e.TurnFinished):
            self.usage = event.usage


def _model(parent: Agent, template: AgentTemplate | None) -> tuple[Provider, str]:
    """Return the provider and the model of a subagent. Raises `OperationDenied` for one that cannot be used."""
    if template is None or template.model is None:
        return parent.provider, parent.model
    provider, _, model = template.model.partition("/")
    try:
        return parent.environment.find_provider(provider), model
    except ProviderNotFound as error:
        raise OperationDenied(f"the subagent '{template.name}' wants the model {template.model}: {error}") from error


def _record(parent: Agent, template: AgentTemplate | None, provider: Provider, model: str) -> AgentRecord:
    """Return the record of a new subagent."""
    now = time.time()
    return AgentRecord(
        id=new_id("agent"),
        runtime_identifier=parent.runtime_identifier,
        name=f"{parent.name}::{template.name if template is not None else TASK_TOOL}",
        model=model,
        provider_id=provider.descriptor.id,
        config=_config(parent, template).model_dump(mode="json"),
        kind="subagent",
        parent_id=parent.id,
        created_at=now,
        updated_at=now,
    )


def _config(parent: Agent, template: AgentTemplate | None) -> AgentConfig:
    """Return the settings of a subagent: those of its parent, with at most its tools, and without delegating."""
    config = parent.config
    prompt = config.system if template is None else template.prompt
    tools = config.tools
    if template is not None and template.tools is not None:
        tools = tuple(name for name in template.tools if config.offers(name))
    return config.model_copy(
        update={
            "system": "\n\n".join(text for text in (prompt, SYSTEM) if text),
            "tools": tools,
            "hidden_tools": (*config.hidden_tools, TASK_TOOL),
            "task_board": config.task_board or parent.id,
        }
    )


async def _refuse(by: Delegation, call_id: str, prompt: str, template: AgentTemplate | None = None) -> str:
    raise OperationDenied("a subagent cannot delegate: do this task without")
