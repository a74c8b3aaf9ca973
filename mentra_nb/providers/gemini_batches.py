"""Batches as the Gemini API has them: a file of requests, an operation over it, and a file of results."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from mentra_nb.errors import DecodeError, HttpError
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
from mentra_nb.providers.json import encode
from mentra_nb.server_text import message_in

ENDINGS: dict[str, Ending] = {"SUCCEEDED": "ended", "FAILED": "failed", "EXPIRED": "expired", "CANCELLED": "cancelled"}


class GeminiBatches(Batches):
    """At `/models/MODEL:batchGenerateContent` and `/batches`. The name that is shown of a batch is our key."""

    most_requests = 100_000

    def line(self, id: str, request: Request) -> bytes:
        return encode({"key": id, "request": self.body(request)})

    async def submit(self, key: str, model: str, lines: Sequence[bytes]) -> str:
        file = await self._upload(key, b"\n".join(lines))
        path = quote(model if "/" in model else f"models/{model}")
        order = {"batch": {"displayName": key, "inputConfig": {"fileName": file}}}
        return named(await self.post(f"{path}:batchGenerateContent", order, begins=True), "name")

    async def _upload(self, key: str, content: bytes) -> str:
        """Upload a file in two steps, as the API wants it, and return its name."""
        http, start = self.provider.http, {"x-goog-upload-protocol": "resumable", "x-goog-upload-command": "start"}
        start |= {"x-goog-upload-header-content-length": str(len(content)), "content-type": "application/json"}
        start |= {"x-goog-upload-header-content-type": "application/jsonl", **self.provider.headers()}
        try:
            about = encode({"file": {"displayName": key}})
            headers, _ = await http.fetch("POST", self._beside("upload", "files"), start, about)
        except HttpError as error:
            if error.status in MISSING:
                raise self.missing() from error
            raise
        if not (address := headers.get("x-goog-upload-url")):
            raise self.missing()
        if urlsplit(address).scheme != urlsplit(self.provider.base_url).scheme:
            raise DecodeError("the provider named no address for the upload that can be used")
        finish = {"x-goog-upload-offset": "0", "x-goog-upload-command": "upload, finalize"}
        found = await http.post_json(address, finish, content)
        return named(part(found, "file"), "name")

    def _beside(self, service: str, path: str, **query: str) -> str:
        """Return an address of a service that has its own first part of the path, such as that for uploads."""
        parts = urlsplit(self.provider.url(path, **query))
        return urlunsplit(parts._replace(path=f"/{service}{parts.path}"))

    async def find(self, key: str, ids: Sequence[str], since: float, known: Collection[str]) -> str | None:
        query = {"pageSize": "100"}
        for _ in range(MOST_PAGES):
            page = await self.get("batches", **query)
            for entry in entries({"operations": [], **page}, "operations"):  # an empty list is left out there
                if part(entry, "metadata").get("displayName") == key:
                    return named(entry, "name")
            if not page.get("nextPageToken"):
                return None
            query["pageToken"] = str(page["nextPageToken"])
        return None

    async def status(self, id: str) -> BatchStatus:
        found = await self.get(id)
        about = part(found, "metadata")
        word = str(about.get("state") or "").removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_")
        counts = (str(part(about, "batchStats").get(f"{name}RequestCount")) for name in ("successful", "failed"))
        done = sum(int(each) for each in counts if each.isdecimal())
        output = part(found, "response") or part(about, "output")
        files = (str(output["responsesFile"]),) if output.get("responsesFile") else ()
        problem = message_in(found["error"]) if found.get("error") else None
        return BatchStatus(word.lower(), ENDINGS.get(word, "failed" if found.get("done") else ""), done, files, problem)

    async def cancel(self, id: str) -> None:
        await self.post(f"{id}:cancel", b"")

    def file_url(self, file: str) -> str:
        return self._beside("download", f"{file}:download", alt="media")

    def result(self, line: dict[str, Any]) -> BatchResult | None:
        id, response, error = str(line["key"]), line.get("response"), line.get("error") or line.get("status")
        if isinstance(response, dict):
            return BatchResult(id, answer=response)
        return BatchResult(id, error=failure((error or {}).get("code"), error)) if error else None
