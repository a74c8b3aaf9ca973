"""Turns that begin by themselves: an agent goes on when commands that it started in the background have ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.limits import RunOptions
from mentra_nb.background.jobs import Jobs
from mentra_nb.content import Message
from mentra_nb.event import types as e

REVIEW = "Background tasks that you started have ended. Review their results, and go on with what they were for."
"""The prompt of a turn that begins by itself. The results follow it in the same request."""


async def wait_for_results(agent: Agent) -> list[str]:
    """Wait until background tasks of an agent have ended by themselves and it takes no turn. Returns their ids.

    What a turn has been told of meanwhile is not waited for.
    """
    jobs: Jobs = agent.environment.services[Jobs]
    while True:
        await jobs.wait_for_news(agent.id)
        await agent.wait_until_idle()
        if found := jobs.news(agent.id):
            return found


async def woken_turns(agent: Agent, options: RunOptions | None = None) -> AsyncGenerator[Message]:
    """Take a turn each time background tasks of `agent` have ended while it takes none; yield its final message.

    The turn's prompt asks the model to review the results, which are in the same request. Results that another turn
    has taken begin none. It goes on until the loop over it is left.

    Args:
        agent: A session's is its `agent`.
        options: Of each turn.

    Raises:
        MentraError: As `Agent.run`. The results then wait for the next turn of the agent.

    Example:
        >>> from pathlib import Path
        >>> build = "until [ -e start ]; do sleep 0.01; done; echo built"
        >>> call = mn.scripted.tool_calls([("background_run", {"command": build})])
        >>> provider = mn.ScriptedProvider([call, mn.scripted.text("It runs."), mn.scripted.text("It is built.")])
        >>> policy = mn.RuntimePolicy.permissive()
        >>> async with mn.Runtime([provider], policy=policy, authorizer=mn.allow_everything) as runtime:
        ...     agent = await runtime.spawn("builder", mn.ModelInfo(id="scripted", provider="scripted"))
        ...     answer = await agent.send("Build it, and say when it is built.")
        ...     Path("start").touch()
        ...     async for answer in mn.woken_turns(agent):
        ...         break
        >>> answer.text()
        'It is built.'
    """
    while True:
        found = await wait_for_results(agent)
        yield await agent.run(REVIEW, options, e.TurnOrigin(woken_by=" ".join(found)))
