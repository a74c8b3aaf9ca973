"""The Chat Completions wire: what is sent, and every dialect of answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from kits.http_server import Reply, Server, sse
from kits.validate import check_chat
from kits.wires import WEATHER, Bytes, Frame, blocks, collect, ending, fold

from mentra_nb.content import Image, Message, Text, Thinking, TokenUsage, ToolResult, ToolUse
from mentra_nb.errors import HttpError, InvalidRequest, ProviderError, RetryableError, StreamTruncated
from mentra_nb.providers.base import (
    ContentBlockDelta,
    ContentBlockStopped,
    MessageStarted,
    ProviderEvent,
    ProviderToolSpec,
    Request,
    ResponseFormat,
    ToolChoice,
)
from mentra_nb.providers.chat_completions import ChatCompletionsProvider

REQUEST = Request("m", [Message.user("hi")])
TOOL = ProviderToolSpec(name="weather", description="Weather of a city", input_schema=WEATHER)


def chunk(finish: str | None = None, **delta: Any) -> Frame:
    return {"id": "c", "model": "m-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def piece(arguments: Any = None, *, index: int | None = None, id: str | None = None, name: str | None = None) -> Frame:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"function": function} | {key: value for key, value in (("index", index), ("id", id)) if value is not None}


def calls(*pieces: Frame, finish: str = "tool_calls") -> list[Frame]:
    return [*(chunk(tool_calls=[one]) for one in pieces), chunk(finish)]


async def ask(*frames: Any, done: bool = True) -> list[ProviderEvent]:
    adapter = ChatCompletionsProvider("local", "http://h").with_transport(Bytes(sse(*frames, done=done)))
    return await collect(adapter, REQUEST)


def folded(events: list[ProviderEvent]) -> Message:
    return fold(events, "local")


def body(messages: list[Message], adapter: ChatCompletionsProvider | None = None, **options: Any) -> Frame:
    adapter = adapter or ChatCompletionsProvider("local", "http://h")
    sent: Frame = json.loads(adapter.body(Request("m", messages, **options)))
    check_chat(sent)
    return sent


REFUSAL = Reply([b'{"error":{"message":"unknown field stream_options"}}'], 400, {"content-type": "application/json"})
ANSWER = Reply([sse(chunk(content="ok"), chunk("stop"), done=True)])


# ---- what is sent


@pytest.mark.anyio
async def test_each_piece_of_text_is_an_event_and_an_empty_one_is_not() -> None:
    events = await ask(chunk(content="a"), chunk(content=""), chunk(content="b"), chunk(content=None), chunk("stop"))
    assert [event.text for event in events if isinstance(event, ContentBlockDelta)] == ["a", "b"]


def test_a_conversation_becomes_messages_that_strict_templates_accept() -> None:
    sent = body(
        [
            Message.user('say "hi"'),
            Message.user("now\n"),
            Message.assistant([Thinking(text="hm"), Text(text="Let me look."), ToolUse(id="c1", name="weather")]),
            Message.user([Text(text="and?"), ToolResult(tool_use_id="c1", content="no city", is_error=True)]),
            Message.user([Text(text="see"), Image.from_bytes("image/png", b"\x01\x02\x03")]),
            Message.assistant([Thinking(text="only thought")]),
            Message.assistant([ToolUse(id="c2", name="weather", error="broken")]),
            Message.user([ToolResult(tool_use_id="c2", content={"t": 1})]),
        ],
        system="Be terse.",
        tools=(TOOL,),
        tool_choice=ToolChoice("tool", "weather"),
        temperature=0,
        max_output_tokens=9,
        metadata={"k": "v"},
    )
    function = {"name": "weather", "parameters": WEATHER, "description": "Weather of a city"}
    assert sent == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "temperature": 0,
        "max_tokens": 9,
        "tools": [{"type": "function", "function": function}],
        "messages": [
            {"role": "system", "content": "Be terse."},
            {"role": "user", "content": 'say "hi"\n\nnow\n'},
            {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "Tool error: no city"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "and?"},
                    {"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AQID"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c2", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c2", "content": '{"t":1}'},
        ],
    }


def test_the_token_limit_has_two_names_and_images_have_one_place() -> None:
    adapter = ChatCompletionsProvider("x", "http://h", max_tokens_field="max_completion_tokens")
    assert body([Message.user("x")], adapter, max_output_tokens=5)["max_completion_tokens"] == 5
    with pytest.raises(InvalidRequest, match="only supported in user messages"):
        body([Message.assistant([Image(url="u")])])


def test_options_are_sent_in_the_terms_of_the_wire() -> None:
    sent = body(
        [Message.user("x")],
        tools=(TOOL,),
        response_format=ResponseFormat("answer", WEATHER),
        parallel_tool_calls=False,
        prompt_cache_key="k",
        reasoning_effort="low",
    )
    assert sent["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": WEATHER, "strict": True},
    }
    assert (sent["parallel_tool_calls"], sent["prompt_cache_key"], sent["reasoning_effort"]) == (False, "k", "low")


@pytest.mark.parametrize(("mode", "wire"), [("auto", "auto"), ("any", "required"), ("none", "none")])
def test_tool_choice_is_sent_only_with_tools(mode: Any, wire: str) -> None:
    assert body([Message.user("x")], tools=(TOOL,), tool_choice=ToolChoice(mode))["tool_choice"] == wire
    sent = body([Message.user("x")], tool_choice=ToolChoice(mode), parallel_tool_calls=False)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(sent)


def test_images_come_by_address_or_with_their_bytes() -> None:
    parts = body([Message.user([Image(url="https://x/y.png"), Image.from_bytes("image/jpeg", b"\x01")])])["messages"][0]
    assert [part["image_url"]["url"] for part in parts["content"]] == ["https://x/y.png", "data:image/jpeg;base64,AQ=="]


def test_images_of_a_result_follow_it_as_the_users() -> None:
    image = Image.from_bytes("image/png", b"\x01")
    results = [ToolResult(tool_use_id="c", content="a plot", images=(image,)), ToolResult(tool_use_id="d", content="2")]
    calls = [ToolUse(id="c", name="t"), ToolUse(id="d", name="t")]
    _, first, second, shown = body([Message.assistant(calls), Message.user(results)])["messages"]
    assert [(m["role"], m["content"]) for m in (first, second)] == [("tool", "a plot"), ("tool", "2")]
    assert shown == {
        "role": "user",
        "content": [
            {"type": "text", "text": "Images of the results above:"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AQ=="}},
        ],
    }


def without_calls(events: list[ProviderEvent]) -> Any:
    return [block for block in folded(events).content if not isinstance(block, ToolUse)]


def loop(*content: Any, id: str = "local", model: str = "m") -> Any:
    """Return the assistant's message in the request that follows a tool call."""
    message = Message.assistant([*content, ToolUse(id="c", name="weather")])
    adapter = ChatCompletionsProvider(id, "http://h")
    sent = json.loads(adapter.body(Request(model, [message, Message.user([ToolResult(tool_use_id="c")])])))
    check_chat(sent)
    return sent["messages"][0]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("pieces", "back"),
    [
        ([{"reasoning_content": "h"}, {"reasoning_content": "m"}], {"reasoning_content": "hm"}),
        ([{"reasoning": "hm"}, {"content": "ok"}, {"reasoning": "!"}], {"reasoning": "hm!", "content": "ok"}),
        ([{"reasoning": "hm", "reasoning_content": "hm"}], {"reasoning_content": "hm"}),
        ([{"reasoning_content": ""}], {"reasoning_content": ""}),
        ([{"content": "<think>hm</think>ok"}], {"content": "ok"}),
    ],
    ids=["DeepSeek", "Ollama", "both", "none of it", "in tags"],
)
async def test_reasoning_goes_back_where_it_came_from_to_the_same_model_only(pieces: list[Frame], back: Frame) -> None:
    call = piece("{}", index=0, id="c", name="weather")
    said = without_calls(await ask(*(chunk(**one) for one in pieces), *calls(call)))
    known = {"role", "content", "tool_calls"}
    assert loop(*said) == loop() | back
    for other in ({"id": "other"}, {"model": "other"}):
        assert set(loop(*said, **other)) == known


