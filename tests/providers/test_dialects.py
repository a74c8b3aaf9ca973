"""Answers as single servers and gateways write them, which other servers never do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kits.http_server import sse
from kits.wires import Bytes, Frame, blocks, collect, ending, fold

from mentra_nb.content import Message, Opaque, Text, Thinking, TokenUsage
from mentra_nb.errors import MalformedStream, RetryableError
from mentra_nb.pricing import cost_usd
from mentra_nb.providers.anthropic import AnthropicProvider
from mentra_nb.providers.base import MessageStarted, ProviderEvent, Request
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.gemini import GeminiProvider
from mentra_nb.providers.responses import ResponsesProvider

pytestmark = pytest.mark.anyio

REQUEST = Request("m", [Message.user("hi")])
WIRES: dict[str, Any] = {
    "chat": ChatCompletionsProvider,
    "messages": AnthropicProvider,
    "responses": ResponsesProvider,
    "gemini": GeminiProvider,
}


async def ask(wire: str, *pieces: bytes) -> list[ProviderEvent]:
    return await collect(WIRES[wire]("x", "http://h").with_transport(Bytes(*pieces)), REQUEST)


def chat(finish: str | None = None, **delta: Any) -> Frame:
    return {"id": "c", "choices": [{"delta": delta, "finish_reason": finish}]}


def start(id: str = "a", **message: Any) -> Frame:
    return {"type": "message_start", "message": {"id": id, "model": "m", **message}}


def begin(**block: Any) -> Frame:
    return {"type": "content_block_start", "index": 0, "content_block": block}


def delta(**change: Any) -> Frame:
    return {"type": "content_block_delta", "index": 0, "delta": change}


def end(reason: str = "end_turn", **usage: int) -> list[Frame]:
    changed = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}
    return [{"type": "content_block_stop", "index": 0}, changed, {"type": "message_stop"}]


# ---- Chat Completions


async def test_content_may_be_a_list_of_thinking_and_text_which_goes_back_as_such() -> None:
    frames = sse(
        chat(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "h"}]}]),
        chat(content=[{"type": "thinking", "thinking": "m"}, {"type": "reference", "reference_ids": [1]}]),
        chat(content=[{"type": "text", "text": "4"}]),
        chat("stop", content=""),
    )
    answer = fold(await ask("chat", frames))
    assert [block.text for block in answer.content if isinstance(block, Thinking)] == ["hm"]
    assert answer.text() == "4"
    adapter = ChatCompletionsProvider("x", "http://h")
    back = json.loads(adapter.body(Request("m", [answer])))["messages"][0]["content"]
    assert back == [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "4"}]
    assert json.loads(adapter.body(Request("other", [answer])))["messages"][0]["content"] == "4"


async def test_content_may_be_a_list_of_text_only() -> None:
    parts: list[Any] = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, "c"]
    frames = sse(chat(content=parts[:1]), chat("stop", content=parts[1:]))
    assert fold(await ask("chat", frames)).content == (Text(text="abc"),)


async def test_another_name_at_the_same_index_and_id_is_another_call() -> None:
    calls = [
        {"index": 0, "id": "x", "function": {"name": name, "arguments": arguments}}
        for name, arguments in [("a", '{"n":'), ("a", "1}"), ("b", '{"n":2}')]
    ]
    events = await ask("chat", sse(*(chat(tool_calls=[call]) for call in calls), chat("tool_calls")))
    assert [(use.id, use.name, use.input) for use in fold(events).tool_uses()] == [
        ("x", "a", {"n": 1}),
        ("x-2", "b", {"n": 2}),
    ]


async def test_a_first_chunk_without_id_and_model_does_not_start_the_answer() -> None:
    first = {"id": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    events = await ask("chat", sse(first, chat("stop", content="hi") | {"model": "gpt-real"}))
    assert events[0] == MessageStarted("c", "gpt-real")


async def test_reasoning_counted_beside_the_completion_is_output() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115}
    beside = {**usage, "completion_tokens_details": {"reasoning_tokens": 100}}
    counted = ending(await ask("chat", sse(chat("stop", content="4"), {"choices": [], "usage": beside}))).usage
    assert counted is not None
    assert (counted.input_tokens, counted.output_tokens, counted.reasoning_tokens) == (10, 105, 100)
    within = beside | {"total_tokens": 15}
    counted = ending(await ask("chat", sse(chat("stop", content="4"), {"choices": [], "usage": within}))).usage
    assert counted is not None
    assert counted.output_tokens == 5


@pytest.mark.parametrize(
    ("members", "cost"),
    [
        ({"cost": 0.012}, 0.012),
        ({"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}}, 0.021),
        ({"cost": 0.012, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.02}}, 0.012),
        ({"cost": "free"}, None),
        ({"cost": -1}, None),
        ({}, None),
    ],
)
async def test_a_cost_that_the_server_reports_is_the_cost(members: Frame, cost: float | None) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, **members}
    counted = ending(await ask("chat", sse(chat("stop", content="4"), {"choices": [], "usage": usage}))).usage
    assert counted is not None
    assert counted.cost_usd == (cost and pytest.approx(cost))
    assert cost_usd("nobody", "nothing", counted) == counted.cost_usd
    assert ("cost_usd" in counted.model_dump()) is (cost is not None)


def test_costs_add_up_only_if_all_are_known() -> None:
    known, unknown = TokenUsage(input_tokens=1, cost_usd=0.5), TokenUsage(input_tokens=1)
    assert (known + known).cost_usd == 1.0
    assert (known + TokenUsage()).cost_usd == (TokenUsage() + known).cost_usd == 0.5
    assert (known + unknown).cost_usd is None


# ---- Messages


async def test_a_second_message_inside_an_open_one_is_an_error() -> None:
    half = [start("a"), begin(type="text"), delta(type="text_delta", text="half an ans")]
    with pytest.raises(MalformedStream, match="second message, b"):
        await ask("messages", sse(*half, start("b"), begin(type="text"), *end()))
    again = sse(*half, start("a"), delta(type="text_delta", text="wer"), *end())
    assert fold(await ask("messages", again)).text() == "half an answer"


async def test_a_second_response_inside_an_open_one_is_an_error() -> None:
    def created(id: str) -> Frame:
        return {"type": "response.created", "response": {"id": id}}

    half = {"type": "response.output_text.delta", "output_index": 0, "item_id": "m", "delta": "half an ans"}
    done = {"type": "response.completed", "response": {"id": "a", "status": "completed"}}
    with pytest.raises(MalformedStream, match="second response, b"):
        await ask("responses", sse(created("a"), half, created("b"), half, done))
    assert fold(await ask("responses", sse(created("a"), created("a"), half, done))).text() == "half an ans"


@pytest.mark.parametrize(
    ("wire", "opening", "piece"),
    [
        (
            "messages",
            [start(), begin(type="thinking", thinking="")],
            delta(type="signature_delta", signature="s" * (1 << 20)),
        ),
        ("chat", [], chat(reasoning_details=[{"type": "reasoning.text", "index": 0, "text": "s" * (1 << 20)}])),
    ],
)
async def test_signatures_and_details_without_end_are_an_error(wire: str, opening: list[Frame], piece: Frame) -> None:
    with pytest.raises(MalformedStream, match="longer than"):
        await ask(wire, *(sse(frame) for frame in [*opening, *[piece] * 20]))


async def test_a_hosted_call_without_arguments_is_kept_as_it_began() -> None:
    call = {"type": "server_tool_use", "id": "s1", "name": "advisor", "input": {}}
    frames = sse(start(), begin(**call), delta(type="input_json_delta", partial_json=""), *end())
    [kept] = fold(await ask("messages", frames)).content
    assert isinstance(kept, Opaque)
    assert json.loads(kept.data) == call


async def test_blocks_that_the_message_begins_with_are_taken() -> None:
    call = {"type": "tool_use", "id": "t1", "name": "roll", "input": {"p": 1}}
    events = await ask("messages", sse(start(content=[{"type": "text", "text": "ok"}, call]), *end("tool_use")))
    assert blocks(events) == [("text", None, None, "ok"), ("tool_use", "t1", "roll", '{"p":1}')]
    assert ending(events).stop_reason == "tool_use"


async def test_an_opaque_block_with_a_piece_that_is_not_known_is_not_kept() -> None:
    frames = sse(start(), begin(type="compaction"), delta(type="compaction_delta", content="summary"), *end())
    assert fold(await ask("messages", frames)).content == ()


@pytest.mark.parametrize(
    ("last", "wanted"),
    [({"input_tokens": 612, "output_tokens": 9}, (612, 9)), ({"input_tokens": 0, "output_tokens": 9}, (60385, 9))],
)
async def test_the_last_count_is_kept_unless_it_has_no_input(last: dict[str, int], wanted: tuple[int, int]) -> None:
    usage = {"input_tokens": 60385, "output_tokens": 1}
    events = await ask("messages", sse(start(usage=usage), begin(type="text", text="a"), *end(**last)))
    counted = ending(events).usage
    assert counted is not None
    assert (counted.input_tokens, counted.output_tokens) == wanted


# ---- Gemini


@pytest.mark.parametrize(
    "call", [{"name": "delete", "willContinue": True}, {"partialArgs": [{"jsonPath": "$.a"}], "name": "delete"}, {}]
)
async def test_a_call_in_pieces_does_not_run(call: Frame) -> None:
    frame = {"candidates": [{"content": {"parts": [{"functionCall": call}]}, "finishReason": "STOP"}]}
    with pytest.raises(MalformedStream, match="in pieces"):
        await ask("gemini", sse(frame))


# ---- every wire


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_an_error_between_the_events_is_an_error(wire: str, indent: int | None, size: int) -> None:
    first = {
        "chat": sse(chat("stop", content="First ")),
        "messages": sse(start(), begin(type="text"), delta(type="text_delta", text="First ")),
        "responses": sse({"type": "response.output_text.delta", "output_index": 0, "delta": "First "}),
        "gemini": sse({"candidates": [{"content": {"parts": [{"text": "First "}]}, "finishReason": "STOP"}]}),
    }[wire]
    error = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
    body = first + json.dumps(error, indent=indent).encode() + b"\n"
    with pytest.raises(RetryableError, match="overloaded"):
        await ask(wire, *(body[at : at + size] for at in range(0, len(body), size)))
