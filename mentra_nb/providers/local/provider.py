"""llama.cpp in the process: a transport that answers Chat Completions bodies from a GGUF file, and its provider.

Needs `pip install 'mentra-nb[local]'`. Nothing is loaded before the first request.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import queue
import secrets
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from mentra_nb.content import Image
from mentra_nb.errors import InvalidRequest, MalformedStream, ProviderError
from mentra_nb.providers.answer import Response
from mentra_nb.providers.base import ModelInfo, ProviderCapabilities, Request
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.http import HttpClient
from mentra_nb.providers.local.gguf import context_size, file_problem, projector, resolved
from mentra_nb.providers.local.tool_calls import CallReader, adapted

ID = "local"
BATCH = 256
"""Tokens of a prompt that are read at once; a stop takes effect between two batches."""
CLOSE_SECONDS = 2.0
"""How long `aclose` waits for a generation it stopped."""


class LocalProvider(ChatCompletionsProvider):
    """Models by the path of their file. One is loaded at a time, and it takes one request at a time.

    `context` is how many tokens prompt and answer may have together; the default is what the model was trained
    for, within 1 GiB of memory. Images need the model's projector beside it: one file `mmproj*.gguf`.
    """

    def __init__(self, context: int | None = None) -> None:
        self.models: LocalTransport = LocalTransport(partial(load_model, context=context))
        self._context = context
        super().__init__(
            ID,
            "http://in-process.invalid",
            display_name="llama.cpp in the process",
            http=HttpClient(self.models),
            capabilities=ProviderCapabilities(supports_images=True, supports_structured_output=True),
        )

    def check(self, request: Request) -> None:
        super().check(request)
        problem = file_problem(request.model)
        if problem is not None:
            raise InvalidRequest(problem)
        images = [block for message in request.messages for block in message.content if isinstance(block, Image)]
        if images:
            projector(resolved(request.model))
        if any(image.url for image in images):
            raise InvalidRequest("local does not support images by url; give their data")

    async def list_models(self) -> list[ModelInfo]:
        """Return the model that is loaded, if any."""
        file = self.models.loaded
        if file is None or file_problem(str(file)):
            return []
        return [ModelInfo(id=str(file), provider=ID, context_window=context_size(file, self._context))]


class LocalTransport:
    """A server without a network: one thread owns the model, and takes one request after another.

    Leaving a request returns at once. Its generation stops at the next token, or the reading of its prompt at the next
    `BATCH`; the next request waits for that. Loading holds the interpreter lock: nothing else in this process runs
    meanwhile (about 1 s for a file of 0.5 GB).

    `load` makes an object with `handle_chat_completions(body, callback)`, like `xllamacpp.Server`, from a model and its
    projector, which is `None` as long as there are no images.
    """

    def __init__(self, load: Callable[[Path, Path | None], Any] | None = None) -> None:
        self._load = load or load_model
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: Future[None] | None = None
        self._job: _Job | None = None
        self.loaded: Path | None = None

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncIterator[Response]:
        asked = json.loads(body or b"{}")
        job = _Job(resolved(asked["model"]), adapted(asked), may_call="response_format" not in asked)
        self._start()
        self._jobs.put(job)
        try:
            async with aclosing(job.answer()) as chunks:
                yield Response(200, {"content-type": "text/event-stream"}, chunks)
        finally:
            job.is_stopped = True

    async def aclose(self) -> None:
        """Stop the generation and free the model."""
        atexit.unregister(self._exit)
        ended = self._stop()
        if ended is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(ended)), CLOSE_SECONDS)

    def _stop(self) -> Future[None] | None:
        """Ask the thread to end, and return a future that is done when it has; `None` if there is no thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            if self._job is not None:
                self._job.is_stopped = True
            self._jobs.put(None)
        return thread

    def _exit(self) -> None:
        """End the thread before the interpreter does: one that calls back from C++ then aborts the process."""
        ended = self._stop()
        if ended is not None:
            wait([ended], CLOSE_SECONDS)

    # ---- the thread of the model --------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None:
            self._thread, self._jobs = Future(), queue.SimpleQueue()
            atexit.register(self._exit)
            threading.Thread(
                target=self._work, args=(self._jobs, self._thread), name="mentra-local-model", daemon=True
            ).start()

    def _work(self, jobs: queue.SimpleQueue[_Job | None], ended: Future[None]) -> None:
        server: Any = None
        loaded: Path | None = None
        sees = False
        while (job := jobs.get()) is not None:
            if job.is_stopped:
                continue
            self._job = job
            try:
                if loaded != job.file or (job.has_images and not sees):
                    server = self.loaded = loaded = None  # free the previous one
                    server = self._load(job.file, projector(job.file) if job.has_images else None)
                    self.loaded, loaded, sees = job.file, job.file, job.has_images
                if not job.is_stopped:
                    server.handle_chat_completions(json.dumps(job.body), job.on_chunk)
                job.put(None)
            except ProviderError as error:
                job.put(error)
            except Exception as error:  # noqa: BLE001  # llama.cpp raises many kinds
                job.put(InvalidRequest(f"the local model did not take the request: {' '.join(str(error).split())}"))
            finally:
                self._job = None
        self.loaded = None
        del server
        ended.set_result(None)