@pytest.mark.anyio
async def test_reasoning_that_is_only_in_the_details_is_shown_and_goes_back_once() -> None:
    text = {"type": "reasoning.text", "text": "hm"}
    summary = {"type": "reasoning.summary", "index": 1, "summary": "!", "text": None}
    events = await ask(
        chunk(reasoning_details=[text]),
        chunk(reasoning_details=[summary], reasoning="twice"),
        *calls(piece("{}", index=0, id="c", name="weather")),
    )
    thinking, *rest = without_calls(events)
    assert isinstance(thinking, Thinking)
    assert thinking.text == "hm!"
    assert not [block for block in rest if isinstance(block, Thinking)]
    back = {"reasoning_details": [text, {name: value for name, value in summary.items() if value}]}
    assert loop(thinking, *rest) == loop() | back


@pytest.mark.anyio
async def test_details_of_reasoning_go_back_as_they_came() -> None:
    def detail(index: int, reasoning: Any = None, **fields: Any) -> Frame:
        return chunk(reasoning=reasoning, reasoning_details=[{"type": "reasoning.text", "index": index, **fields}])

    sealed = {"type": "reasoning.encrypted", "id": "c", "data": "sealed", "format": "google-gemini-v1"}
    events = await ask(
        detail(0, "h", text="h", format="anthropic-claude-v1"),
        detail(0, "m", text="m", signature=None),
        detail(0, signature="sig"),
        chunk(reasoning_details=["odd", sealed]),
        *calls(piece("{}", index=0, id="c", name="weather")),
    )
    said = without_calls(events)
    assert said[0].text == "hm"
    text = {"type": "reasoning.text", "index": 0, "text": "hm", "format": "anthropic-claude-v1", "signature": "sig"}
    assert loop(*said) == loop() | {"reasoning_details": [text, sealed]}
    assert set(loop(*said, model="other")) == {"role", "content", "tool_calls"}


