"""The leases of a runtime on its agents: only the holder of an agent's lease may change it."""

from __future__ import annotations

import logging
import threading
from contextlib import AsyncExitStack

import anyio

from mentra_nb.browser import started
from mentra_nb.errors import LeaseUnavailable, StoreError
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.records import LeaseHolder

log: logging.Logger = logging.getLogger(__name__)

TTL = 60.0
"""Seconds until a lease expires that is not renewed."""


class Leases:
    """The leases of one runtime, renewed by a thread so that a busy event loop does not lose them."""

    def __init__(self, store: RuntimeStore, runtime_id: str, *, ttl: float = TTL) -> None:
        self._store = store
        self.ttl = ttl
        self.holder: LeaseHolder = LeaseHolder.here(runtime_id)
        self._keys: set[str] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def has(self, agent_id: str) -> bool:
        """Return whether this runtime holds the lease of an agent, as far as it knows."""
        return _key(agent_id) in self._keys

    async def take(self, agent_id: str) -> None:
        """Take or renew the lease of an agent. Raises `LeaseUnavailable`, which names the process that holds it."""
        key = _key(agent_id)
        with anyio.CancelScope(shield=True):  # a stop in the middle would leave it unknown whether it was taken
            taken = await self._store.acquire_lease(key, self.holder, self.ttl)
            if taken is not None:
                holder = taken.holder
                is_here = (holder.pid, holder.host) == (self.holder.pid, self.holder.host)
                where = "this process" if is_here else f"process {holder.pid}"
                raise LeaseUnavailable(
                    f"agent '{agent_id}' is in use by {where} on {holder.host}: close it there, or wait until it ends"
                )
        with self._lock:
            self._keys.add(key)
            if self._thread is None:
                self._ended.clear()
                self._thread = started(threading.Thread(target=self._renew, name="mentra-leases", daemon=True))

    async def check(self, agent_id: str) -> None:
        """Raise `LeaseUnavailable` if another process holds the lease of an agent. Keeps no lease it did not have."""
        held = self.has(agent_id)
        await self.take(agent_id)
        if not held:
            await self.release(agent_id)

    async def release(self, agent_id: str) -> None:
        """Give up the lease of an agent, also if the caller is cancelled."""
        with self._lock:
            self._keys.discard(_key(agent_id))
        with anyio.CancelScope(shield=True):
            await self._store.release_lease(_key(agent_id), self.holder)

    async def close(self) -> None:
        """Release all leases and end the thread."""
        self._ended.set()
        with self._lock:
            keys, self._keys = list(self._keys), set()
            thread, self._thread = self._thread, None
        async with AsyncExitStack() as steps:  # releases each, also after a failure
            for key in keys:
                steps.push_async_callback(self._store.release_lease, key, self.holder)
            # polls, because at exit no thread can be started that would wait
            while thread is not None and thread.is_alive():  # noqa: ASYNC110
                await anyio.sleep(0.005)

    def _renew(self) -> None:
        import asyncio

        while not self._ended.wait(self.ttl / 3):
            with self._lock:
                keys = list(self._keys)
            try:
                lost = asyncio.run(self._store.renew_leases(self.holder, keys, self.ttl)) if keys else []
            except StoreError as error:  # a lease outlives two failed renewals
                log.warning("leases could not be renewed: %s", error)
                continue
            with self._lock:
                self._keys.difference_update(lost)
            for key in lost:
                log.warning("the lease '%s' was taken over by another process: its turns fail here", key)


def _key(agent_id: str) -> str:
    return f"agent:{agent_id}"
