"""Batches as Anthropic has them: requests in one document, and a file of results.

A batch there has no name of ours. One whose answer was lost is found by when it was made, by how many requests it has,
and, once it has ended, by their ids.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from mentra_nb.errors import ProviderError
from mentra_nb.providers.base import Request
from mentra_nb.providers.batch import MOST_PAGES, Batches, BatchResult, BatchStatus, entries, failure, named
from mentra_nb.providers.http import UPLOAD_TIME
from mentra_nb.providers.json import count, encode, join_body

COUNTS = ("succeeded", "errored", "canceled", "expired")
CLOCK_SHIFT = 120.0
"""Seconds by which the clocks here and there may differ."""


class AnthropicBatches(Batches):
    """At `/messages/batches`."""

    most_requests = 100_000

    def line(self, id: str, request: Request) -> bytes:
        return encode({"custom_id": id, "params": self.body(request)})

    async def submit(self, key: str, model: str, lines: Sequence[bytes]) -> str:
        return named(await self.post("messages/batches", join_body({}, requests=lines), begins=True), "id")

    async def find(self, key: str, ids: Sequence[str], since: float, known: Collection[str]) -> str | None:
        query, until = {"limit": "100"}, since + UPLOAD_TIME + CLOCK_SHIFT
        for _ in range(MOST_PAGES):
            page = await self.get("messages/batches", **query)
            for entry in (found := entries(page, "data")):
                made = _time(entry.get("created_at"))
                if made < since - CLOCK_SHIFT:  # the newest come first
                    return None
                if made > until or str(entry.get("id")) in known or _requests(entry) != len(ids):
                    continue
                if await self._may_be_ours(entry, set(ids)):
                    return named(entry, "id")
            if not page.get("has_more") or not found:
                return None
            query["after_id"] = named(found[-1], "id")
        return None

    async def _may_be_ours(self, entry: dict[str, Any], ids: set[str]) -> bool:
        status = _status(entry)
        if not status.files:  # it has not ended, so that is all there is to see
            return True
        async with self.results(status) as results:
            async for result in results:
                return result.id in ids
        return False

    async def status(self, id: str) -> BatchStatus:
        return _status(await self.get(f"messages/batches/{id}"))

    async def cancel(self, id: str) -> None:
        await self.post(f"messages/batches/{id}/cancel", b"")

    def file_url(self, file: str) -> str:
        return self.provider.url(f"messages/batches/{file}/results")

    def result(self, line: dict[str, Any]) -> BatchResult | None:
        id, result = str(line["custom_id"]), line["result"]
        match result.get("type"):
            case "succeeded" if isinstance(result.get("message"), dict):
                return BatchResult(id, answer=result["message"])
            case "errored":
                error: ProviderError = failure(None, result.get("error"))
                return BatchResult(id, error=error)
            case "canceled" | "expired":
                return BatchResult(id)
        return None


def _status(entry: dict[str, Any]) -> BatchStatus:
    word, counts = str(entry.get("processing_status")), entry.get("request_counts")
    done = sum(count(counts, name) or 0 for name in COUNTS)
    files = (named(entry, "id"),) if entry.get("results_url") else ()
    return BatchStatus(word, "ended" if word == "ended" else "", done, files)


def _requests(entry: dict[str, Any]) -> int:
    return sum(count(entry.get("request_counts"), name) or 0 for name in ("processing", *COUNTS))


def _time(text: Any) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0