@pytest.mark.anyio
@pytest.mark.parametrize("option", [{"reasoning_summary": "auto"}, {"tool_search": True}])
async def test_an_option_the_api_does_not_have_is_refused_before_sending(server: Server, option: Any) -> None:
    adapter = ChatCompletionsProvider("local", server.url)
    with pytest.raises(InvalidRequest, match=f"local does not support {next(iter(option))}"):
        await collect(adapter, Request("m", [Message.user("x")], **option))
    deferred = Request("m", [Message.user("x")], tools=(TOOL.model_copy(update={"deferred": True}),))
    with pytest.raises(InvalidRequest, match="local deferred tools require hosted tool search"):
        await collect(adapter, deferred)
    assert not server.connections


@pytest.mark.anyio
async def test_a_server_without_stream_options_is_asked_again_without_them(server: Server) -> None:
    server.reply(REFUSAL, ANSWER, ANSWER)
    adapter = ChatCompletionsProvider("x", server.url)
    assert blocks(await collect(adapter, REQUEST)) == blocks(await collect(adapter, REQUEST))
    assert ["stream_options" in request.json() for request in server.requests] == [True, False, False]
    await adapter.aclose()


@pytest.mark.anyio
async def test_a_model_that_refuses_images_is_asked_again_without_them(server: Server) -> None:
    refusal = Reply(
        [b'{"error":{"message":"image input is not supported"}}'], 500, {"content-type": "application/json"}
    )
    server.reply(refusal, ANSWER, ANSWER)
    adapter = ChatCompletionsProvider("x", server.url)
    image = Image.from_bytes("image/png", b"\x01")
    result = Message.user([ToolResult(tool_use_id="c", content="[figure 1]", images=(image,))])
    request = Request("m", [Message.assistant([ToolUse(id="c", name="plot")]), result])
    assert adapter.takes_result_images("m")
    assert blocks(await collect(adapter, request)) == blocks(await collect(adapter, request))
    assert ["image_url" in str(sent.json()) for sent in server.requests] == [True, False, False]
    assert (adapter.takes_result_images("m"), adapter.takes_result_images("another")) == (False, True)
    assert (adapter.takes_images("m"), adapter.takes_images("another")) == (False, True)
    await adapter.aclose()
    server.reply(refusal, ANSWER)
    adapter = ChatCompletionsProvider("x", server.url)
    await collect(adapter, Request("m", [Message.user([Text(text="see"), image])]))
    said = [sent.json()["messages"][0]["content"] for sent in server.requests[3:]]
    assert "image_url" in str(said[0])
    assert said[1] == "see\n[a picture is left out: this model takes none]"
    await adapter.aclose()


@pytest.mark.anyio
async def test_two_requests_at_once_are_both_asked_again_without_stream_options(server: Server) -> None:
    server.reply(REFUSAL, REFUSAL, ANSWER, ANSWER)
    adapter = ChatCompletionsProvider("x", server.url)
    first, second = await asyncio.gather(collect(adapter, REQUEST), collect(adapter, REQUEST))
    assert blocks(first) == blocks(second) == [("text", None, None, "ok")]
    assert ["stream_options" in request.json() for request in server.requests] == [True, True, False, False]
    await adapter.aclose()


