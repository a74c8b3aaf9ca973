"""A server of batches on loopback, on a thread of its own, in the formats that OpenAI, Anthropic and Gemini document.

It keeps the batches as a provider does: what was handed in, and how each request ended. A test decides by `fate` how a
request ends, and by `looks` how often a batch is looked at before it has ended.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Literal

from kits.http_server import ThreadedListener

Fate = Literal["answer", "refuse", "overload", "expire", "break", "lose", "misfit"]
USAGE = (50, 5)
"""Tokens of each prompt and answer."""


@dataclass
class Kept:
    """A batch as the server keeps it."""

    id: str
    label: str
    """The name that the client gave it, where the format has one."""
    requests: list[tuple[str, str]]
    """The id and the prompt of each request."""
    made_at: float
    looks_left: int
    state: Literal["running", "ended", "expired", "cancelled", "failed"] = "running"
    results: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def plain(self) -> str:
        return self.path.partition("?")[0]


class BatchServer(ThreadedListener):
    """Answers `yes to PROMPT`. As a context manager it runs on a thread of its own.

    Args:
        wire: Which of the formats.
        fate: How the request with a prompt ends.
        looks: How often a batch is looked at before it has ended; -1 for ever.
    """

    def __init__(
        self,
        wire: Literal["responses", "chat_completions", "anthropic_messages", "gemini_generate_content"],
        fate: Callable[[str], Fate] = lambda prompt: "answer",
        looks: int = 1,
    ) -> None:
        super().__init__()
        self.wire, self.fate, self.looks = wire, fate, looks
        self.batches: list[Kept] = []
        self.files: dict[str, bytes] = {}
        self.calls: list[str] = []
        """Each request as `METHOD path`, without its query."""
        self.single: list[str] = []
        """The prompts that were asked one by one."""
        self.handed_in: Counter[str] = Counter()
        """How often each prompt was in a batch."""
        self.ending: Literal["ended", "expired", "failed"] = "ended"
        self.loses_answers = 0
        """So many batches are taken without an answer."""
        self.refuses = Counter[str]()
        """By the beginning of `METHOD path`: so many requests get a 429."""
        self.on_batch: Callable[[Kept], None] = lambda batch: None
        """Called on the server's thread when a batch was taken, before that is answered."""
        self.on_call: Callable[[str], None] = lambda call: None
        self.has_batches = True
        self.odd: list[Any] = []
        """Documents that answer a GET instead of what it asks for, one at a time."""
        self._number = 0

    @property
    def url(self) -> str:
        return f"http://{self.address}/{'v1beta' if self.wire == 'gemini_generate_content' else 'v1'}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        asked = Asked(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))
        call = f"{method} {asked.plain}"
        self.calls.append(call)
        self.on_call(call)
        refused = next((each for each, left in self.refuses.items() if left and call.startswith(each)), None)
        if refused is not None:
            self.refuses[refused] -= 1
            status, kind, answer = 429, {"retry-after-ms": "10"}, b'{"error": {"message": "later"}}'
        else:
            status, kind, answer = self._answer(asked)
        if status == 0:
            return False
        lines = [f"HTTP/1.1 {status} Given", *(f"{name}: {value}" for name, value in kind.items())]
        writer.write("\r\n".join([*lines, f"content-length: {len(answer)}", "", ""]).encode() + answer)
        await writer.drain()
        return True

    def _answer(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body; the status 0 closes the connection."""
        path = asked.plain.removeprefix("/v1beta").removeprefix("/v1")
        if path.endswith(("/responses", "/chat/completions", "/messages", ":streamGenerateContent")):
            return self._answer_one(json.loads(asked.body))
        if self.odd and asked.method == "GET":
            return 200, {"content-type": "application/json"}, json.dumps(self.odd.pop(0)).encode()
        if not self.has_batches:
            return 404, {}, b'{"error": {"message": "no such path"}}'
        match self.wire:
            case "anthropic_messages":
                found: Any = self._anthropic(asked, path)
            case "gemini_generate_content":
                found = self._gemini(asked, asked.plain)
            case _:
                found = self._openai(asked, path)
        if found is None:
            return 404, {}, b'{"error": {"message": "not found"}}'
        if found == 0:
            return 0, {}, b""
        if isinstance(found, tuple):
            return found
        if isinstance(found, bytes):
            return 200, {"content-type": "application/octet-stream"}, found
        return 200, {"content-type": "application/json"}, json.dumps(found).encode()

    # ---- batches, whatever their format ----------------------------------------------------------------------------

    def _take(self, prefix: str, label: str, requests: list[tuple[str, str]]) -> Kept | None:
        """Keep a batch; `None` if its answer is lost."""
        self._number += 1
        batch = Kept(f"{prefix}{self._number}", label, requests, datetime.now(UTC).timestamp(), self.looks)
        self.batches.insert(0, batch)
        self.handed_in.update(prompt for _, prompt in requests)
        self.on_batch(batch)
        if self.loses_answers:
            self.loses_answers -= 1
            return None
        return batch

    def _look(self, id: str) -> Kept | None:
        batch = next((each for each in self.batches if each.id == id), None)
        if batch is not None and batch.state == "running":
            batch.looks_left -= 1
            if batch.looks_left == -1:
                self._end(batch, self.ending)
        return batch

    def _end(self, batch: Kept, state: Literal["ended", "expired", "cancelled", "failed"]) -> None:
        """End a batch. One that is cancelled or expires has answered the first half of its requests."""
        batch.state = state
        reached = len(batch.requests) if state == "ended" else 0 if state == "failed" else len(batch.requests) // 2
        fates = [
            (id, prompt, self.fate(prompt) if at < reached else None) for at, (id, prompt) in enumerate(batch.requests)
        ]
        if state != "failed":
            batch.results = [self._result(id, prompt, fate, state) for id, prompt, fate in fates if fate != "lose"]
        random.Random(3).shuffle(batch.results)

    def _cancel(self, id: str) -> Kept | None:
        batch = next((each for each in self.batches if each.id == id), None)
        if batch is not None and batch.state == "running":
            self._end(batch, "cancelled")
        return batch

    def _result(self, id: str, prompt: str, fate: Fate | None, state: str) -> dict[str, Any]:
        return {"id": id, "prompt": prompt, "fate": fate, "state": state}

    def _lines(self, results: list[dict[str, Any]], form: Callable[[dict[str, Any]], Any]) -> bytes:
        lines = [json.dumps(form(each)) for each in results]
        broken = [each["fate"] == "break" for each in results]
        return "\n".join(
            line[: len(line) // 2] if cut else line for line, cut in zip(lines, broken, strict=True)
        ).encode()

    def _count(self, batch: Kept) -> dict[str, int]:
        fates = Counter("failed" if each["fate"] in ("refuse", "overload") else each["fate"] for each in batch.results)
        failed, unfinished = fates["failed"], fates[None] + fates["expire"]
        done = len(batch.results) - failed - unfinished
        return {"total": len(batch.requests), "done": done, "failed": failed, "unfinished": unfinished}

    # ---- answers ----------------------------------------------------------------------------------------------------

    def _text(self, prompt: str, fate: Fate | None) -> str:
        return "?" if fate == "misfit" else f"yes to {prompt}"

    def _whole(self, text: str) -> dict[str, Any]:
        """Return an answer as one document."""
        sent, made = USAGE
        match self.wire:
            case "responses":
                part = {"type": "output_text", "text": text, "annotations": []}
                item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
                usage = {"input_tokens": sent, "output_tokens": made, "total_tokens": sent + made}
                about = {"id": "resp_1", "object": "response", "status": "completed", "model": "m"}
                return {**about, "output": [item], "usage": usage}
            case "chat_completions":
                message = {"role": "assistant", "content": text, "refusal": None}
                usage = {"prompt_tokens": sent, "completion_tokens": made, "total_tokens": sent + made}
                choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
                return {
                    "id": "chatcmpl-1",
                    "object": "chat.completion",
                    "model": "m",
                    "choices": [choice],
                    "usage": usage,
                }
            case "anthropic_messages":
                usage = {"input_tokens": sent, "output_tokens": made}
                about = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn"}
                return {**about, "content": [{"type": "text", "text": text}], "stop_sequence": None, "usage": usage}
            case _:
                content = {"role": "model", "parts": [{"text": text}]}
                counted = {"promptTokenCount": sent, "candidatesTokenCount": made, "totalTokenCount": sent + made}
                candidate = {"content": content, "finishReason": "STOP", "index": 0}
                return {"candidates": [candidate], "usageMetadata": counted, "modelVersion": "m", "responseId": "r"}

    def _answer_one(self, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        prompt = prompt_of(body)
        self.single.append(prompt)
        whole = self._whole(self._text(prompt, None))
        frames: list[dict[str, Any]] = [whole]
        if self.wire == "responses":
            frames = [{"type": "response.completed", "response": whole}]
        elif self.wire == "anthropic_messages":
            ending = {"delta": {"stop_reason": "end_turn"}, "usage": whole["usage"]}
            frames = [{"type": "message_start", "message": whole}, {"type": "message_delta", **ending}]
            frames.append({"type": "message_stop"})
        stream = "".join(f"data: {json.dumps(frame)}\n\n" for frame in frames)
        return 200, {"content-type": "text/event-stream"}, stream.encode()

    # ---- OpenAI -----------------------------------------------------------------------------------------------------

    def _openai(self, asked: Asked, path: str) -> Any:
        parts = path.strip("/").split("/")
        match asked.method, parts:
            case "POST", ["files"]:
                form = BytesParser(policy=HTTP).parsebytes(
                    f"content-type: {asked.headers['content-type']}\r\n\r\n".encode() + asked.body
                )
                assert isinstance(form, EmailMessage)  # the policy makes one
                fields = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
                assert fields["purpose"].get_content().strip() == "batch"
                id = f"file-{len(self.files) + 1}"
                self.files[id] = fields["file"].get_payload(decode=True)
                return {"id": id, "object": "file", "purpose": "batch", "filename": fields["file"].get_filename()}
            case "POST", ["batches"]:
                order = json.loads(asked.body)
                lines = [json.loads(line) for line in self.files[order["input_file_id"]].split(b"\n") if line]
                assert order["completion_window"] == "24h"
                for line in lines:
                    assert (line["method"], line["url"]) == ("POST", order["endpoint"])
                    assert "stream" not in line["body"]
                requests = [(line["custom_id"], prompt_of(line["body"])) for line in lines]
                batch = self._take("batch_", order["metadata"]["mentra_nb"], requests)
                return 0 if batch is None else self._openai_batch(batch)
            case "GET", ["batches"]:
                return {
                    "object": "list",
                    "data": [self._openai_batch(each) for each in self.batches],
                    "has_more": False,
                }
            case "GET", ["batches", id]:
                found = self._look(id)
                return None if found is None else self._openai_batch(found)
            case "POST", ["batches", id, "cancel"]:
                found = self._cancel(id)
                return None if found is None else self._openai_batch(found)
            case "GET", ["files", id, "content"]:
                kind, _, of = id.partition("-")
                batch = next(each for each in self.batches if each.id == of)
                good = [each for each in batch.results if self._is_good(each)]
                rest = [each for each in batch.results if not self._is_good(each)]
                return self._lines(good if kind == "output" else rest, self._openai_line)
        return None

    def _is_good(self, result: dict[str, Any]) -> bool:
        return result["fate"] in ("answer", "break", "misfit")

    def _openai_batch(self, batch: Kept) -> dict[str, Any]:
        counts, words = self._count(batch), {"running": "in_progress", "ended": "completed"}
        found: dict[str, Any] = {"id": batch.id, "object": "batch", "metadata": {"mentra_nb": batch.label}}
        found |= {"status": words.get(batch.state, batch.state), "created_at": int(batch.made_at), "errors": None}
        found["request_counts"] = {"total": counts["total"], "completed": counts["done"], "failed": counts["failed"]}
        if any(map(self._is_good, batch.results)):
            found["output_file_id"] = f"output-{batch.id}"
        if not all(map(self._is_good, batch.results)):
            found["error_file_id"] = f"error-{batch.id}"
        if batch.state == "failed":
            found["errors"] = {"object": "list", "data": [{"code": "bad", "message": "too many tokens", "line": None}]}
        return found

    def _openai_line(self, each: dict[str, Any]) -> dict[str, Any]:
        line: dict[str, Any] = {"id": "batch_req_1", "custom_id": each["id"], "response": None, "error": None}
        match each["fate"]:
            case None | "expire":
                code = "batch_cancelled" if each["state"] == "cancelled" else "batch_expired"
                line["error"] = {"code": code, "message": "This request could not be executed."}
            case "refuse" | "overload":
                status, code = (400, "invalid_value") if each["fate"] == "refuse" else (500, "server_error")
                body = {"error": {"message": "too rude", "type": "x", "code": code}}
                line["response"] = {"status_code": status, "request_id": "r", "body": body}
            case fate:
                body = self._whole(self._text(each["prompt"], fate))
                line["response"] = {"status_code": 200, "request_id": "r", "body": body}
        return line

    # ---- Anthropic --------------------------------------------------------------------------------------------------

    def _anthropic(self, asked: Asked, path: str) -> Any:
        match asked.method, path.strip("/").split("/"):
            case "POST", ["messages", "batches"]:
                requests = json.loads(asked.body)["requests"]
                assert not any("stream" in each["params"] for each in requests)
                batch = self._take(
                    "msgbatch_", "", [(each["custom_id"], prompt_of(each["params"])) for each in requests]
                )
                return 0 if batch is None else self._anthropic_batch(batch)
            case "GET", ["messages", "batches"]:
                return {"data": [self._anthropic_batch(each) for each in self.batches], "has_more": False}
            case "GET", ["messages", "batches", id]:
                found = self._look(id)
                return None if found is None else self._anthropic_batch(found)
            case "POST", ["messages", "batches", id, "cancel"]:
                found = self._cancel(id)
                return None if found is None else self._anthropic_batch(found)
            case "GET", ["messages", "batches", id, "results"]:
                batch = next(each for each in self.batches if each.id == id)
                return self._lines(batch.results, self._anthropic_line)
        return None

    def _anthropic_batch(self, batch: Kept) -> dict[str, Any]:
        counts, is_running = self._count(batch), batch.state == "running"
        unfinished = "canceled" if batch.state == "cancelled" else "expired"
        numbers = {
            "processing": counts["total"] if is_running else 0,
            "succeeded": counts["done"],
            "errored": counts["failed"],
        }
        numbers |= {"canceled": 0, "expired": 0, unfinished: counts["unfinished"]}
        numbers["succeeded"] += 0 if is_running else counts["total"] - sum(numbers.values())
        made = datetime.fromtimestamp(batch.made_at, UTC).isoformat().replace("+00:00", "Z")
        found = {"id": batch.id, "type": "message_batch", "created_at": made, "request_counts": numbers}
        results = None if is_running else f"{self.url}/messages/batches/{batch.id}/results"
        return found | {"processing_status": "in_progress" if is_running else "ended", "results_url": results}

    def _anthropic_line(self, each: dict[str, Any]) -> dict[str, Any]:
        match each["fate"]:
            case None | "expire":
                result: dict[str, Any] = {"type": "canceled" if each["state"] == "cancelled" else "expired"}
            case "refuse" | "overload":
                kind = "invalid_request_error" if each["fate"] == "refuse" else "overloaded_error"
                result = {"type": "errored", "error": {"type": "error", "error": {"type": kind, "message": "too rude"}}}
            case fate:
                result = {"type": "succeeded", "message": self._whole(self._text(each["prompt"], fate))}
        return {"custom_id": each["id"], "result": result}

    # ---- Gemini -----------------------------------------------------------------------------------------------------

    def _gemini(self, asked: Asked, path: str) -> Any:
        match asked.method, path.strip("/").split("/"):
            case "POST", ["upload", "v1beta", "files"]:
                assert asked.headers["x-goog-upload-command"] == "start"
                return 200, {"x-goog-upload-url": f"http://{self.address}/upload/v1beta/files/go?upload_id=1"}, b""
            case "POST", ["upload", "v1beta", "files", "go"]:
                assert asked.headers["x-goog-upload-command"] == "upload, finalize"
                assert "x-goog-api-key" not in asked.headers
                name = f"files/{len(self.files) + 1}"
                self.files[name] = asked.body
                return {"file": {"name": name, "mimeType": "application/jsonl"}}
            case "POST", ["v1beta", "models", model] if model.endswith(":batchGenerateContent"):
                order = json.loads(asked.body)["batch"]
                lines = [json.loads(line) for line in self.files[order["inputConfig"]["fileName"]].split(b"\n")]
                requests = [(line["key"], prompt_of(line["request"])) for line in lines]
                batch = self._take("batches/", order["displayName"], requests)
                return 0 if batch is None else self._gemini_batch(batch)
            case "GET", ["v1beta", "batches"]:
                return {"operations": [self._gemini_batch(each) for each in self.batches]}
            case "GET", ["v1beta", "batches", id]:
                found = self._look(f"batches/{id}")
                return None if found is None else self._gemini_batch(found)
            case "POST", ["v1beta", "batches", id]:
                return None if self._cancel(f"batches/{id.removesuffix(':cancel')}") is None else {}
            case "GET", ["download", "v1beta", "files", id]:
                batch = next(each for each in self.batches if f"out-{each.id[8:]}:download" == id)
                return self._lines(batch.results, self._gemini_line)
        return None

    def _gemini_batch(self, batch: Kept) -> dict[str, Any]:
        counts = {name: str(number) for name, number in self._count(batch).items()}
        words = {"running": "RUNNING", "ended": "SUCCEEDED"}
        about: dict[str, Any] = {"name": batch.id, "displayName": batch.label}
        about["state"] = f"BATCH_STATE_{words.get(batch.state, batch.state.upper())}"
        stats = {"requestCount": counts["total"], "successfulRequestCount": counts["done"]}
        about["batchStats"] = stats | {"failedRequestCount": counts["failed"]}
        found: dict[str, Any] = {"name": batch.id, "metadata": about, "done": batch.state != "running"}
        if batch.state == "ended":
            found["response"] = {"responsesFile": f"files/out-{batch.id[8:]}"}
        elif batch.state != "running":
            found["error"] = {"code": 13, "message": "too many tokens"}
        return found

    def _gemini_line(self, each: dict[str, Any]) -> dict[str, Any]:
        if each["fate"] in ("refuse", "overload"):
            code, status = (400, "INVALID_ARGUMENT") if each["fate"] == "refuse" else (503, "UNAVAILABLE")
            return {"key": each["id"], "error": {"code": code, "message": "too rude", "status": status}}
        return {"key": each["id"], "response": self._whole(self._text(each["prompt"], each["fate"]))}


def prompt_of(body: dict[str, Any]) -> str:
    """Return the text of the last message of a request, in any of the formats."""
    last = (body.get("contents") or body.get("messages") or body.get("input"))[-1]
    content = last.get("parts") or last["content"]
    return str(content if isinstance(content, str) else content[-1]["text"])
