"""Batches as OpenAI has them: a file of requests, a batch over it, and files of answers and of errors."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from typing import Any

from mentra_nb.errors import HttpError
from mentra_nb.providers.base import Request
from mentra_nb.providers.batch import (
    MISSING,
    MOST_PAGES,
    Batches,
    BatchResult,
    BatchStatus,
    Ending,
    entries,
    failure,
    named,
    part,
)
from mentra_nb.providers.json import count, encode
from mentra_nb.server_text import message_in

LABEL = "mentra_nb"
"""The name of the metadata in which a batch has our key."""
ENDINGS: dict[str, Ending] = {"completed": "ended", "failed": "failed", "expired": "expired", "cancelled": "cancelled"}
UNFINISHED = ("batch_expired", "batch_cancelled")
"""Codes of requests whose turn did not come."""


class OpenAIBatches(Batches):
    """Over both wires: `/responses` and `/chat/completions`."""

    most_requests = 50_000

    def line(self, id: str, request: Request) -> bytes:
        return encode({"custom_id": id, "method": "POST", "url": self._endpoint, "body": self.body(request)})

    @property
    def _endpoint(self) -> str:
        return f"/v1/{self.provider.endpoint}"

    async def submit(self, key: str, model: str, lines: Sequence[bytes]) -> str:
        file = await self._upload(f"{key}.jsonl", b"\n".join(lines))
        order: dict[str, Any] = {"input_file_id": file, "endpoint": self._endpoint, "completion_window": "24h"}
        order["metadata"] = {LABEL: key}
        return named(await self.post("batches", order, begins=True), "id")

    async def _upload(self, name: str, content: bytes) -> str:
        """Upload a file and return its id. Raises `UnsupportedCapability` where that is not possible."""
        boundary = secrets.token_hex(16).encode()
        fields = b'--%s\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n' % boundary
        fields += b'--%s\r\ncontent-disposition: form-data; name="file"; filename="%s"\r\n' % (boundary, name.encode())
        body = b"%scontent-type: application/jsonl\r\n\r\n%s\r\n--%s--\r\n" % (fields, content, boundary)
        headers = {**self.provider.headers(), "content-type": f"multipart/form-data; boundary={boundary.decode()}"}
        try:
            found = await self.provider.http.post_json(self.provider.url("files"), headers, body)
        except HttpError as error:
            if error.status in MISSING:
                raise self.missing() from error
            raise
        if not isinstance(found, dict) or not isinstance(found.get("id"), str):  # LM Studio answers any path with 200
            raise self.missing()
        return str(found["id"])

    async def find(self, key: str, ids: Sequence[str], since: float, known: Collection[str]) -> str | None:
        query = {"limit": "100"}
        for _ in range(MOST_PAGES):
            page = await self.get("batches", **query)
            for entry in (found := entries(page, "data")):
                if part(entry, "metadata").get(LABEL) == key:
                    return named(entry, "id")
            if not page.get("has_more") or not found:
                return None
            query["after"] = named(found[-1], "id")
        return None

    async def status(self, id: str) -> BatchStatus:
        found = await self.get(f"batches/{id}")
        word, counts = str(found.get("status")), found.get("request_counts")
        files = tuple(str(found[name]) for name in ("output_file_id", "error_file_id") if found.get(name))
        errors = part(found, "errors").get("data")
        problem = "; ".join(filter(None, map(message_in, errors if isinstance(errors, list) else ()))) or None
        done = (count(counts, "completed") or 0) + (count(counts, "failed") or 0)
        return BatchStatus(word, ENDINGS.get(word, ""), done, files, problem)

    async def cancel(self, id: str) -> None:
        await self.post(f"batches/{id}/cancel", b"")

    def file_url(self, file: str) -> str:
        return self.provider.url(f"files/{file}/content")

    def result(self, line: dict[str, Any]) -> BatchResult | None:
        id, response, error = str(line["custom_id"]), line.get("response") or {}, line.get("error")
        if error:
            return BatchResult(id, error=None if error.get("code") in UNFINISHED else failure(None, error))
        body, status = response["body"], response.get("status_code")
        if status is not None and not 200 <= status < 300:
            return BatchResult(id, error=failure(status, body))
        return BatchResult(id, answer=body) if isinstance(body, dict) else None
