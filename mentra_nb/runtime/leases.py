"""Which agents this runtime has: leases in the store, taken before anything is touched and renewed while it lives."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import AsyncExitStack

import anyio

from mentra_nb.errors import LeaseUnavailable, StoreError
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.records import LeaseHolder

log = logging.getLogger(__name__)

TTL = 60.0
"""Seconds a lease holds without being renewed."""


class Leases:
    """The leases of one runtime. A thread of its own renews them, so that a busy event loop does not lose them."""

    def __init__(self, store: RuntimeStore, runtime_id: str, *, ttl: float = TTL) -> None:
        self._store = store
        self.ttl = ttl
        self.holder: LeaseHolder = LeaseHolder.here(runtime_id)
        self._keys: set[str] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def has(self, agent_id: str) -> bool:
        return _key(agent_id) in self._keys

    async def take(self, agent_id: str) -> None:
        """Have the agent, or go on having it. Raises `LeaseUnavailable` naming who has it."""
        key = _key(agent_id)
        taken = await self._store.acquire_lease(key, self.holder, self.ttl)
        if taken is not None:
            who = taken.holder
            where = (
                "this process" if who.pid == self.holder.pid and who.host == self.holder.host else f"process {who.pid}"
            )
            raise LeaseUnavailable(
                f"agent '{agent_id}' is in use by {where} on {who.host}: close it there, or wait until it ends"
            )
        with self._lock:
            self._keys.add(key)
            if self._thread is None:
                self._ended.clear()
                self._thread = threading.Thread(target=self._renew, name="mentra-leases", daemon=True)
                self._thread.start()

    async def release(self, agent_id: str) -> None:
        with self._lock:
            self._keys.discard(_key(agent_id))
        with anyio.CancelScope(shield=True):
            await self._store.release_lease(_key(agent_id), self.holder)

    async def close(self) -> None:
        """Release them all, and end the thread."""
        self._ended.set()
        with self._lock:
            keys, self._keys = list(self._keys), set()
            thread, self._thread = self._thread, None
        async with AsyncExitStack() as steps:  # each is released, also after one that failed
            for key in keys:
                steps.push_async_callback(self._store.release_lease, key, self.holder)
            # at exit no thread can be started to wait in
            while thread is not None and thread.is_alive():  # noqa: ASYNC110
                await anyio.sleep(0.005)

    def _renew(self) -> None:
        while not self._ended.wait(self.ttl / 3):
            with self._lock:
                keys = list(self._keys)
            try:
                lost = asyncio.run(self._store.renew_leases(self.holder, keys, self.ttl)) if keys else []
            except StoreError as error:  # the next try is in time: a lease outlives two that fail
                log.warning("leases could not be renewed: %s", error)
                continue
            with self._lock:
                self._keys.difference_update(lost)
            for key in lost:
                log.warning("the lease '%s' was taken over: turns of it fail here from now on", key)


def _key(agent_id: str) -> str:
    return f"agent:{agent_id}"
