"""The Responses wire: what is sent, and what is made of every kind of answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kits.http_server import Reply, Server, sse
from kits.validate import check_anthropic, check_chat, check_gemini, check_responses
from kits.wires import WEATHER, Bytes, Frame, blocks, collect, ending

from mentra_nb.agent.answer import PendingMessage
from mentra_nb.content import Image, Message, Text, Thinking, TokenUsage, ToolResult, ToolUse
from mentra_nb.errors import (
    InvalidRequest,
    MalformedStream,
    ProviderError,
    RetryableError,
    StreamTruncated,
    UnsupportedCapability,
)
from mentra_nb.providers.anthropic import AnthropicProvider
from mentra_nb.providers.base import (
    ContentBlockStarted,
    ContentBlockStopped,
    MessageStarted,
    ProviderCapabilities,
    ProviderEvent,
    ProviderToolSpec,
    Request,
    ResponseFormat,
    ToolChoice,
)
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.gemini import GeminiProvider
from mentra_nb.providers.registry import builtin
from mentra_nb.providers.responses import ResponsesProvider

REQUEST = Request("m", [Message.user("hi")])
EFFORT = Request("m", [Message.user("x")], reasoning_effort="low")
TOOL = ProviderToolSpec(name="weather", description="Weather of a city", input_schema=WEATHER)
CREATED = {"type": "response.created", "response": {"id": "r1", "model": "m-1"}}


def added(index: int, item: Frame, **extra: Any) -> Frame:
    return {"type": "response.output_item.added", "output_index": index, "item": item, **extra}


def done(index: int, item: Frame) -> Frame:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def delta(kind: str, index: int, text: Any, **extra: Any) -> Frame:
    return {"type": f"response.{kind}.delta", "output_index": index, "delta": text, **extra}


def completed(**response: Any) -> Frame:
    return {"type": "response.completed", "response": {"id": "r1", "status": "completed", **response}}


def call(call_id: str, name: str = "weather", **extra: Any) -> Frame:
    return {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": name, "arguments": "", **extra}


TEXT = [
    CREATED,
    {"type": "response.something_new", "x": 1},
    added(0, {"type": "message", "id": "msg"}),
    delta("output_text", 0, "Grüße "),
    delta("output_text", 0, "🌍"),
    done(0, {"type": "message", "id": "msg", "content": [{"type": "output_text", "text": "Grüße 🌍"}]}),
    completed(
        usage={
            "input_tokens": 328,
            "output_tokens": 52,
            "total_tokens": 380,
            "input_tokens_details": {"cached_tokens": 12, "cache_write_tokens": 5},
            "output_tokens_details": {"reasoning_tokens": 7},
        }
    ),
]


def provider(*frames: Any, id: str = "openai", **options: Any) -> Any:
    return ResponsesProvider(id, "http://h", **options).with_transport(Bytes(sse(*frames)))


async def ask(*frames: Any, request: Request = REQUEST) -> list[ProviderEvent]:
    return await collect(provider(*frames), request)


def body(messages: list[Message], model: str = "m", **options: Any) -> Frame:
    sent: Frame = json.loads(ResponsesProvider("openai", "http://h").body(Request(model, messages, **options)))
    check_responses(sent)
    return sent


# ---- what is sent


def test_converts_request_to_responses_payload() -> None:
    image = Image.from_bytes("image/png", b"\x01\x02\x03")
    sent = body(
        [
            Message.user([Text(text="a"), Text(text="b"), image, Image(url="https://x/y.png")]),
            Message.assistant([Text(text="Let me look."), ToolUse(id="c1", name="weather", input={"city": "Köln"})]),
            Message.user([Text(text="and?"), ToolResult(tool_use_id="c1", content={"t": 21}, is_error=True)]),
            Message.assistant([]),
        ],
        system="Be terse.",
        tools=(TOOL,),
        tool_choice=ToolChoice("tool", "weather"),
        temperature=0.5,
        max_output_tokens=9,
        reasoning_effort="low",
        metadata={"k": "v"},
    )
    assert sent == {
        "model": "m",
        "stream": True,
        "store": False,
        "instructions": "Be terse.",
        "tool_choice": {"type": "function", "name": "weather"},
        "temperature": 0.5,
        "max_output_tokens": 9,
        "reasoning": {"effort": "low"},
        "include": ["reasoning.encrypted_content"],
        "metadata": {"k": "v"},
        "tools": [
            {
                "type": "function",
                "name": "weather",
                "description": "Weather of a city",
                "parameters": WEATHER,
                "strict": False,
            }
        ],
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "a"},
                    {"type": "input_text", "text": "b"},
                    {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,AQID"},
                    {"type": "input_image", "detail": "auto", "image_url": "https://x/y.png"},
                ],
            },
            {"type": "message", "role": "assistant", "content": "Let me look."},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Köln"}'},
            {"type": "function_call_output", "call_id": "c1", "output": 'Tool error: {"t":21}'},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "and?"}]},
        ],
    }


@pytest.mark.parametrize(("mode", "wire"), [("auto", "auto"), ("any", "required"), ("none", "none")])
def test_tool_choice_is_sent_only_with_tools(mode: Any, wire: str) -> None:
    assert body([Message.user("x")], tools=(TOOL,), tool_choice=ToolChoice(mode))["tool_choice"] == wire
    assert "tool_choice" not in body([Message.user("x")], tool_choice=ToolChoice(mode))


def test_a_malformed_call_is_sent_again_without_arguments() -> None:
    use = ToolUse(id="c", name="weather", error="not JSON")
    items = body([Message.assistant([use]), Message.user([ToolResult(tool_use_id="c", is_error=True)])])["input"]
    assert items[0]["arguments"] == "{}"


def test_serializes_advanced_responses_request_controls() -> None:
    sent = body(
        [Message.user("x")],
        tools=(TOOL,),
        response_format=ResponseFormat("answer", WEATHER, strict=False),
        parallel_tool_calls=False,
        prompt_cache_key="k",
        reasoning_effort="high",
        reasoning_summary="detailed",
    )
    assert sent["reasoning"] == {"effort": "high", "summary": "detailed"}
    assert sent["text"] == {
        "format": {"type": "json_schema", "name": "answer", "schema": WEATHER, "strict": False},
    }
    assert (sent["parallel_tool_calls"], sent["prompt_cache_key"]) == (False, "k")
    assert "parallel_tool_calls" not in body([Message.user("x")], parallel_tool_calls=False)


def test_hosted_tool_search_adds_search_tool_for_deferred_tools() -> None:
    tools = (TOOL, ProviderToolSpec(name="clock", deferred=True))
    sent = body([Message.user("x")], tools=tools, tool_search=True)["tools"]
    assert [tool.get("defer_loading") for tool in sent] == [None, True, None]
    assert sent[2] == {"type": "tool_search"}
    forced = body([Message.user("x")], tools=tools, tool_search=True, tool_choice=ToolChoice("tool", "clock"))
    assert [tool.get("defer_loading") for tool in forced["tools"]] == [None, None]


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh", "max"])
def test_serializes_all_reasoning_effort_options(effort: str) -> None:
    assert body([Message.user("x")], reasoning_effort=effort)["reasoning"] == {"effort": effort}


@pytest.mark.parametrize("id", ["ollama", "lmstudio", "llamacpp", "vllm"])
def test_local_servers_take_an_effort(id: str) -> None:
    adapter = builtin(id)
    request = Request("m", [Message.user("x")], reasoning_effort="low")
    adapter.check(request)
    sent = json.loads(adapter.body(request))
    assert (sent.get("reasoning") or {}).get("effort", sent.get("reasoning_effort")) == "low"


@pytest.mark.parametrize(
    ("model", "options", "wanted"),
    [
        ("gpt-4.1", {"reasoning_effort": "low"}, True),
        ("gpt-4.1", {"reasoning_summary": "auto"}, True),
        ("gpt-5.1-codex", {}, True),
        ("openai/o4-mini", {}, True),
        ("gpt-5", {"reasoning_effort": "low"}, True),
        ("gpt-4.1", {}, False),
        ("gpt-5-chat-latest", {}, False),
        ("openai/gpt-oss-20b", {}, False),
    ],
)
def test_reasoning_encrypted_content_include_is_added_once(model: str, options: Any, wanted: Any) -> None:
    sent = body([Message.user("x")], model, **options)
    assert sent.get("include") == (["reasoning.encrypted_content"] if wanted else None)


def test_serializes_explicit_strict_function_tool() -> None:
    tools = (TOOL, TOOL.model_copy(update={"name": "exact", "strict": True}))
    assert [tool["strict"] for tool in body([Message.user("x")], tools=tools)["tools"]] == [False, True]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("id", "options", "words"),
    [
        ("ollama", {"tool_search": True}, "ollama does not support tool_search"),
        ("llamacpp", {"tool_search": True}, "llamacpp does not support tool_search"),
        ("openai", {"tools": (TOOL.model_copy(update={"deferred": True}),)}, "OpenAI deferred tools require hosted"),
    ],
)
async def test_what_a_provider_cannot_do_is_refused_before_anything_is_sent(
    server: Server, id: str, options: Any, words: str
) -> None:
    adapter = builtin(id, "k", server.url)
    with pytest.raises(InvalidRequest, match=words):
        await collect(adapter, Request("m", [Message.user("x")], **options))
    assert not server.connections
    await adapter.aclose()


@pytest.mark.anyio
async def test_a_provider_without_images_or_tools_refuses_them() -> None:
    blind = ProviderCapabilities(supports_tool_calls=False)
    adapter = ResponsesProvider("x", "http://h", capabilities=blind).with_transport(Bytes(sse(*TEXT)))
    picture = Image(data="AA")
    shown = [
        Message.assistant([ToolUse(id="c", name="t")]),
        Message.user([ToolResult(tool_use_id="c", images=(picture,))]),
    ]
    for refused in (
        Request("m", [Message.user([picture])]),
        Request("m", shown),
        Request("m", [], tools=(TOOL,)),
        Request("m", [], response_format=ResponseFormat("a", WEATHER)),
    ):
        with pytest.raises(UnsupportedCapability, match="x does not support"):
            await collect(adapter, refused)
    assert await collect(adapter, REQUEST)


def test_images_may_be_part_of_a_result() -> None:
    image = Image.from_bytes("image/png", b"\x01\x02\x03")
    uses = [ToolUse(id="c", name="plot"), ToolUse(id="d", name="plot")]
    results = [
        ToolResult(tool_use_id="c", content="drawn", images=(image,)),
        ToolResult(tool_use_id="d", images=(image, Image(url="https://x/y.png")), is_error=True),
    ]
    first, second = body([Message.assistant(uses), Message.user(results)])["input"][2:]
    picture = {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,AQID"}
    assert first["output"] == [{"type": "input_text", "text": "drawn"}, picture]
    assert second["output"] == [
        {"type": "input_text", "text": "Tool error: "},
        picture,
        {"type": "input_image", "detail": "auto", "image_url": "https://x/y.png"},
    ]


def test_replays_reasoning_and_paired_function_ids_for_exact_provider_and_model() -> None:
    def items(**of: Any) -> Any:
        thought = Thinking(id="rs", encrypted="enc", text="hm", **of)
        use = ToolUse(id="c", name="weather", item_id="fc")
        sent = body([Message.assistant([thought, use]), Message.user([ToolResult(tool_use_id="c")])])["input"]
        return sent[:-1]

    reasoning, same = items(provider="openai", model="m")
    summary = [{"type": "summary_text", "text": "hm"}]
    assert reasoning == {"type": "reasoning", "id": "rs", "encrypted_content": "enc", "summary": summary}
    assert same["id"] == "fc"
    for of in ({"provider": "openai", "model": "n"}, {"provider": "other", "model": "m"}, {}):
        (only,) = items(**of)
        assert "id" not in only


def test_each_message_is_encoded_once_for_a_provider_and_model() -> None:
    message = Message.user("x")
    adapter = ResponsesProvider("openai", "http://h")
    adapter.body(Request("m", [message]))
    wire = message.last_wire
    form = message.form(wire)
    assert form is not None
    adapter.body(Request("m", [message]))
    assert message.last_wire == wire
    assert message.form(wire) is form


def test_images_outside_user_messages_are_refused_and_broken_unicode_is_not() -> None:
    with pytest.raises(InvalidRequest, match="only supported in user messages"):
        body([Message.assistant([Image(url="u")])])
    assert body([Message.user("a\ud800b")])["input"][0]["content"][0]["text"] == "a?b"


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Histories as an agent keeps them: each call has its result in the next message, user messages may repeat."""
    messages, number = [], 0
    text = st.text(st.characters(codec="utf-8"), max_size=8)
    for _ in range(draw(st.integers(1, 4))):
        messages += [Message.user(words) for words in draw(st.lists(text, min_size=1, max_size=2))]
        count = draw(st.integers(0, 3))
        uses = []
        for _ in range(count):
            number += 1
            error = draw(st.sampled_from([None, "bad"]))
            uses.append(ToolUse(id=f"c{number}", name="t", input={} if error else {"x": draw(text)}, error=error))
        said = [Text(text=draw(text))] if draw(st.booleans()) else []
        messages.append(Message.assistant([Thinking(text="hm"), *said, *uses]))
        if uses:
            results = [ToolResult(tool_use_id=use.id, content=draw(text), is_error=bool(use.error)) for use in uses]
            messages.append(Message.user([*([Text(text="also")] if draw(st.booleans()) else []), *reversed(results)]))
    return messages


