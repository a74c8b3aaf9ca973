"""What is said to an agent while it works, in the store: it reaches the model once, also if the process dies.

A message is pending until the entry of the conversation that has it is stored, which makes it in flight in the same
transaction, and acknowledged when the turn has ended. Where the turn failed and the conversation goes on without it, it
is pending again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from mentra_nb.agent.steering import Said, Steering
from mentra_nb.content import Message
from mentra_nb.errors import StoreError
from mentra_nb.store.protocols import TeamStore
from mentra_nb.store.records import SAID

if TYPE_CHECKING:
    import asyncio

log: logging.Logger = logging.getLogger(__name__)


class SaidKeeper:
    """Stores what is said to one agent. Made on the event loop of the agent."""

    __slots__ = ("_agent_id", "_loop", "_store", "_storing", "_task", "_work")

    def __init__(self, store: TeamStore, agent_id: str) -> None:
        import asyncio

        self._store, self._agent_id = store, agent_id
        self._loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._work: list[tuple[Said, bool]] = []
        """What is to be stored (`True`) and forgotten, in this order."""
        self._storing: asyncio.Lock | None = None
        self._task: asyncio.Task[None] | None = None

    def keep(self, said: Said) -> None:
        self._later([(said, True)])

    def forget(self, said: Iterable[Said]) -> None:
        self._later([(each, False) for each in said])

    def _later(self, work: list[tuple[Said, bool]]) -> None:
        self._work += work
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there any more to read it
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._task is None or self._task.done():  # one that runs stores what was added meanwhile
            self._task = self._loop.create_task(self.kept())

    async def kept(self) -> None:
        if not self._work:
            return
        import asyncio

        self._storing = self._storing or asyncio.Lock()
        async with self._storing:
            while self._work:
                said, is_new = self._work[0]
                try:
                    if is_new:
                        await self._store.post_message(SAID, [self._agent_id], _mail(said))
                    else:
                        await self._store.mark_messages(SAID, self._agent_id, [said.id], "acknowledged")
                except StoreError:  # it is still read in this process
                    log.exception("what was said to %s could not be stored", self._agent_id)
                del self._work[0]

    async def settle(self, said: Iterable[Said], state: Literal["pending", "acknowledged"]) -> None:
        await self._store.mark_messages(SAID, self._agent_id, [each.id for each in said], state)


async def restore(steering: Steering, store: TeamStore, agent_id: str, *, failed: bool) -> None:
    """Take up what was said to an agent whose process ended; `failed`: its last turn failed, and can be resumed."""
    waiting, taken = list[Said](), list[Said]()
    for mail, delivery in await store.open_messages(SAID, agent_id):
        (waiting if delivery == "pending" else taken).append(_said(mail))
    if taken and not failed:  # they are in the conversation
        await store.mark_messages(SAID, agent_id, [said.id for said in taken], "acknowledged")
        taken.clear()
    steering.restore(waiting, taken)


def _mail(said: Said) -> Any:
    import time

    from mentra_nb.store.records import TeamMessage

    text = said.message.model_dump_json()
    return TeamMessage.model_validate({"id": said.id, "from": said.when, "content": text, "timestamp": time.time()})


def _said(mail: Any) -> Said:
    return Said(mail.id, Message.model_validate_json(mail.content), mail.sender)