class _Job:
    """One request. The model's thread puts the chunks of its answer, then `None` or an error."""

    def __init__(self, file: Path, body: dict[str, Any], may_call: bool) -> None:
        self.file, self.body = file, {**body, "return_progress": True}
        self._reader = CallReader() if may_call and "grammar" in body else None
        self.has_images = any(isinstance(message["content"], list) for message in body["messages"])
        self.is_stopped = False
        self._items: asyncio.Queue[str | ProviderError | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def on_chunk(self, chunk: str) -> bool:
        """Put a chunk of the answer, on the model's thread. Returning True stops the generation."""
        self.put(chunk)
        return self.is_stopped

    def put(self, item: str | ProviderError | None) -> None:
        if self.is_stopped:
            return
        try:
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        except RuntimeError:  # the loop is closed, so nobody reads the answer
            self.is_stopped = True

    async def answer(self) -> AsyncGenerator[bytes, None]:
        """Yield the body of the answer, as a server would send it. Raises `ProviderError`."""
        while (item := await self._items.get()) is not None:
            if isinstance(item, ProviderError):
                raise item
            try:
                chunk = self._read(json.loads(item))
            except (TypeError, AttributeError, LookupError, ValueError, RecursionError) as error:
                raise MalformedStream(f"the local model sent something that is not a chunk: {item[:200]}") from error
            if chunk is not None:
                yield b"data: " + json.dumps(chunk).encode() + b"\n\n"

    def _read(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """Return the chunk as a server would send it, or `None` for a report of progress."""
        if "prompt_progress" in chunk:
            return None
        error = chunk.get("error")
        if isinstance(error, dict) and error.get("type") == "exceed_context_size_error":
            raise InvalidRequest(
                f"the prompt has {error.get('n_prompt_tokens')} tokens, and the context of the local model "
                f"{error.get('n_ctx')}: shorten the prompt, or make a LocalProvider with a larger context"
            )
        if self._reader is not None:
            chunk = self._reader.feed(chunk)
        for choice in chunk.get("choices") or ():
            if choice.get("finish_reason") == "length" and "max_tokens" not in self.body:
                choice["finish_reason"] = "context_overflow"
        return chunk


def load_model(file: Path, projector: Path | None = None, context: int | None = None, threads: int = 1) -> Any:
    """Return an `xllamacpp.Server`. Raises `InvalidRequest`."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    if projector is not None:
        params.mmproj.path = str(projector)
    params.n_ctx, params.n_parallel, params.use_jinja = context_size(file, context), 1, True
    params.n_batch = params.n_ubatch = BATCH
    params.warmup, params.verbosity, params.cache_ram_mib = False, 0, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    # It also opens a port on loopback: a random key keeps other programs out.
    params.api_keys, params.ui = [secrets.token_hex()], False
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise InvalidRequest(f"llama.cpp cannot load {file}: it may be damaged, or newer than this version") from error