@settings(max_examples=80, deadline=None)
@given(conversations(), st.booleans())
def test_any_history_makes_a_body_every_api_accepts(messages: Any, system: str | None) -> None:
    request = Request("m", messages, system="s" if system else None, tools=(TOOL,))
    check_responses(json.loads(ResponsesProvider("a", "http://h").body(request)))
    check_chat(json.loads(ChatCompletionsProvider("a", "http://h").body(request)))
    check_anthropic(json.loads(AnthropicProvider("a", "http://h").body(request)))
    check_gemini(json.loads(GeminiProvider("a", "http://h").body(request)))


# ---- what comes back


@pytest.mark.anyio
async def test_parses_final_usage_from_completed_response() -> None:
    events = await ask(*TEXT)
    assert events[0] == MessageStarted("r1", "m-1")
    assert blocks(events) == [("text", None, None, "Grüße 🌍")]
    assert ending(events).stop_reason == "end"
    assert ending(events).usage == TokenUsage(
        input_tokens=328,
        output_tokens=52,
        total_tokens=380,
        cache_read_input_tokens=12,
        cache_creation_input_tokens=5,
        reasoning_tokens=7,
    )


@pytest.mark.anyio
async def test_any_cut_gives_the_same_events_and_any_early_end_is_truncated() -> None:
    stream = sse(*TEXT, newline="\r\n")
    whole = await ask(*TEXT)
    adapter = ResponsesProvider("openai", "http://h")
    terminal = stream.index(b'data: {"type": "response.completed"')
    for at in range(len(stream)):
        assert await collect(adapter.with_transport(Bytes(stream[:at], stream[at:])), REQUEST) == whole
        if at <= terminal + 40:
            with pytest.raises(StreamTruncated):
                await collect(adapter.with_transport(Bytes(stream[:at])), REQUEST)


