"""Models in the process: names and files, and the thread that owns a model; `test_local_model` is about llama.cpp."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from kits.wires import blocks, collect, ending

from mentra_nb.content import Message, Text
from mentra_nb.errors import ConfigurationError, InvalidRequest, MalformedStream, ProviderError, StreamTruncated
from mentra_nb.providers.base import ModelInfo, ProviderToolSpec, Request
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.http import HttpClient
from mentra_nb.providers.local.gguf import file_problem
from mentra_nb.providers.local.provider import LocalTransport
from mentra_nb.providers.registry import builtin, split_model


def user(text: str) -> Message:
    return Message.user([Text(text=text)])


def piece(content: str | None = None, finish: str | None = None) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {"id": "1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


class Model:
    """Stands for `xllamacpp.Server`: gives its pieces until it is stopped, and may be made to wait."""

    def __init__(self, *chunks: dict[str, Any], error: Exception | None = None) -> None:
        self.chunks, self.error = chunks, error
        self.bodies: list[dict[str, Any]] = []
        self.threads: set[str] = set()
        self.told: list[bool] = []
        self.reading = threading.Event()
        self.may_speak = threading.Event()
        self.may_speak.set()
        self.done = threading.Event()

    def handle_chat_completions(self, body: str, callback: Callable[[str], bool]) -> None:
        self.bodies.append(json.loads(body))
        self.threads.add(threading.current_thread().name)
        self.reading.set()
        self.may_speak.wait(10)
        try:
            if self.error is not None:
                raise self.error
            for chunk in self.chunks:
                self.told.append(callback(json.dumps(chunk)))
                if self.told[-1]:
                    return
        finally:
            self.done.set()


def provider_of(load: Callable[[Path], Any]) -> ChatCompletionsProvider:
    transport = LocalTransport(lambda file, projector: load(file))
    return ChatCompletionsProvider("local", "http://in-process.invalid", http=HttpClient(transport))


def asking(*messages: Message, model: str = "m.gguf", **options: Any) -> Request:
    return Request(model=model, messages=messages or [user("Hi")], **options)


# ---- names and files ----------------------------------------------------------------------------------------------


def test_a_local_name_is_a_path() -> None:
    assert split_model("local:/a/b:c.gguf") == ("local", "/a/b:c.gguf")
    assert split_model("local:~/m.gguf") == ("local", "~/m.gguf")
    assert str(ModelInfo(id="/a/b.gguf", provider="local")) == "local:/a/b.gguf"
    assert split_model("ollama/qwen3:4b") == ("ollama", "qwen3:4b")
    with pytest.raises(ConfigurationError, match=r"local:/path/model\.gguf"):
        split_model("local:")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF....")
    return path


def test_a_problem_is_one_sentence_before_loading(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.gguf").write_bytes(b"PK\x03\x04")
    monkeypatch.setitem(sys.modules, "xllamacpp", json)  # any module: as if it were installed
    assert file_problem(str(file)) is None
    for path, package, words in (
        (tmp_path / "none.gguf", json, "there is no model file"),
        (tmp_path, json, "there is no model file"),
        (tmp_path / "other.gguf", json, "is not a GGUF file"),
        (file, None, "pip install 'mentra-nb[local]'"),
    ):
        monkeypatch.setitem(sys.modules, "xllamacpp", package)
        problem = file_problem(str(path))
        assert problem is not None
        assert words in problem
        assert "\n" not in problem


async def test_the_provider_refuses_a_file_that_is_not_there(anyio_backend: str) -> None:
    provider = builtin("local")
    with pytest.raises(InvalidRequest, match="there is no model file"):
        await collect(provider, asking(model="/no/such.gguf"))
    assert await provider.list_models() == []
    await provider.aclose()


# ---- the thread of the model --------------------------------------------------------------------------------------


async def test_an_answer_streams_through_the_real_adapter(anyio_backend: str, tmp_path: Path) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    progress = {**piece("not for anybody"), "prompt_progress": {"total": 9, "processed": 0}}
    model = Model(progress, piece("Hel"), piece("lo"), piece(finish="stop"), {"id": "1", "choices": [], "usage": usage})
    loaded: list[Path] = []

    def load(path: Path) -> Model:
        loaded.append(path)
        return model

    provider = provider_of(load)
    assert loaded == []
    path = str(tmp_path / "m.gguf")
    for _ in range(2):
        events = await collect(provider, asking(model=path))
        assert blocks(events) == [("text", None, None, "Hello")]
        assert ending(events).stop_reason == "end"
        assert ending(events).usage.input_tokens == 9
    assert loaded == [Path(path)]
    assert model.threads == {"mentra-local-model"}
    await provider.aclose()


async def test_another_file_takes_the_place_of_the_first(anyio_backend: str, tmp_path: Path) -> None:
    loaded: list[str] = []

    def load(path: Path) -> Model:
        loaded.append(path.name)
        return Model(piece(path.name), piece(finish="stop"))

    provider = provider_of(load)
    for name in ("a", "b", "b", "a"):
        assert blocks(await collect(provider, asking(model=str(tmp_path / name))))[0][3] == name
    assert loaded == ["a", "b", "a"]
    await provider.aclose()


async def test_leaving_stops_the_generation(anyio_backend: str) -> None:
    model = Model(*[piece("x")] * 100_000)
    provider = provider_of(lambda path: model)
    async with provider.stream(asking()) as events:
        await anext(events)
    assert await asyncio.to_thread(model.done.wait, 10)
    assert model.told[-1] is True
    assert len(model.told) < 100_000
    await provider.aclose()


async def test_leaving_while_the_prompt_is_read_returns_and_the_late_answer_is_dropped(anyio_backend: str) -> None:
    model = Model(piece("late"), piece(finish="stop"))
    model.may_speak.clear()
    provider = provider_of(lambda path: model)
    try:
        with anyio.move_on_after(10) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(collect, provider, asking())
                await asyncio.to_thread(model.reading.wait, 10)
                tasks.cancel_scope.cancel()
        assert not scope.cancelled_caught
        assert not model.done.is_set()
    finally:
        model.may_speak.set()
    model.chunks = (piece("next"), piece(finish="stop"))
    events = await collect(provider, asking())
    assert blocks(events) == [("text", None, None, "next")]
    assert model.told[0] is True
    await provider.aclose()


async def test_requests_are_handled_one_at_a_time_and_cancelled_ones_are_skipped(anyio_backend: str) -> None:
    model = Model(piece("one"), piece(finish="stop"))
    model.may_speak.clear()
    provider = provider_of(lambda path: model)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect, provider, asking(user("first")))
            await asyncio.to_thread(model.reading.wait, 10)
            async with anyio.create_task_group() as leaving:
                leaving.start_soon(collect, provider, asking(user("second")))
                await anyio.lowlevel.checkpoint()
                leaving.cancel_scope.cancel()
            assert len(model.bodies) == 1
            model.may_speak.set()
    finally:
        model.may_speak.set()
    await collect(provider, asking(user("third")))
    assert [body["messages"][-1]["content"] for body in model.bodies] == ["first", "third"]
    await provider.aclose()


async def test_what_llama_cpp_says_is_an_error_of_the_request(anyio_backend: str) -> None:
    provider = provider_of(lambda path: Model(error=ValueError("no\nsuch thing")))
    with pytest.raises(InvalidRequest, match="did not take the request: no such thing"):
        await collect(provider, asking())

    def broken(path: Path) -> Any:
        raise InvalidRequest("damaged")

    with pytest.raises(InvalidRequest, match="damaged"):
        await collect(provider_of(broken), asking())
    refused = {"error": {"code": 400, "message": "not like this", "type": "invalid_request_error"}}
    with pytest.raises(ProviderError, match="not like this"):
        await collect(provider_of(lambda path: Model(refused)), asking())


async def test_a_generation_that_just_ends_is_not_an_answer(anyio_backend: str) -> None:
    with pytest.raises(StreamTruncated):
        await collect(provider_of(lambda path: Model(piece("Hel"))), asking())


async def test_closing_ends_the_thread_and_it_can_be_asked_again(anyio_backend: str) -> None:
    loaded: list[Path] = []

    def load(path: Path) -> Model:
        loaded.append(path)
        return Model(piece("a"), piece(finish="stop"))

    provider = provider_of(load)
    others = set(threading.enumerate())
    await collect(provider, asking())
    (thread,) = (new for new in set(threading.enumerate()) - others if new.name == "mentra-local-model")
    await provider.aclose()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()
    await collect(provider, asking())
    assert len(loaded) == 2
    await provider.aclose()


@pytest.mark.parametrize("tools", [[], [ProviderToolSpec(name="t")]], ids=["free", "constrained"])
@pytest.mark.parametrize("wrong", [7, "x", [7], [[]], {"x": 1}, [{"delta": "x"}], [{"delta": {"content": 7}}]])
async def test_output_that_is_not_a_chunk_is_malformed(
    anyio_backend: str, tools: list[ProviderToolSpec], wrong: Any
) -> None:
    provider = provider_of(lambda path: Model({"id": "1", "choices": wrong}, piece(finish="stop")))
    with pytest.raises(MalformedStream):
        await collect(provider, asking(tools=tools))
    await provider.aclose()
