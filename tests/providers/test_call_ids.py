"""Ids and names of calls in what is sent: unique, short, of plain characters, and paired with their results."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from kits.http_server import sse
from kits.wires import Bytes, collect

from mentra_nb.agent.answer import PendingMessage
from mentra_nb.agent.transcript import Transcript
from mentra_nb.content import Message, ToolResult, ToolUse
from mentra_nb.ids import UniqueIds, clean_id, clean_name
from mentra_nb.providers.anthropic import AnthropicProvider
from mentra_nb.providers.base import ProviderToolSpec, Request, ToolChoice
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.gemini import GeminiProvider
from mentra_nb.providers.responses import ResponsesProvider
from mentra_nb.store.volatile import VolatileStore

PLAIN = re.compile(r"[a-zA-Z0-9_-]{1,64}")
WIRES = [AnthropicProvider, ChatCompletionsProvider, ResponsesProvider]


def found(value: Any, *keys: str) -> list[str]:
    """Return the values of these keys anywhere in a body, in order."""
    if isinstance(value, list):
        return [text for each in value for text in found(each, *keys)]
    if not isinstance(value, dict):
        return []
    return [text for key, each in value.items() for text in ([each] if key in keys else found(each, *keys))]


def history(*ids: str, name: str = "act") -> list[Message]:
    """Return a conversation with a call per id, each answered."""
    messages = [Message.user("go")]
    for id in ids:
        messages.append(Message.assistant([ToolUse(id=id, name=name)]))
        messages.append(Message.user([ToolResult(tool_use_id=id, content="done")]))
    return messages


@pytest.mark.parametrize("wire", WIRES)
def test_ids_are_sent_unique_and_plain_with_their_results(wire: Any) -> None:
    ids = ["call_0", "call_0", "functions.act:0", "functions_2eact_3a0", "", "x" * 500, "x" * 501, "x" * 500, "ü"]
    messages = history(*ids)
    messages += [
        Message.assistant([ToolUse(id="call_0", name="act"), ToolUse(id="call_0", name="act")]),
        Message.user([ToolResult(tool_use_id="call_0"), ToolResult(tool_use_id="call_0")]),
    ]
    body = json.loads(wire("x", "http://h").body(Request("m", messages)))
    sent = body.get("messages") or body["input"]
    called = [id for id in found(sent, "id", "call_id") if id]
    answered = found(sent, "tool_use_id", "tool_call_id")
    if wire is ResponsesProvider:
        called, answered = (
            [item["call_id"] for item in sent if item["type"] == kind]
            for kind in ("function_call", "function_call_output")
        )
    assert called == answered
    assert len(set(called)) == len(ids) + 2
    assert all(PLAIN.fullmatch(id) for id in called)
    assert called[0] == "call_0"
    assert wire("x", "http://h").body(Request("m", history(*ids))) == wire("x", "http://h").body(
        Request("m", history(*ids))
    )


@pytest.mark.parametrize("wire", [*WIRES, GeminiProvider])
@pytest.mark.parametrize("name", ["multi_tool_use.parallel", "", "n" * 200, "größe"])
def test_names_of_calls_are_sent_plain(wire: Any, name: str) -> None:
    body = json.loads(wire("x", "http://h").body(Request("m", history("c", name=name))))
    names = found(body, "name")
    assert names
    assert all(PLAIN.fullmatch(each) for each in names)


@pytest.mark.anyio
async def test_a_tool_with_another_name_is_offered_under_a_plain_one_and_called_by_its_own() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "gr_f6_dfe", "arguments": "{}"}}
    frames = sse({"id": "1", "choices": [{"delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]})
    sent = []

    class Kept(Bytes):
        def send(self, method: str, url: str, headers: Any, body: bytes | None) -> Any:
            sent.append(json.loads(body or b""))
            return super().send(method, url, headers, body)

    tools = (ProviderToolSpec(name="größe"), ProviderToolSpec(name="plain"))
    request = Request("m", [Message.user("x")], tools=tools, tool_choice=ToolChoice("tool", "größe"))
    events = await collect(ChatCompletionsProvider("x", "http://h").with_transport(Kept(frames)), request)
    assert found(sent, "name") == ["gr_f6_dfe", "gr_f6_dfe", "plain"]
    pending = PendingMessage("agent", "x", "m")
    for event in events:
        pending.apply(event)
    assert [use.name for use in pending.message().tool_uses()] == ["größe"]


@pytest.mark.anyio
@pytest.mark.parametrize("wire", WIRES)
async def test_ids_stay_unique_when_old_messages_are_out_of_memory(wire: Any) -> None:
    transcript, messages = Transcript("agent", VolatileStore()), history(*["call_0"] * 20)
    provider = wire("x", "http://h")
    for message in messages:
        provider.body(Request("m", [*transcript.messages(), message]))
        transcript.append(message, "run")
        provider.body(Request("m", transcript.messages()))
    assert any(not isinstance(message, Message) for message in transcript.messages())
    assert provider.body(Request("m", transcript.messages())) == provider.body(Request("m", messages))


def test_ids_keep_their_text_as_far_as_it_is_accepted() -> None:
    assert (clean_id("toolu_01-A"), clean_id("a:b"), clean_id("")) == ("toolu_01-A", "a_3ab", "call")
    assert clean_name("multi_tool_use.parallel") == "multi_tool_use_2eparallel"
    ids = UniqueIds(["a"])
    assert [ids.take("a"), ids.take("a"), ids.take("b"), ids.take("a-2")] == ["a-2", "a-3", "b", "a-2-2"]


@pytest.mark.parametrize("stem", ["call", "x" * 60])
def test_one_id_repeated_takes_time_by_its_number(stem: str) -> None:
    ids, begun = UniqueIds(), time.process_time()
    taken = {ids.take(stem) for _ in range(100_000)}
    assert len(taken) == 100_000
    assert max(map(len, taken)) <= 64
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("wire", WIRES)
def test_old_messages_are_sent_again_without_an_object_for_each(wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    transcript, messages = Transcript("agent", VolatileStore()), history(*["call_0"] * 20)
    provider = wire("x", "http://h")
    for message in messages:
        provider.body(Request("m", [*transcript.messages(), message]))
        transcript.append(message, "run")
    whole = provider.body(Request("m", messages))
    with monkeypatch.context() as patch:
        patch.setattr("mentra_nb.agent.transcript.Sent", None)
        assert provider.body(Request("m", transcript.messages())) == whole
    assert transcript.messages().sent("another wire") == ([], [])