@pytest.mark.anyio
async def test_parallel_calls_interleave_and_keep_their_item_ids() -> None:
    events = await ask(
        CREATED,
        added(0, call("a")),
        added(1, call("b")),
        delta("function_call_arguments", 1, '{"city":'),
        delta("function_call_arguments", 0, "{}"),
        delta("function_call_arguments", 1, '"Oslo"}'),
        done(1, call("b", arguments='{"city":"Oslo"}')),
        done(0, call("a", arguments="{}")),
        completed(),
    )
    assert blocks(events) == [("tool_use", "a", "weather", "{}"), ("tool_use", "b", "weather", '{"city":"Oslo"}')]
    assert [event.item_id for event in events if isinstance(event, ContentBlockStarted)] == ["fc_a", "fc_b"]
    assert ending(events).stop_reason == "tool_use"


@pytest.mark.anyio
async def test_without_output_index_items_go_by_their_id() -> None:
    events = await ask(
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.output_item.added", "item": call("a")},
        {"type": "response.function_call_arguments.delta", "item_id": "fc_a", "delta": "{}"},
        {"type": "response.output_item.added", "item": {"type": "message", "id": "m1"}},
        {"type": "response.output_text.delta", "item_id": "m1", "delta": "ok"},
        {"type": "response.output_item.done", "item": call("a", arguments="{}")},
        {"type": "response.output_item.done", "item": {"type": "message", "id": "m1"}},
        completed(),
    )
    assert events[0] == MessageStarted("r", "m")
    assert blocks(events) == [("tool_use", "a", "weather", "{}"), ("text", None, None, "ok")]


