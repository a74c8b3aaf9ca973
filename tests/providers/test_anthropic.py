"""The Anthropic Messages wire: what is sent, and what is made of every kind of answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from kits.http_server import Reply, Server, sse
from kits.validate import check_anthropic
from kits.wires import WEATHER, Bytes, Frame, blocks, collect, encoded_again, ending, fold

from mentra_nb.content import Image, Message, Opaque, Text, Thinking, TokenUsage, ToolResult, ToolUse
from mentra_nb.errors import HttpError, InvalidRequest, MalformedStream, ProviderError, RetryableError, StreamTruncated
from mentra_nb.errors import UnsupportedCapability as Unsupported
from mentra_nb.providers.anthropic import AnthropicProvider
from mentra_nb.providers.base import (
    ContentBlockStopped,
    MessageStarted,
    ProviderEvent,
    ProviderToolSpec,
    Request,
    ResponseFormat,
    ToolChoice,
)
from mentra_nb.providers.registry import builtin

SONNET, OPUS = "claude-sonnet-4-5-20250929", "claude-opus-4-6"
REQUEST = Request(SONNET, [Message.user("hi")])
TOOL = ProviderToolSpec(name="weather", description="Weather of a city", input_schema=WEATHER)
CLOCK = ProviderToolSpec(name="clock")
MARK = {"cache_control": {"type": "ephemeral"}}


def start(**usage: Any) -> Frame:
    message = {"id": "msg", "model": "claude", "role": "assistant", "content": [], "usage": usage}
    return {"type": "message_start", "message": message}


def opened(index: int, **block: Any) -> Frame:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, type: str, **fields: Any) -> Frame:
    return {"type": "content_block_delta", "index": index, "delta": {"type": type, **fields}}


def closed(index: int) -> Frame:
    return {"type": "content_block_stop", "index": index}


def end(reason: str = "end_turn", **usage: Any) -> list[Frame]:
    return [{"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}, {"type": "message_stop"}]


def provider(id: str = "anthropic") -> AnthropicProvider:
    return AnthropicProvider(id, "http://h")


async def ask(*frames: Any, adapter: AnthropicProvider | None = None) -> list[ProviderEvent]:
    return await collect((adapter or provider()).with_transport(Bytes(sse(*frames))), REQUEST)


def folded(events: list[ProviderEvent], model: str = SONNET, id: str = "anthropic") -> Message:
    return fold(events, id, model)


def body(
    messages: list[Message], model: str = SONNET, adapter: AnthropicProvider | None = None, **options: Any
) -> Frame:
    sent: Frame = json.loads((adapter or provider()).body(Request(model, messages, **options)))
    check_anthropic(sent)
    return sent


# ---- what is sent


def test_a_conversation_becomes_turns_with_results_first_and_four_cache_marks() -> None:
    image = Image.from_bytes("image/png", b"\x01\x02\x03")
    sent = body(
        [
            Message.user([Text(text="a"), Text(text=" "), image, Image(url="https://x/y.png")]),
            Message.assistant([Text(text="Let me look."), ToolUse(id="c.1", name="weather", input={"city": "Köln"})]),
            Message.user([Text(text="and?"), ToolResult(tool_use_id="c.1", content={"t": 21}, is_error=True)]),
            Message.user("more"),
            Message.assistant([]),
        ],
        system="Be terse.",
        tools=(CLOCK, TOOL),
        tool_choice=ToolChoice("tool", "weather"),
        temperature=0.5,
        max_output_tokens=9,
        metadata={"user_id": "u", "k": "v"},
    )
    assert sent == {
        "model": SONNET,
        "max_tokens": 9,
        "stream": True,
        "temperature": 0.5,
        "tool_choice": {"type": "tool", "name": "weather"},
        "metadata": {"user_id": "u"},
        "system": [{"type": "text", "text": "Be terse.", **MARK}],
        "tools": [
            {"name": "clock", "input_schema": {"type": "object", "properties": {}}},
            {"name": "weather", "description": "Weather of a city", "input_schema": WEATHER, **MARK},
        ],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AQID"}},
                    {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}, **MARK},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me look."},
                    {"type": "tool_use", "id": "c_2e1", "name": "weather", "input": {"city": "Köln"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c_2e1", "content": '{"t":21}', "is_error": True},
                    {"type": "text", "text": "and?"},
                    {"type": "text", "text": "more", **MARK},
                ],
            },
        ],
    }


def test_each_request_finds_what_the_last_one_cached() -> None:
    messages = [Message.user("one")]
    seen = []
    for _ in range(4):
        content = [block for message in body(messages)["messages"] for block in message["content"]]
        marked = [at for at, block in enumerate(content) if "cache_control" in block]
        assert not seen or seen[-1] in marked
        seen.append(marked[-1])
        messages += [Message.assistant("said"), Message.user("next")]


def test_the_limit_is_never_left_out() -> None:
    for model, limit in ((SONNET, 8192), ("claude-3-haiku-20240307", 4096), ("some-new-model", 8192)):
        assert body([Message.user("x")], model)["max_tokens"] == limit


@pytest.mark.parametrize("mode", ["auto", "any", "none"])
def test_tool_choice_is_sent_only_with_tools(mode: Any) -> None:
    assert body([Message.user("x")], tools=(TOOL,), tool_choice=ToolChoice(mode))["tool_choice"] == {"type": mode}
    assert "tool_choice" not in body([Message.user("x")], tool_choice=ToolChoice(mode), parallel_tool_calls=False)


def test_serializes_disable_parallel_tool_use_option() -> None:
    for choice in (None, ToolChoice()):
        sent = body([Message.user("x")], tools=(TOOL,), tool_choice=choice, parallel_tool_calls=False)
        assert sent["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


def test_hosted_tool_search_adds_search_tool_for_deferred_tools() -> None:
    tools = (TOOL, CLOCK.model_copy(update={"deferred": True}))
    sent = body([Message.user("x")], tools=tools, tool_search=True)["tools"]
    assert [tool.get("defer_loading") for tool in sent] == [None, True, None]
    assert sent[0]["cache_control"]
    assert sent[2] == {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}
    forced = body([Message.user("x")], tools=tools, tool_search=True, tool_choice=ToolChoice("tool", "clock"))["tools"]
    assert len(forced) == 2
    assert "defer_loading" not in forced[1]


def test_structured_output_is_a_schema() -> None:
    sent = body([Message.user("x")], response_format=ResponseFormat("answer", WEATHER))
    assert sent["output_config"] == {"format": {"type": "json_schema", "schema": WEATHER}}


def test_images_may_be_part_of_a_result() -> None:
    image = Image.from_bytes("image/png", b"\x01\x02\x03")
    uses = [ToolUse(id="c", name="plot"), ToolUse(id="d", name="plot")]
    results = [
        ToolResult(tool_use_id="c", content="drawn", images=(image,)),
        ToolResult(tool_use_id="d", images=(image, Image(url="https://x/y.png")), is_error=True),
    ]
    first, second = body([Message.assistant(uses), Message.user(results)])["messages"][1]["content"]
    assert [part["type"] for part in first["content"]] == ["text", "image"]
    assert [part["source"]["type"] for part in second["content"]] == ["base64", "url"]
    assert second["is_error"] is True


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "output"),
    [
        (SONNET, "medium", {"type": "enabled", "budget_tokens": 4096}, None),
        ("claude-3-7-sonnet-latest", "low", {"type": "enabled", "budget_tokens": 1638}, None),
        ("claude-sonnet-4-20250514", "high", {"type": "enabled", "budget_tokens": 6553}, None),
        ("claude-opus-4-5-20251101", "high", None, {"effort": "high"}),
        (OPUS, "max", {"type": "adaptive", "display": "summarized"}, {"effort": "max"}),
        ("claude-opus-4-7", "xhigh", {"type": "adaptive", "display": "summarized"}, {"effort": "xhigh"}),
        ("claude-of-tomorrow", "low", {"type": "adaptive", "display": "summarized"}, {"effort": "low"}),
    ],
)
def test_nests_reasoning_effort_under_output_config_with_adaptive_thinking(
    model: str, effort: str, thinking: Any, output: Any
) -> None:
    sent = body([Message.user("x")], model, reasoning_effort=effort)
    assert sent.get("thinking") == thinking
    assert sent.get("output_config") == output
    assert "thinking" not in body([Message.user("x")], model)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("request_", "kind", "words"),
    [
        (Request("claude-3-5-haiku-latest", [], reasoning_effort="low"), Unsupported, "anthropic.*reasoning_effort"),
        (Request(SONNET, [], reasoning_effort="max"), Unsupported, "reasoning_effort 'max' with claude-sonnet"),
        (Request(OPUS, [], reasoning_effort="xhigh"), Unsupported, "xhigh"),
        (Request(OPUS, [], reasoning_effort="low", temperature=0.2), InvalidRequest, "temperature"),
        (
            Request(OPUS, [], reasoning_effort="low", tools=(TOOL,), tool_choice=ToolChoice("any")),
            InvalidRequest,
            "tool_choice",
        ),
        (Request(SONNET, [], reasoning_effort="low", max_output_tokens=1000), InvalidRequest, "over 1024"),
        (Request(SONNET, [], prompt_cache_key="k"), Unsupported, "anthropic does not support prompt_cache_key"),
        (
            Request(SONNET, [], tools=(CLOCK.model_copy(update={"deferred": True}),)),
            InvalidRequest,
            "anthropic deferred tools require hosted tool search",
        ),
        (Request(SONNET, [Message.assistant([Image(url="u")])]), InvalidRequest, "only supported in user messages"),
        (Request(SONNET, [Message.user([Image()])]), InvalidRequest, "neither data nor a URL"),
    ],
)
async def test_an_option_the_api_does_not_have_is_refused_before_sending(
    server: Server, request_: Request, kind: type[ProviderError], words: str
) -> None:
    adapter = AnthropicProvider("anthropic", server.url)
    with pytest.raises(kind, match=words):
        await collect(adapter, request_)
    assert not server.connections
    await adapter.aclose()


def test_replays_signed_and_redacted_thinking_only_to_exact_provider_and_model() -> None:
    def sent(**of: Any) -> Any:
        thoughts = [Thinking(text="hm", signature="sig", **of), Thinking(encrypted="red", **of)]
        search = Opaque(data='{"type":"server_tool_use","id":"s","name":"x","input":{}}', **of)
        use = ToolUse(id="c", name="weather")
        messages = [Message.assistant([*thoughts, search, use]), Message.user([ToolResult(tool_use_id="c")])]
        return body(messages)["messages"][0]["content"][:-1]

    assert sent(provider="anthropic", model=SONNET) == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "red"},
        {"type": "server_tool_use", "id": "s", "name": "x", "input": {}},
    ]
    for of in ({"provider": "anthropic", "model": OPUS}, {"provider": "other", "model": SONNET}, {}):
        assert sent(**of) == []


def test_messages_and_tools_are_encoded_once() -> None:
    message, adapter = Message.user("x"), provider()
    request = Request(SONNET, [message], tools=[TOOL])
    adapter.body(request)
    wire = message.last_wire
    form = message.form(wire)
    adapter.body(Request(SONNET, [message], tools=[TOOL]))
    assert message.last_wire == wire
    assert message.form(wire) is form
    assert adapter.tool_fragments(request, encoded_again)


# ---- what comes back


@pytest.mark.anyio
async def test_merges_anthropic_usage_updates_into_cumulative_totals() -> None:
    events = await ask(
        start(input_tokens=10, cache_read_input_tokens=100, cache_creation_input_tokens=7, output_tokens=1),
        {"type": "ping"},
        {"type": "something_new", "x": 1},
        opened(0, type="text", text=""),
        delta(0, "text_delta", text="Grüße "),
        delta(0, "citations_delta", citation={}),
        delta(0, "text_delta", text="🌍"),
        closed(0),
        *end(output_tokens=52, input_tokens=0, output_tokens_details={"thinking_tokens": 7}),
    )
    assert events[0] == MessageStarted("msg", "claude")
    assert blocks(events) == [("text", None, None, "Grüße 🌍")]
    assert ending(events).stop_reason == "end"
    assert ending(events).usage == TokenUsage(
        input_tokens=10,
        output_tokens=52,
        cache_read_input_tokens=100,
        cache_creation_input_tokens=7,
        reasoning_tokens=7,
    )


@pytest.mark.anyio
async def test_cached_tokens_are_counted_apart_for_anthropic_itself_only() -> None:
    frames = [start(input_tokens=10, cache_read_input_tokens=100), *end(output_tokens=5)]
    assert ending(await ask(*frames)).usage.input_tokens == 10
    assert ending(await ask(*frames, adapter=provider("llamacpp"))).usage.input_tokens == 110
    assert ending(await ask(start(), *end())).usage is None


@pytest.mark.anyio
async def test_usage_is_also_read_inside_the_delta() -> None:
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "usage": {"output_tokens": 9}}}
    assert ending(await ask(start(input_tokens=1), last, {"type": "message_stop"})).usage == TokenUsage(
        input_tokens=1, output_tokens=9
    )


@pytest.mark.anyio
async def test_parses_signed_and_redacted_thinking_with_requested_provenance() -> None:
    events = await ask(
        start(),
        opened(0, type="thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="h"),
        delta(0, "thinking_delta", thinking="m"),
        delta(0, "signature_delta", signature="si"),
        delta(0, "signature_delta", signature="g"),
        closed(0),
        opened(1, type="redacted_thinking", data="secret"),
        closed(1),
        opened(2, type="thinking", thinking="", signature="only"),
        closed(2),
        opened(3, type="tool_use", id="c", name="weather", input={}),
        closed(3),
        *end("tool_use"),
    )
    assert blocks(events)[0] == ("thinking", None, None, "hm")
    assert ContentBlockStopped(0, signature="sig") in events
    answer = Message.user([ToolResult(tool_use_id="c", content="1")])
    content = body([folded(events), answer])["messages"][0]["content"]
    assert content[:3] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "secret"},
        {"type": "thinking", "thinking": "", "signature": "only"},
    ]


@pytest.mark.anyio
async def test_parallel_calls_interleave_and_may_have_no_arguments() -> None:
    events = await ask(
        start(),
        opened(0, type="tool_use", id="a", name="weather", input={}),
        opened(1, type="tool_use", id="b", name="clock", input={}),
        delta(1, "input_json_delta", partial_json=""),
        delta(0, "input_json_delta", partial_json='{"city":'),
        closed(1),
        delta(0, "input_json_delta", partial_json='"Oslo"}'),
        closed(0),
        opened(2, type="tool_use", id="c", name="weather", input={"city": "Bonn"}),
        closed(2),
        *end("tool_use"),
    )
    assert blocks(events) == [
        ("tool_use", "a", "weather", '{"city":"Oslo"}'),
        ("tool_use", "b", "clock", ""),
        ("tool_use", "c", "weather", '{"city":"Bonn"}'),
    ]
    assert [use.input for use in folded(events).tool_uses()] == [{"city": "Oslo"}, {}, {"city": "Bonn"}]
    assert ending(events).stop_reason == "tool_use"


@pytest.mark.anyio
async def test_parses_hosted_tool_search_bookkeeping_blocks() -> None:
    found = {"type": "tool_search_tool_result", "tool_use_id": "s", "content": {"tool_references": []}}
    events = await ask(
        start(),
        opened(0, type="server_tool_use", id="s", name="tool_search_tool_bm25", input={}),
        delta(0, "input_json_delta", partial_json='{"que'),
        delta(0, "input_json_delta", partial_json='ry":"x"}'),
        closed(0),
        opened(1, **found),
        closed(1),
        opened(2, type="text", text="ok"),
        closed(2),
        *end("pause_turn"),
    )
    message = folded(events)
    assert message.text() == "ok"
    assert ending(events).stop_reason == "pause"
    search = {"type": "server_tool_use", "id": "s", "name": "tool_search_tool_bm25", "input": {"query": "x"}}
    assert body([Message.user("x"), message])["messages"][1]["content"][:2] == [search, found]


@pytest.mark.anyio
async def test_repeated_indices_and_ids_lose_nothing() -> None:
    events = await ask(
        start(),
        opened(0, type="tool_use", id="same", name="weather", input={}),
        delta(0, "input_json_delta", partial_json='{"city":"A"}'),
        opened(0, type="tool_use", id="same", name="weather", input={}),
        delta(0, "input_json_delta", partial_json='{"city":"B"}'),
        closed(0),
        closed(0),
        *end("tool_use"),
    )
    assert blocks(events) == [
        ("tool_use", "same", "weather", '{"city":"A"}'),
        ("tool_use", "same-2", "weather", '{"city":"B"}'),
    ]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("end_turn", "end"),
        ("stop_sequence", "end"),
        ("tool_use", "end"),
        ("max_tokens", "max_tokens"),
        ("pause_turn", "pause"),
        ("refusal", "refusal"),
        ("model_context_window_exceeded", "context_overflow"),
        ("odd", "odd"),
    ],
)
async def test_stop_reasons_are_neutral(reason: str, stop: str) -> None:
    assert ending(await ask(start(), opened(0, type="text", text="x"), *end(reason))).stop_reason == stop


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("frame", "kind", "words"),
    [
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"},
            RetryableError,
            "Overloaded .overloaded_error., request req_1",
        ),
        ({"type": "error", "error": {"type": "api_error", "message": "oops"}}, RetryableError, "oops"),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}, ProviderError, "no"),
        ({"error": {"type": "timeout_error", "message": "late"}}, RetryableError, "late"),
        ({"type": "error"}, ProviderError, "no details"),
        (delta(3, "input_json_delta", partial_json="{"), MalformedStream, "block 3"),
        (delta(0, "thinking_delta", thinking="x"), MalformedStream, "thinking delta for a text block"),
        (delta(0, "text_delta", text=["x"]), MalformedStream, "not a string"),
        ({"type": "content_block_start", "index": 1}, MalformedStream, "without its content_block"),
    ],
)
async def test_errors_inside_the_stream_have_the_providers_message(
    frame: Frame, kind: type[ProviderError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        await ask(start(), opened(0, type="text", text="x"), frame)
    assert caught.value.is_transient is (kind is RetryableError)


@pytest.mark.anyio
async def test_the_end_is_a_stop_reason_and_nothing_else() -> None:
    text = [start(), opened(0, type="text", text="x"), closed(0)]
    assert blocks(await ask(*text, end()[0])) == [("text", None, None, "x")]
    with pytest.raises(StreamTruncated):
        await ask(*text)


@pytest.mark.anyio
async def test_key_version_and_address_are_the_apis_own(server: Server) -> None:
    adapter = builtin("anthropic", "sk-ant-secret", server.url)
    server.reply(Reply([sse(start(), opened(0, type="text", text="x"), *end())]))
    await collect(adapter, REQUEST)
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "sk-ant-secret on 2023-06-01"}}
    headers = {"content-type": "application/json", "request-id": "req_9", "retry-after": "3"}
    server.reply(Reply([json.dumps(error).encode()], 529, headers))
    with pytest.raises(HttpError) as caught:
        await collect(adapter, REQUEST)
    received = server.requests[0]
    assert received.path == "/v1/messages"
    assert (received.headers["x-api-key"], received.headers["anthropic-version"]) == ("sk-ant-secret", "2023-06-01")
    assert "authorization" not in received.headers
    assert (caught.value.request_id, caught.value.retry_after, caught.value.is_transient) == ("req_9", 3, True)
    assert "*** on 2023-06-01" in str(caught.value)
    await adapter.aclose()


@pytest.mark.anyio
async def test_models_are_listed_page_by_page(server: Server) -> None:
    pages = [
        {
            "data": [
                {"id": "a", "display_name": "A", "created_at": "2025-03-04T12:34:56Z", "max_input_tokens": 200_000}
            ],
            "has_more": True,
            "last_id": "a",
        },
        {"data": [{"id": "b", "created_at": "?"}, {"name": "odd"}], "has_more": True, "last_id": "a"},
    ]
    server.reply(*(Reply([json.dumps(page).encode()], headers={"content-type": "application/json"}) for page in pages))
    adapter = AnthropicProvider("mine", server.url + "/v1")
    first, second = await adapter.list_models()
    assert [request.path for request in server.requests] == [
        "/v1/models?limit=1000",
        "/v1/models?limit=1000&after_id=a",
    ]
    assert (first.display_name, first.context_window) == ("A", 200_000)
    assert first.created_at == datetime(2025, 3, 4, 12, 34, 56, tzinfo=UTC)
    assert (str(second), second.created_at) == ("mine/b", None)
    await adapter.aclose()
