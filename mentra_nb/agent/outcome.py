"""What a call that ran came to, and what the model reads of it: post-execution hooks may replace it."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio.to_thread

from mentra_nb.agent import results
from mentra_nb.agent.calls import Call
from mentra_nb.agent.results import MAX_RESULT_BYTES
from mentra_nb.content import Image
from mentra_nb.permission.binding import contained, contained_call
from mentra_nb.tools.results import as_output
from mentra_nb.tools.tool import ToolOutput

if TYPE_CHECKING:
    from mentra_nb.tools.post_hooks import PostExecutionHook

WITHHELD = "the call ran; its result is withheld, as a post-execution hook failed"


class Outcome(NamedTuple):
    """The whole result of a call: text or JSON, or what went wrong."""

    content: Any
    images: tuple[Image, ...] = ()
    is_error: bool = False
    ends_turn: bool = False
    details: Any = None
    """For the record and for screens only."""


async def as_outcome(output: ToolOutput) -> Outcome:
    """Return what a tool returned as text or JSON, made on a thread if it may take long."""
    if output.images or not (_is_short(output.content) and _is_short(output.details)):
        work = partial(contained_call, partial(as_output, output))
        output = await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    else:
        output = as_output(output)
    return Outcome(output.content, output.images, ends_turn=output.terminate, details=output.details)


async def shortened(content: Any, call_id: str | None) -> tuple[Any, str | None]:
    """Call `results.shortened`, on a thread if it may take long."""
    if _is_short(content):
        return results.shortened(content, call_id)
    return await anyio.to_thread.run_sync(results.shortened, content, call_id, abandon_on_cancel=True)


async def after_hooks(hooks: Sequence[PostExecutionHook], call: Call, outcome: Outcome) -> Outcome:
    """Return what the hooks make of an outcome. When one fails, nothing of it is left."""
    if not hooks:
        return outcome
    from mentra_nb.tools.post_hooks import PostExecutionContext

    for hook in hooks:
        context = PostExecutionContext(
            agent_id=call.context.agent_id,
            tool_name=call.use.name,
            tool_call_id=call.use.id,
            input=copy.deepcopy(call.arguments),
            working_directory=str(call.context.working_directory),
            content=copy.deepcopy(outcome.content),
            images=outcome.images,
            is_error=outcome.is_error,
        )
        try:
            decision = await contained(hook.after_execution(context))
            if decision.outcome == "replace":
                made = await as_outcome(ToolOutput(decision.content))
                outcome = outcome._replace(content=made.content, images=made.images)
        except anyio.get_cancelled_exc_class():
            if is_stopped():
                raise
            return withheld(outcome)
        except Exception:  # noqa: BLE001 - code of an application; its words may hold what it was to keep back
            return withheld(outcome)
    return outcome


def noted(outcome: Outcome, note: str) -> Outcome:
    """Return an outcome whose text begins with a note."""
    content = outcome.content
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
    return outcome._replace(content=f"{note}\n{text}")


def withheld(outcome: Outcome) -> Outcome:
    """Return an outcome of which the model reads nothing."""
    return outcome._replace(content=WITHHELD, images=(), is_error=True)


def _is_short(content: Any) -> bool:
    """Return whether it takes no time to put a value into words."""
    if isinstance(content, str):
        return len(content) <= MAX_RESULT_BYTES
    if isinstance(content, int):
        return content.bit_length() <= 64
    return content is None or isinstance(content, float)


def is_stopped() -> bool:
    """Return whether the turn itself is being cancelled, and not only something inside a tool."""
    import asyncio

    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