@pytest.mark.anyio
async def test_falls_back_to_completed_message_text_when_no_text_delta_arrives() -> None:
    message = {"type": "message", "id": "x", "content": [{"type": "output_text", "text": "late"}]}
    assert blocks(await ask(CREATED, done(0, call("a", arguments={"city": "Rome"})), completed())) == [
        ("tool_use", "a", "weather", '{"city":"Rome"}')
    ]
    assert blocks(await ask(CREATED, done(0, message), completed())) == [("text", None, None, "late")]
    assert blocks(await ask(completed(output=[message]))) == [("text", None, None, "late")]


@pytest.mark.anyio
async def test_repeated_indices_and_ids_lose_nothing() -> None:
    events = await ask(
        CREATED,
        added(0, call("same")),
        delta("function_call_arguments", 0, '{"city":"A"}'),
        added(0, call("same")),
        delta("function_call_arguments", 0, '{"city":"B"}'),
        done(0, call("same")),
        added(1, {"type": "function_call", "id": "i", "name": "weather"}),
        completed(),
    )
    first, second, third = blocks(events)
    assert first == ("tool_use", "same", "weather", '{"city":"A"}')
    assert second == ("tool_use", "same-2", "weather", '{"city":"B"}')
    assert third[1].startswith("call-")
    assert third[3] == ""