@pytest.mark.anyio
async def test_a_server_that_refuses_stream_options_also_when_they_are_left_out_is_asked_twice(server: Server) -> None:
    server.reply(REFUSAL, REFUSAL)
    adapter = ChatCompletionsProvider("x", server.url)
    with pytest.raises(HttpError, match="unknown field stream_options"):
        await collect(adapter, REQUEST)
    assert len(server.requests) == 2
    await adapter.aclose()


# ---- what comes back


@pytest.mark.anyio
async def test_text_reasoning_and_usage_in_a_last_chunk_without_choices() -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 6,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    events = await ask(
        {"id": "c", "model": "m-1", "choices": []},
        chunk(role="assistant", content=None),
        chunk(reasoning_content="hm"),
        chunk(content=""),
        chunk(content="Hel"),
        chunk(content="lo"),
        chunk("stop"),
        {"choices": [], "usage": usage},
    )
    assert events[0] == MessageStarted("c", "m-1")
    assert blocks(events) == [("thinking", None, None, "hm"), ("text", None, None, "Hello")]
    assert ending(events).stop_reason == "end"
    assert ending(events).usage == TokenUsage(
        input_tokens=5,
        output_tokens=6,
        total_tokens=11,
        cache_read_input_tokens=2,
        cache_creation_input_tokens=1,
        reasoning_tokens=3,
    )


@pytest.mark.anyio
async def test_usage_in_every_chunk_counts_once_and_absent_usage_is_none() -> None:
    each = [chunk(content="a") | {"usage": {"prompt_tokens": n}} for n in (1, 2)]
    assert ending(await ask(*each, chunk("stop") | {"usage": None})).usage == TokenUsage(input_tokens=2)
    assert ending(await ask(chunk("stop"))).usage is None


@pytest.mark.anyio
@pytest.mark.parametrize("cut", range(1, 9))
async def test_think_tags_in_the_content_become_reasoning(cut: int) -> None:
    text = "\n<think>\nhm < x </thin</think>\n\nAnswer <think>"
    pieces = [text[at : at + cut] for at in range(0, len(text), cut)]
    events = await ask(*(chunk(content=one) for one in pieces), chunk("stop"))
    (_, _, _, thought), answer = blocks(events)
    assert thought.strip() == "hm < x </thin"
    assert answer == ("text", None, None, "Answer <think>")


@pytest.mark.anyio
async def test_text_that_only_looks_like_a_tag_is_text() -> None:
    for text in ("<thing>", "<thi", "  <", "a<think>b"):
        assert blocks(await ask(chunk(content=text), chunk("stop"))) == [("text", None, None, text)]
    assert blocks(await ask(chunk(reasoning="r"), chunk(content="<think>"), chunk("stop"))) == [
        ("thinking", None, None, "r"),
        ("text", None, None, "<think>"),
    ]


A, B = ("tool_use", "a", "weather", '{"city":"A"}'), ("tool_use", "b", "clock", "{}")
DIALECTS = {
    "interleaved by index": [
        piece("", index=0, id="a", name="weather"),
        piece("{", index=1, id="b", name="clock"),
        piece('{"city":', index=0),
        piece("}", index=1),
        piece('"A"}', index=0),
    ],
    "whole, without index": [piece('{"city":"A"}', id="a", name="weather"), piece("{}", id="b", name="clock")],
    "whole, all at index 0": [
        piece('{"city":"A"}', index=0, id="a", name="weather"),
        piece("{}", index=0, id="b", name="clock"),
    ],
    "arguments as objects": [
        piece({"city": "A"}, index=0, id="a", name="weather"),
        piece({}, index=1, id="b", name="clock"),
    ],
    "name and id repeated": [
        piece('{"city":', index=0, id="a", name="weather"),
        piece('"A"}', index=0, id="a", name="weather"),
        piece("", index=0, id="a", name="weather"),
        piece("{}", index=1, id="b", name="clock"),
    ],
    "pieces without index or id": [
        piece('{"city":', id="a", name="weather"),
        piece('"A"}'),
        piece("{}", id="b", name="clock"),
    ],
    "name after arguments": [
        piece('{"city":', index=0, id="a"),
        piece('"A"}', index=0, name="weather"),
        piece("{}", index=1, id="b", name="clock"),
    ],
}


@pytest.mark.anyio
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("finish", ["tool_calls", "stop", "function_call"])
async def test_two_calls_are_read_in_every_dialect(dialect: str, finish: str) -> None:
    events = await ask(*calls(*DIALECTS[dialect], finish=finish))
    assert blocks(events) == [A, B]
    assert ending(events).stop_reason == "tool_use"


