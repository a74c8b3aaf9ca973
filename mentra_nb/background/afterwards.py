"""Work that goes on after the turn which began it, and that the runtime waits for when it is closed."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

log: logging.Logger = logging.getLogger(__name__)


class Afterwards:
    """Such work of one runtime, on its event loop. A failure is logged."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._lives: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin the work and return at once."""
        import asyncio

        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def live(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin work that goes on until it ends by itself, or is cancelled when the runtime is closed."""
        import asyncio

        task = asyncio.get_running_loop().create_task(work)
        self._lives.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._lives.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("work after a turn failed", exc_info=error)

    async def finish(self) -> None:
        """Cancel what lives, and wait until all that has begun has ended."""
        for task in self._lives:
            task.cancel()
        while left := self._lives | self._tasks:
            import asyncio

            await asyncio.wait(left)
