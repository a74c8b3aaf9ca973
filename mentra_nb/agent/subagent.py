"""Subagents: a task is given to a new agent, within the limits of the turn that gives it."""

from __future__ import annotations

import time
from dataclasses import replace

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.limits import RunOptions
from mentra_nb.errors import MentraError, OperationDenied
from mentra_nb.event import types as e
from mentra_nb.ids import new_id
from mentra_nb.store.records import AgentRecord

MAX_ROUNDS = 30
SYSTEM = "You are a subagent with one task. Use the tools where they help, and end with a short final answer."


async def delegate(parent: Agent, options: RunOptions, prompt: str) -> str:
    """Give `prompt` to a new agent with the parent's model and tools, and return its final text.

    The subagent shares the parent's permissions, budgets, deadline and stop, and its usage is reported on the parent's
    bus. It cannot delegate. It is stored as a subagent, which is never resumed on its own.

    Raises:
        MentraError: the subagent's turn failed.
    """
    now, environment = time.time(), parent.environment
    system = "\n\n".join(text for text in (parent.config.system, SYSTEM) if text)
    config = parent.config.model_copy(update={"system": system, "task_board": parent.config.task_board or parent.id})
    record = AgentRecord(
        id=new_id("agent"),
        runtime_identifier=parent.runtime_identifier,
        name=f"{parent.name}::task",
        model=parent.model,
        provider_id=parent.provider.descriptor.id,
        config=config.model_dump(mode="json"),
        kind="subagent",
        parent_id=parent.id,
        created_at=now,
        updated_at=now,
    )
    await environment.store.create_agent(record)
    bus = environment.bus.child()

    def relay(event: e.AgentEvent) -> None:
        if isinstance(event, e.UsageReport):
            environment.bus.emit(event)

    bus.tap(relay)
    child = Agent(record, parent.provider, replace(environment, bus=bus, holder=None, delegate=_refuse))
    child.parent = parent
    about = {"agent_id": parent.id, "subagent_id": child.id, "name": child.name}
    environment.bus.emit(e.SubagentSpawned(model=child.model, **about))
    failed: str | None = "it was stopped"
    try:
        message = await child.run(prompt, options.child(max_rounds=MAX_ROUNDS))
        failed = None
    except MentraError as error:
        failed = str(error)
        raise
    finally:
        environment.bus.emit(e.SubagentFinished(error=failed, **about))
    return message.text()


async def _refuse(parent: Agent, options: RunOptions, prompt: str) -> str:
    raise OperationDenied("a subagent cannot delegate: do this task without")