@pytest.mark.anyio
async def test_completed_response_backfills_late_azure_encrypted_content() -> None:
    reasoning = [
        CREATED,
        added(0, {"type": "reasoning", "id": "rs"}),
        delta("reasoning_summary_text", 0, "First."),
        {"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 1},
        delta("reasoning_summary_text", 0, "Then."),
    ]
    early = await ask(*reasoning, done(0, {"type": "reasoning", "id": "rs", "encrypted_content": "e"}), completed())
    late = await ask(
        *reasoning,
        done(0, {"type": "reasoning", "id": "rs"}),
        completed(output=[{"type": "reasoning", "id": "rs", "encrypted_content": "e"}]),
        request=EFFORT,
    )
    for events in (early, late):
        assert blocks(events) == [("thinking", "rs", None, "First.\n\nThen.")]
        assert ContentBlockStopped(0, encrypted="e") in events


@pytest.mark.anyio
async def test_completed_response_does_not_replace_output_item_encrypted_content() -> None:
    whole = {"type": "reasoning", "id": "rs", "encrypted_content": "e", "summary": [{"text": "hm"}]}
    late = completed(output=[whole | {"encrypted_content": "later"}])
    events = await ask(CREATED, added(0, {"type": "reasoning", "id": "rs"}), done(0, whole), done(0, whole), late)
    assert blocks(events) == [("thinking", "rs", None, "hm")]
    assert [event.encrypted for event in events if isinstance(event, ContentBlockStopped)] == ["e"]


@pytest.mark.anyio
async def test_what_openrouter_adds_to_reasoning_goes_back_to_it() -> None:
    said = {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    said |= {"signature": "sig", "format": "anthropic-claude-v1"}
    events = await ask(CREATED, done(0, said), done(1, call("c", arguments="{}")), completed(), request=EFFORT)
    pending = PendingMessage("agent", "openai", "m")
    for event in events:
        pending.apply(event)
    answered = [pending.message(), Message.user([ToolResult(tool_use_id="c")])]
    assert body(answered)["input"][0] == said
    assert body(answered, model="other")["input"][0]["type"] == "function_call"


@pytest.mark.anyio
async def test_preserves_hosted_actions_in_responses_history_replay() -> None:
    search = {"type": "tool_search_call", "id": "ts", "execution": "server", "arguments": {"q": "x"}}
    found = {"type": "tool_search_output", "id": "to", "execution": "server", "tools": [{"name": "clock"}]}
    item = {"type": "message", "id": "x"}
    events = await ask(
        CREATED,
        added(0, search | {"arguments": {}}),
        done(0, search),
        added(1, found),
        done(1, found),
        added(2, item),
        delta("output_text", 2, "ok"),
        done(2, item),
        added(3, {"type": "tool_search_call", "id": "cut off"}),
        completed(),
    )
    pending = PendingMessage("agent", "openai", "m")
    for event in events:
        pending.apply(event)
    sent = body([pending.message()])["input"]
    assert sent[:2] == [search, found]
    assert [item["type"] for item in sent[2:]] == ["message"]
    assert len(body([pending.message()], model="other")["input"]) == 1


def test_reasoning_is_left_out_unless_an_item_of_its_answer_follows() -> None:
    thought = Thinking(id="rs_1", encrypted="E", provider="openai", model="m")
    for thoughts in ([thought], [thought, thought.model_copy(update={"id": "rs_2"}), Text(text="")]):
        cut_off = [Message.user("q1"), Message.assistant(thoughts), Message.user("q2")]
        assert [item["type"] for item in body(cut_off)["input"]] == ["message", "message"]
    followed = [Message.user("q1"), Message.assistant([thought, Text(text="a"), thought]), Message.user("q2")]
    assert [item["type"] for item in body(followed)["input"]] == ["message", "reasoning", "message", "message"]


@pytest.mark.anyio
async def test_the_phase_of_a_message_goes_back_with_it() -> None:
    commentary = {"type": "message", "id": "x", "phase": "commentary"}
    final = {"type": "message", "id": "y"}
    events = await ask(
        CREATED,
        added(0, commentary),
        delta("output_text", 0, "Looking."),
        done(0, {"type": "message", "id": "x"}),
        added(1, final),
        delta("output_text", 1, "4"),
        done(1, final | {"phase": "final_answer"}),
        completed(),
    )
    pending = PendingMessage("agent", "openai", "m")
    for event in events:
        pending.apply(event)
    kept = Message.model_validate_json(pending.message().model_dump_json())
    assert [(item["phase"], item["content"]) for item in body([kept])["input"]] == [
        ("commentary", "Looking."),
        ("final_answer", "4"),
    ]
    assert "phase" not in Text(text="a").model_dump()


@pytest.mark.anyio
async def test_a_refusal_is_text_with_its_own_stop_reason() -> None:
    item = {"type": "message", "id": "x"}
    spoken = await ask(CREATED, added(0, item), delta("refusal", 0, "I won't."), done(0, item), completed())
    whole = {"type": "message", "content": [{"type": "refusal", "refusal": "I won't."}]}
    for events in (spoken, await ask(CREATED, done(0, whole), completed())):
        assert blocks(events) == [("text", None, None, "I won't.")]
        assert ending(events).stop_reason == "refusal"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("reason", "stop"), [("max_output_tokens", "max_tokens"), ("content_filter", "content_filter"), ("odd", "odd")]
)
async def test_an_incomplete_answer_closes_its_blocks(reason: str, stop: str) -> None:
    end = {"status": "incomplete", "incomplete_details": {"reason": reason}}
    events = await ask(
        CREATED,
        added(0, call("a")),
        delta("function_call_arguments", 0, '{"ci'),
        {"type": "response.incomplete", "response": end},
    )
    assert blocks(events) == [("tool_use", "a", "weather", '{"ci')]
    assert ending(events).stop_reason == stop


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("frame", "kind", "words"),
    [
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slow", "param": None}, RetryableError, "slow"),
        ({"type": "error", "error": {"code": "server_error", "message": "oops"}}, RetryableError, "oops"),
        ({"type": "error", "code": "invalid_prompt", "message": "no"}, ProviderError, "no .invalid_prompt"),
        ({"error": {"code": 503, "message": "loading"}}, RetryableError, "loading"),
        (
            {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "x"}}},
            RetryableError,
            "x",
        ),
        ({"type": "response.failed", "response": {"id": "r", "error": None}}, ProviderError, "no details"),
        (completed(status="failed", error={"message": "late"}), ProviderError, "late"),
        (delta("function_call_arguments", 3, "{}"), MalformedStream, "output 3"),
        (delta("output_text", 7, "x", item_id="fc_a"), MalformedStream, "a text delta for a tool_use item"),
        ({"type": "response.output_item.added", "output_index": 0}, MalformedStream, "without its item"),
    ],
)
async def test_errors_inside_the_stream_have_the_providers_message(
    frame: Frame, kind: type[ProviderError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        await ask(CREATED, added(0, call("a")), frame)
    assert caught.value.is_transient is (kind is RetryableError)


@pytest.mark.anyio
async def test_frames_that_are_not_objects_are_malformed() -> None:
    for frame in (b"data: [1]\n\ndata: {}\n\n", b"data: {nope\n\ndata: {}\n\n"):
        with pytest.raises(MalformedStream) as caught:
            await collect(ResponsesProvider("x", "http://h").with_transport(Bytes(frame, b"data: {}\n\n")), REQUEST)
        assert not isinstance(caught.value, StreamTruncated)


@pytest.mark.anyio
async def test_unknown_items_are_ignored() -> None:
    search = {"type": "web_search_call", "id": "ws"}
    item = {"type": "message", "id": "x"}
    events = await ask(
        CREATED, added(0, search), done(0, search), added(1, item), delta("output_text", 1, "a"), completed()
    )
    assert blocks(events) == [("text", None, None, "a")]


@pytest.mark.anyio
async def test_converts_model_list_page_into_model_info(server: Server) -> None:
    entries = [
        {"id": "a", "created": 1741049700, "owned_by": "openai"},
        {"id": "b", "name": "Bee", "description": "buzz", "created": "?", "context_length": 4096},
        {"id": "c", "meta": {"n_ctx": 8192}, "max_model_len": None},
    ]
    headers = {"content-type": "application/json"}
    server.reply(Reply([json.dumps({"data": entries}).encode()], headers=headers))
    local = builtin("ollama", base_url=server.url)
    first, second, third = await local.list_models()
    assert server.requests[0].path == "/v1/models"
    assert "authorization" not in server.requests[0].headers
    assert (first.created_at, first.description) == (datetime(2025, 3, 4, 0, 55, tzinfo=UTC), "Owned by openai")
    assert (second.display_name, second.description, second.created_at) == ("Bee", "buzz", None)
    assert (second.context_window, third.context_window) == (4096, 8192)
    assert str(first) == "ollama/a"
    await local.aclose()


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://api.openai.com", "https://api.openai.com/v1/responses"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/responses"),
        ("https://h/v1beta/openai", "https://h/v1beta/openai/responses"),
        ("https://h/openai/v1?api-version=2026", "https://h/openai/v1/responses?api-version=2026"),
        ("https://h/openai/deployments/gpt?api-version=1", "https://h/openai/deployments/gpt/responses?api-version=1"),
        ("https://h/proxy/", "https://h/proxy/responses"),
        ("https://h/v1/chat/completions", "https://h/v1/responses"),
        ("https://h/v1/responses?a=b", "https://h/v1/responses?a=b"),
        ("https://h/api/messages/", "https://h/api/responses"),
    ],
)
def test_addresses_are_used_as_given_with_a_version_if_they_have_no_path(base: str, url: str) -> None:
    assert ResponsesProvider("x", base).url("responses") == url
