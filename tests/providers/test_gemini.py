"""The Gemini wire: what is sent, and what is made of every kind of answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kits.http_server import Reply, Server, sse
from kits.validate import check_gemini
from kits.wires import WEATHER, Bytes, Frame, blocks, collect, ending, fold

from mentra_nb.content import Image, Message, Opaque, Text, Thinking, TokenUsage, ToolResult, ToolUse
from mentra_nb.errors import HttpError, InvalidRequest, MalformedStream, ProviderError, RetryableError, StreamTruncated
from mentra_nb.errors import UnsupportedCapability as Unsupported
from mentra_nb.providers.base import (
    MessageStarted,
    ProviderEvent,
    ProviderToolSpec,
    Request,
    ResponseFormat,
    ToolChoice,
)
from mentra_nb.providers.gemini import FOREIGN_SIGNATURE, GeminiProvider
from mentra_nb.providers.registry import builtin
from mentra_nb.providers.replay import replay_provider, taping

FLASH, PRO = "gemini-2.5-flash", "gemini-3-pro-preview"
REQUEST = Request(PRO, [Message.user("hi")])
TOOL = ProviderToolSpec(name="weather", description="Weather of a city", input_schema=WEATHER)
COUNTS = {"usageMetadata": {"promptTokenCount": 4}}
JSON = {"content-type": "application/json"}


def chunk(*parts: Any, finish: str | None = None, **extra: Any) -> Frame:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    ended = {"finishReason": finish, "finishMessage": "why"} if finish else {}
    return {"candidates": [candidate | ended], "responseId": "r1", "modelVersion": "gemini-x"} | extra


def call(name: str = "weather", signature: str | None = None, **fields: Any) -> Frame:
    return {"functionCall": {"name": name, **fields}} | ({"thoughtSignature": signature} if signature else {})


STOP = chunk(finish="STOP", **COUNTS)


def provider(id: str = "gemini") -> GeminiProvider:
    return GeminiProvider(id, "http://h/v1beta")


async def ask(*frames: Any) -> list[ProviderEvent]:
    return await collect(provider().with_transport(Bytes(sse(*frames))), REQUEST)


def folded(events: list[ProviderEvent], model: str = PRO) -> Message:
    return fold(events, "gemini", model)


def body(messages: list[Message], model: str = PRO, **options: Any) -> Frame:
    sent: Frame = json.loads(provider().body(Request(model, messages, **options)))
    check_gemini(sent)
    return sent


def parts(*content: Any, model: str = PRO) -> list[Frame]:
    """Return the parts of an assistant message with these blocks, whose calls have results."""
    message = Message.assistant(content)
    results = [ToolResult(tool_use_id=use.id) for use in message.tool_uses()]
    return body([message, Message.user(results)], model)["contents"][0]["parts"]


# ---- what is sent


def test_converts_request_to_gemini_payload() -> None:
    sent = body(
        [
            Message.user([Text(text="a"), Image.from_bytes("image/png", b"\x01\x02\x03")]),
            Message.assistant([Text(text="Let me look."), ToolUse(id="c1", name="weather", input={"city": "Köln"})]),
            Message.user([Text(text="and?"), ToolResult(tool_use_id="c1", content={"t": 21})]),
            Message.user("more"),
            Message.assistant([]),
        ],
        FLASH,
        system="Be terse.",
        tools=(TOOL,),
        tool_choice=ToolChoice("tool", "weather"),
        temperature=0.5,
        max_output_tokens=9,
        metadata={"k": "v"},
    )
    declaration = {"name": "weather", "description": "Weather of a city", "parametersJsonSchema": WEATHER}
    assert sent == {
        "systemInstruction": {"parts": [{"text": "Be terse."}]},
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
        "generationConfig": {"temperature": 0.5, "maxOutputTokens": 9},
        "tools": [{"functionDeclarations": [declaration]}],
        "contents": [
            {"role": "user", "parts": [{"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": "AQID"}}]},
            {
                "role": "model",
                "parts": [{"text": "Let me look."}, {"functionCall": {"name": "weather", "args": {"city": "Köln"}}}],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "weather", "response": {"output": {"t": 21}}}},
                    {"text": "and?"},
                    {"text": "more"},
                ],
            },
        ],
    }


@pytest.mark.parametrize("mode", ["auto", "any", "none"])
def test_serializes_tool_choice_modes(mode: Any) -> None:
    sent = body([Message.user("x")], tools=(TOOL,), tool_choice=ToolChoice(mode))
    assert sent["toolConfig"] == {"functionCallingConfig": {"mode": mode.upper()}}
    assert "toolConfig" not in body([Message.user("x")], tool_choice=ToolChoice(mode))


def test_native_call_ids_come_back_with_call_and_response() -> None:
    use = ToolUse(id="n-2", name="weather", item_id="n")
    sent = body([Message.assistant([use]), Message.user([ToolResult(tool_use_id="n-2", content="no", is_error=True)])])
    assert sent["contents"][0]["parts"][0]["functionCall"]["id"] == "n"
    response = sent["contents"][1]["parts"][0]["functionResponse"]
    assert response == {"id": "n", "name": "weather", "response": {"error": "no"}}


def test_a_signature_goes_back_on_its_own_part_to_the_same_provider_and_model_only() -> None:
    ours = {"provider": "gemini", "model": PRO}
    use, other = ToolUse(id="a", name="weather"), ToolUse(id="b", name="weather")
    opaque = Opaque(data='{"executableCode":{"code":"1"}}', **ours)
    thought = Thinking(text="hm", signature="t", **ours)
    assert parts(thought, opaque, Thinking(signature="s", **ours), use, other) == [
        {"text": "hm", "thought": True, "thoughtSignature": "t"},
        {"executableCode": {"code": "1"}},
        {"functionCall": {"name": "weather", "args": {}}, "thoughtSignature": "s"},
        {"functionCall": {"name": "weather", "args": {}}},
    ]
    assert parts(Thinking(signature="s", **ours), Text(text="x")) == [{"text": "x", "thoughtSignature": "s"}]
    foreign = [Thinking(text="hm", signature="s", provider="gemini", model=FLASH), opaque]
    assert [part.get("thoughtSignature") for part in parts(*foreign[:1], use, other)] == [FOREIGN_SIGNATURE, None]
    assert parts(*foreign, use, model=FLASH)[-1].get("thoughtSignature") is None
    assert len(parts(opaque, use, model=FLASH)) == 1


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        (PRO, "low", {"thinkingLevel": "low", "includeThoughts": True}),
        ("gemini-9-flash", "minimal", {"thinkingLevel": "minimal", "includeThoughts": True}),
        (FLASH, "high", {"thinkingBudget": 24576, "includeThoughts": True}),
        (FLASH, "none", {"thinkingBudget": 0, "includeThoughts": False}),
    ],
)
def test_serializes_reasoning_effort_for_gemini_3_models(model: str, effort: str, config: Any) -> None:
    assert body([Message.user("x")], model, reasoning_effort=effort)["generationConfig"] == {"thinkingConfig": config}
    assert "generationConfig" not in body([Message.user("x")], model)


def test_structured_output_is_a_schema_beside_the_other_options() -> None:
    sent = body([Message.user("x")], temperature=0, response_format=ResponseFormat("answer", WEATHER))
    assert sent["generationConfig"] == {
        "temperature": 0,
        "responseMimeType": "application/json",
        "responseJsonSchema": WEATHER,
    }


ANSWERED = Message.assistant([ToolUse(id="c", name="plot")])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("request_", "kind", "words"),
    [
        (Request("gemini-2.0-flash", [], reasoning_effort="low"), Unsupported, "gemini.*reasoning_effort 'low'"),
        (Request(PRO, [], reasoning_effort="max"), Unsupported, "reasoning_effort 'max'"),
        (Request(PRO, [], tool_search=True), Unsupported, "tool_search"),
        (Request(PRO, [], tools=(TOOL,), parallel_tool_calls=False), Unsupported, "parallel_tool_calls"),
        (Request(PRO, [], prompt_cache_key="k"), Unsupported, "prompt_cache_key"),
        (
            Request(PRO, [], tools=(TOOL.model_copy(update={"deferred": True}),)),
            InvalidRequest,
            "deferred tools require hosted tool search",
        ),
        (Request(PRO, [Message.user([Image(url="https://x/y.png")])]), Unsupported, "gemini .*images by URL"),
        (Request("gemini-1.5-pro", [], reasoning_summary="auto"), Unsupported, "reasoning_summary with gemini-1.5"),
        (Request(PRO, [Message.assistant([Image(data="AA")])]), InvalidRequest, "only supported in user messages"),
        (
            Request(FLASH, [ANSWERED, Message.user([ToolResult(tool_use_id="c", images=(Image(data="AA"),))])]),
            Unsupported,
            "gemini does not support images in tool results with gemini-2.5-flash",
        ),
        (Request(PRO, [Message.user([ToolResult(tool_use_id="gone")])]), InvalidRequest, "gemini .*gone belongs to no"),
    ],
)
async def test_an_option_the_api_does_not_have_is_refused_before_sending(
    server: Server, request_: Request, kind: type[ProviderError], words: str
) -> None:
    adapter = GeminiProvider("gemini", server.url)
    with pytest.raises(kind, match=words):
        await collect(adapter, request_)
    assert not server.connections
    await adapter.aclose()


def test_images_may_be_part_of_a_result() -> None:
    image = Image.from_bytes("image/png", b"\x01\x02\x03")
    results = [ToolResult(tool_use_id="c", content="drawn", images=(image,), is_error=True)]
    (part,) = body([ANSWERED, Message.user(results)])["contents"][1]["parts"]
    assert part["functionResponse"] == {
        "name": "plot",
        "response": {"error": "drawn"},
        "parts": [{"inlineData": {"mimeType": "image/png", "data": "AQID"}}],
    }


def test_reasoning_to_read_can_be_asked_for_without_an_effort() -> None:
    sent = body([Message.user("x")], temperature=0, reasoning_summary="auto")
    assert sent["generationConfig"] == {"temperature": 0, "thinkingConfig": {"includeThoughts": True}}


def test_files_of_the_api_itself_are_sent_by_address() -> None:
    url = "https://generativelanguage.googleapis.com/v1beta/files/abc"
    sent = body([Message.user([Image(url=url)])])
    assert sent["contents"][0]["parts"] == [{"fileData": {"fileUri": url}}]


# ---- what comes back


@pytest.mark.anyio
async def test_emits_usage_metadata_updates_and_final_usage() -> None:
    counts = {
        "promptTokenCount": 10,
        "candidatesTokenCount": 5,
        "totalTokenCount": 22,
        "cachedContentTokenCount": 3,
        "thoughtsTokenCount": 7,
        "toolUsePromptTokenCount": 2,
    }
    events = await ask(
        chunk({"text": "hm", "thought": True}, usageMetadata={"promptTokenCount": 10}),
        chunk({"text": "ha"}),
        chunk({"text": "ha"}, {"text": "!"}),
        chunk({"text": ""}, finish="STOP", usageMetadata=counts, newField={"x": 1}),
    )
    assert events[0] == MessageStarted("r1", "gemini-x")
    assert blocks(events) == [("thinking", None, None, "hm"), ("text", None, None, "haha!")]
    assert ending(events).stop_reason == "end"
    assert ending(events).usage == TokenUsage(
        input_tokens=10,
        output_tokens=5,
        total_tokens=22,
        cache_read_input_tokens=3,
        thoughts_tokens=7,
        tool_input_tokens=2,
    )


@pytest.mark.anyio
async def test_streams_function_calls() -> None:
    events = await ask(chunk({"text": "ok"}), chunk(call(args={"city": "A"})), chunk(call("clock")), STOP)
    text, first, second = blocks(events)
    assert text == ("text", None, None, "ok")
    assert (first[2], first[3], second[2], second[3]) == ("weather", '{"city":"A"}', "clock", "")
    assert first[1] != second[1]
    assert ending(events).stop_reason == "tool_use"
    assert folded(events).tool_uses()[1].input == {}


@pytest.mark.anyio
@pytest.mark.parametrize("arguments", [[1], "x", 7])
async def test_arguments_that_are_not_an_object_make_a_call_with_an_error(arguments: Any) -> None:
    broken, whole = folded(await ask(chunk(call(args=arguments)), chunk(call(args=None)), STOP)).tool_uses()
    assert broken.error
    assert broken.input == whole.input == {}
    assert whole.error is None


@pytest.mark.anyio
async def test_ignores_duplicate_full_function_call_payloads() -> None:
    again = chunk(call(id="n", args={"city": "A"}))
    events = await ask(again, again, chunk(call(id="n", args={"city": "B"})), STOP)
    assert [(use.id, use.item_id, use.input["city"]) for use in folded(events).tool_uses()] == [
        ("n", "n", "A"),
        ("n-2", "n", "B"),
    ]


@pytest.mark.anyio
async def test_signatures_survive_the_way_there_and_back() -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "d"}
    sent = [
        {"text": "hm", "thought": True, "thoughtSignature": "a"},
        {"text": "let me", "thoughtSignature": "b"},
        code,
        call(args={"city": "A"}, signature="c"),
        call(args={"city": "B"}),
        {"text": "", "thoughtSignature": "e"},
    ]
    events = await ask(*(chunk(part) for part in sent), STOP)
    again = parts(*folded(events).content)
    for part in sent:
        if "functionCall" in part:
            assert part in again
    assert [part.get("thoughtSignature") for part in again] == ["a", "b", "d", "c", None, "e"]
    assert again[2] == code
    assert again[5] == {"text": "", "thoughtSignature": "e"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("STOP", "end"),
        ("MAX_TOKENS", "max_tokens"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("LANGUAGE", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("IMAGE_PROHIBITED_CONTENT", "content_filter"),
        ("IMAGE_RECITATION", "content_filter"),
        ("UNEXPECTED_TOOL_CALL", "error"),
        ("TOO_MANY_TOOL_CALLS", "error"),
        ("MISSING_THOUGHT_SIGNATURE", "error"),
        ("MALFORMED_RESPONSE", "error"),
        ("IMAGE_OTHER", "unknown"),
        ("NO_IMAGE", "unknown"),
        ("OTHER", "unknown"),
        ("ODD", "ODD"),
    ],
)
async def test_stop_reasons_are_neutral(reason: str, stop: str) -> None:
    assert ending(await ask(chunk({"text": "x"}, finish=reason, **COUNTS))).stop_reason == stop


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("blocked", "stop"), [("SAFETY", "content_filter"), ("PROHIBITED_CONTENT", "content_filter"), ("OTHER", "refusal")]
)
async def test_treats_prompt_feedback_only_chunks_as_terminal(blocked: str, stop: str) -> None:
    feedback = {"blockReason": blocked, "blockReasonMessage": "not\nthis"}
    events = await ask({"promptFeedback": feedback, **COUNTS})
    assert blocks(events) == []
    assert (ending(events).stop_reason, ending(events).detail) == (stop, f"{blocked}: not this")
    assert ending(await ask({"promptFeedback": {"blockReason": blocked}, **COUNTS})).detail == blocked


@pytest.mark.anyio
async def test_the_reason_of_a_filtered_answer_is_kept_and_that_of_a_whole_one_is_not() -> None:
    assert ending(await ask(chunk(finish="SAFETY", **COUNTS))).detail == "SAFETY: why"
    assert ending(await ask(chunk({"text": "x"}, finish="STOP", **COUNTS))).detail is None


@pytest.mark.anyio
async def test_ignores_unsupported_parts_without_breaking_indexes() -> None:
    other = {"candidates": [{"index": 1, "content": {"parts": [{"text": "no"}]}, "finishReason": "STOP"}]}
    odd = {"candidates": [None, {"content": None}, {"content": {"parts": ["x", {}]}}], "promptFeedback": {}}
    events = await ask(other, odd, chunk({"text": "yes"}, finish="FINISH_REASON_UNSPECIFIED"), STOP)
    assert blocks(events) == [("text", None, None, "yes")]


@pytest.mark.anyio
async def test_the_end_is_a_finish_reason_and_counts_may_follow_it() -> None:
    events = await ask(chunk({"text": "x"}, finish="STOP"), {"usageMetadata": {"promptTokenCount": 9}})
    assert ending(events).usage == TokenUsage(input_tokens=9)
    assert ending(await ask(chunk({"text": "x"}, finish="STOP"))).usage is None
    for frames in ([], [chunk({"text": "x"}, **COUNTS)]):
        with pytest.raises(StreamTruncated):
            await ask(*frames)


@pytest.mark.anyio
async def test_an_unreadable_call_may_be_asked_for_again() -> None:
    with pytest.raises(RetryableError, match=r"cannot be read .why"):
        await ask(chunk(finish="MALFORMED_FUNCTION_CALL", **COUNTS))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "kind", "delay"),
    [
        ({"code": 503, "status": "UNAVAILABLE", "message": "busy"}, RetryableError, None),
        ({"status": "RESOURCE_EXHAUSTED", "message": "busy", "details": [{"retryDelay": "7.5s"}]}, RetryableError, 7.5),
        ({"code": 400, "status": "INVALID_ARGUMENT", "message": "busy"}, ProviderError, None),
    ],
)
async def test_surfaces_stream_errors(error: Frame, kind: type[ProviderError], delay: float | None) -> None:
    with pytest.raises(kind, match="busy") as caught:
        await ask(chunk({"text": "x"}), {"error": error})
    assert caught.value.is_transient is (kind is RetryableError)
    assert getattr(caught.value, "delay", None) == delay


@pytest.mark.anyio
async def test_arguments_beyond_the_limit_are_malformed() -> None:
    with pytest.raises(MalformedStream, match="longer than"):
        await ask(chunk(call(args={"x": "y" * (4 << 20)})), STOP)


@pytest.mark.anyio
async def test_the_key_is_in_a_header_and_a_wait_may_be_in_the_body(server: Server) -> None:
    adapter = builtin("gemini", "g-secret", f"{server.url}/v1beta")
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}
    error = {"error": {"code": 429, "message": "quota of g-secret", "details": [{"@type": "other"}, info]}}
    server.reply(
        Reply([sse(chunk({"text": "x"}), STOP)]),
        Reply([json.dumps(error).encode()], 429, JSON),
        Reply([json.dumps([error]).encode()], headers=JSON),
    )
    await collect(adapter, Request("models/gemini-x", [Message.user("hi")]))
    with pytest.raises(HttpError) as caught:
        await collect(adapter, REQUEST)
    with pytest.raises(RetryableError, match="quota") as inside:
        await collect(adapter, REQUEST)
    first, second = server.requests[:2]
    assert first.path == "/v1beta/models/gemini-x:streamGenerateContent?alt=sse"
    assert second.path == f"/v1beta/models/{PRO}:streamGenerateContent?alt=sse"
    assert first.headers["x-goog-api-key"] == "g-secret"
    assert caught.value.retry_after == inside.value.delay == 34
    assert "g-secret" not in str(caught.value) + str(inside.value)
    await adapter.aclose()


@pytest.mark.anyio
async def test_models_that_generate_are_listed_once_page_by_page(server: Server) -> None:
    both = ["generateContent", "countTokens"]
    pages = [
        {
            "models": [
                {
                    "name": "models/gemini-a",
                    "displayName": "A",
                    "description": "d",
                    "inputTokenLimit": 1000,
                    "supportedGenerationMethods": both,
                },
                {"name": "models/embed", "supportedGenerationMethods": ["embedContent"]},
            ],
            "nextPageToken": "t/2",
        },
        {
            "models": [
                {"name": "models/gemini-a-001", "baseModelId": "gemini-a", "supportedGenerationMethods": both},
                {"name": "models/gemini-b", "supportedGenerationMethods": both},
            ]
        },
    ]
    server.reply(*(Reply([json.dumps(page).encode()], headers=JSON) for page in pages))
    adapter = GeminiProvider("mine", f"{server.url}/v1beta?x=1")
    first, second = await adapter.list_models()
    assert [request.path for request in server.requests] == [
        "/v1beta/models?x=1&pageSize=1000",
        "/v1beta/models?x=1&pageSize=1000&pageToken=t%2F2",
    ]
    assert (str(first), first.display_name, first.context_window) == ("mine/gemini-a", "A", 1000)
    assert str(second) == "mine/gemini-b"
    await adapter.aclose()


@pytest.mark.anyio
async def test_a_tape_knows_its_model_and_replays(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    adapter = taping(GeminiProvider("gemini", f"{server.url}/v1beta", api_key="g-very-secret"), path)
    request = Request(PRO, [Message.user("application/json")], response_format=ResponseFormat("a", WEATHER))
    server.reply(Reply([sse(chunk({"text": "x"}), STOP)]))
    *live, ended, stopped = await collect(adapter, request)
    await adapter.aclose()
    replay = replay_provider(path)
    assert [str(model) for model in await replay.list_models()] == [f"gemini/{PRO}"]
    free = replace(ended, usage=ended.usage.model_copy(update={"cost_usd": 0.0}))
    assert await collect(replay, request) == [*live, free, stopped]
