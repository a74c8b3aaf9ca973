"""llama.cpp in the process: a transport that answers Chat Completions bodies from a GGUF file, and its provider.

Needs `pip install 'mentra-nb[local]'`. Nothing is loaded before the first request.
"""

from __future__ import annotations

import asyncio
import json
import queue
import secrets
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mentra_nb.errors import InvalidRequest, ProviderError
from mentra_nb.providers.base import ModelInfo, ProviderCapabilities, Request
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.http import HttpClient, Response
from mentra_nb.providers.local_tools import CallReader, adapted

ID = "local"
CONTEXT = 8192
"""Tokens of prompt and answer together."""
BATCH = 256
"""Tokens of a prompt that are read at once; a stop is heard between two batches."""
CLOSE_SECONDS = 2.0
"""How long `aclose` waits for a generation it stopped."""


def problem_with(path: str, package: str = "xllamacpp") -> str | None:
    """Why this model cannot be used, in one sentence, or `None`. Loads nothing; `package` is what would load it."""
    file = _file(path)
    if not file.is_file():
        return f"there is no model file {file}: name a GGUF file, as local:/path/model.gguf"
    try:
        with file.open("rb") as opened:
            magic = opened.read(4)
    except OSError as error:
        return f"the model file {file} cannot be read: {error.strerror}"
    if magic != b"GGUF":
        return f"{file} is not a GGUF file: a local model needs one"
    if find_spec(package) is None:
        return "models in the process need llama.cpp: pip install 'mentra-nb[local]'"
    return None


class LocalProvider(ChatCompletionsProvider):
    """Models by the path of their file. One is loaded at a time, and it takes one request at a time."""

    def __init__(self) -> None:
        can = ProviderCapabilities(supports_model_listing=True, supports_structured_output=True)
        self.models = LocalTransport()
        super().__init__(
            ID,
            "http://in-process.invalid",
            display_name="llama.cpp in the process",
            http=HttpClient(self.models),
            capabilities=can,
        )

    def check(self, request: Request) -> None:
        super().check(request)
        problem = problem_with(request.model)
        if problem is not None:
            raise InvalidRequest(problem)

    async def list_models(self) -> list[ModelInfo]:
        """The one that is loaded, if there is one."""
        path = self.models.loaded
        return [ModelInfo(id=str(path), provider=ID, context_window=CONTEXT)] if path is not None else []


class LocalTransport:
    """A server without a network: one thread owns the model, and everything is asked of it in turn.

    Leaving a request returns at once, and stops its generation at the next token, or the reading of its prompt at the
    next `BATCH`; the next request waits for that. Loading keeps the interpreter busy, so that nothing else in this
    process runs meanwhile (about 1 s for a file of 0.5 GB).

    `load` makes what answers: an object with `handle_chat_completions(body, callback)`, like `xllamacpp.Server`.
    """

    def __init__(self, load: Callable[[Path], Any] | None = None) -> None:
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
        job = _Job(_file(asked["model"]), adapted(asked))
        self._start()
        self._jobs.put(job)
        try:
            first = await job.chunks.get()
            if isinstance(first, ProviderError):
                raise first
            yield Response(200, {"content-type": "text/event-stream"}, _events(first, job))
        finally:
            job.is_stopped = True

    async def aclose(self) -> None:
        """Stop the generation and let go of the model."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._job is not None:
            self._job.is_stopped = True
        self._jobs.put(None)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(thread)), CLOSE_SECONDS)

    # ---- the thread of the model --------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None:
            self._thread, self._jobs = Future(), queue.SimpleQueue()
            threading.Thread(
                target=self._work, args=(self._jobs, self._thread), name="mentra-local-model", daemon=True
            ).start()

    def _work(self, jobs: queue.SimpleQueue[_Job | None], ended: Future[None]) -> None:
        server: Any = None
        loaded: Path | None = None
        while (job := jobs.get()) is not None:
            if job.is_stopped:
                continue
            self._job = job
            try:
                if loaded != job.file:
                    server = self.loaded = loaded = None  # free the one before
                    server = self._load(job.file)
                    self.loaded = loaded = job.file
                if not job.is_stopped:
                    server.handle_chat_completions(json.dumps(job.body), job.heard)
                job.tell(None)
            except ProviderError as error:
                job.tell(error)
            except Exception as error:  # noqa: BLE001  # whatever llama.cpp has to say
                job.tell(InvalidRequest(f"the local model did not take the request: {' '.join(str(error).split())}"))
            finally:
                self._job = None
        self.loaded = None
        del server
        ended.set_result(None)


class _Job:
    """One request on its way through the model's thread. `chunks` ends with `None`, or with an error."""

    def __init__(self, file: Path, body: dict[str, Any]) -> None:
        self.file, self.body = file, {**body, "return_progress": True}
        self.is_stopped = False
        self.chunks: asyncio.Queue[bytes | ProviderError | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        read: Callable[[dict[str, Any]], dict[str, Any]] = CallReader().feed if "grammar" in body else _same
        self._read = read

    def heard(self, chunk: str) -> bool:
        """A chunk of the answer, on the model's thread. True stops the generation."""
        if not self.is_stopped and "prompt_progress" not in (said := json.loads(chunk)):
            self.tell(b"data: " + json.dumps(self._read(said)).encode() + b"\n\n")
        return self.is_stopped

    def tell(self, item: bytes | ProviderError | None) -> None:
        if self.is_stopped:
            return
        try:
            self._loop.call_soon_threadsafe(self.chunks.put_nowait, item)
        except RuntimeError:  # the loop is gone, and with it whoever asked
            self.is_stopped = True


async def _events(first: bytes | None, job: _Job) -> AsyncGenerator[bytes, None]:
    item: bytes | ProviderError | None = first
    while item is not None:
        if isinstance(item, ProviderError):
            raise item
        yield item
        item = await job.chunks.get()
    yield b"data: [DONE]\n\n"


def _same(chunk: dict[str, Any]) -> dict[str, Any]:
    return chunk


def load_model(file: Path, threads: int = 1) -> Any:
    """An `xllamacpp.Server`. Raises `InvalidRequest`."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.use_jinja = CONTEXT, 1, True
    params.n_batch = params.n_ubatch = BATCH
    params.warmup, params.verbosity, params.cache_ram_mib = False, 0, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.api_keys = [secrets.token_hex()]  # it opens a port on loopback too; nobody else is to ask there
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise InvalidRequest(f"llama.cpp cannot load {file}: it may be damaged, or newer than this version") from error


def _file(path: str) -> Path:
    return Path(path).expanduser().absolute()