@pytest.mark.anyio
async def test_missing_and_repeated_ids_become_unique() -> None:
    events = await ask(*calls(piece("{}", index=0, name="clock"), piece("{}", index=0, name="clock")))
    ids = [id for _, id, _, _ in blocks(events)]
    assert len(set(ids)) == 2
    assert all(id.startswith("call-") for id in ids)
    same = await ask(*calls(piece("{}", index=0, id="x", name="clock"), piece("{}", index=1, id="x", name="clock")))
    assert [id for _, id, _, _ in blocks(same)] == ["x", "x-2"]


@pytest.mark.anyio
async def test_a_call_without_arguments_and_the_legacy_form_are_calls() -> None:
    assert blocks(await ask(*calls(piece(index=0, id="b", name="clock")))) == [("tool_use", "b", "clock", "")]
    ((_, _, name, arguments),) = blocks(
        await ask(chunk(function_call={"name": "clock", "arguments": "{}"}), chunk("stop"))
    )
    assert (name, arguments) == ("clock", "{}")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", "end"),
        ("length", "max_tokens"),
        ("content_filter", "content_filter"),
        ("tool_calls", "end"),
        ("function_call", "end"),
        ("model_length", "context_overflow"),
        ("odd", "odd"),
    ],
)
async def test_stop_reasons_are_neutral(finish: str, reason: str) -> None:
    assert ending(await ask(chunk(content="x"), chunk(finish))).stop_reason == reason


@pytest.mark.anyio
async def test_a_call_cut_by_the_token_limit_says_so() -> None:
    events = await ask(*calls(piece('{"ci', index=0, id="a", name="weather"), finish="length"))
    assert ending(events).stop_reason == "max_tokens"


@pytest.mark.anyio
async def test_blocks_that_end_with_the_message_are_marked() -> None:
    frames = chunk(reasoning="hm"), chunk(content="x"), *calls(piece("{}", index=0, id="a", name="clock"))
    stopped = [event for event in await ask(*frames) if isinstance(event, ContentBlockStopped)]
    assert [(event.index, event.at_end) for event in stopped] == [(0, False), (1, False), (2, True)]


@pytest.mark.anyio
async def test_a_refusal_is_text_with_its_own_stop_reason() -> None:
    events = await ask(chunk(refusal="No."), chunk("stop"))
    assert blocks(events) == [("text", None, None, "No.")]
    assert ending(events).stop_reason == "refusal"


@pytest.mark.anyio
async def test_the_end_is_a_finish_reason_or_done_and_nothing_else() -> None:
    assert blocks(await ask(chunk(content="x"), chunk("stop"), done=False))
    assert blocks(await ask(chunk(content="x")))
    for frames in ([], [chunk(content="x")], calls(piece("{", index=0, id="a", name="n"))[:1]):
        with pytest.raises(StreamTruncated):
            await ask(*frames, done=False)


@pytest.mark.anyio
async def test_any_cut_gives_the_same_events() -> None:
    frames = [chunk(content="<think>ü</think>"), chunk(content="🌍"), *calls(*DIALECTS["interleaved by index"])]
    stream, whole = sse(*frames, newline="\r\n", done=True), await ask(*frames)
    adapter = ChatCompletionsProvider("local", "http://h")
    finish = stream.index(b'"finish_reason": "tool_calls"')
    for at in range(len(stream)):
        assert await collect(adapter.with_transport(Bytes(stream[:at], stream[at:])), REQUEST) == whole
        if at <= finish:
            with pytest.raises(StreamTruncated):
                await collect(adapter.with_transport(Bytes(stream[:at])), REQUEST)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        ({"error": {"message": "busy", "type": "overloaded_error", "code": None}}, RetryableError),
        ({"error": {"message": "busy", "code": 502}}, RetryableError),
        ({"error": {"message": "busy", "code": "context_length_exceeded"}}, ProviderError),
        (
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "error", "error": {"message": "busy"}}]},
            ProviderError,
        ),
        ({"error": "busy"}, ProviderError),
        (chunk("insufficient_system_resource") | {"busy": True}, RetryableError),
        (chunk("abort") | {"busy": True}, ProviderError),
        (chunk("error") | {"busy": True}, ProviderError),
    ],
)
async def test_errors_inside_the_stream_have_the_providers_message(frame: Frame, kind: type[ProviderError]) -> None:
    with pytest.raises(kind, match="broken off" if "busy" in frame else "busy") as caught:
        await ask(chunk(content="x"), frame)
    assert caught.value.is_transient is (kind is RetryableError)
