"""Tools for a model without tool calls: a request becomes words and a grammar, and the answer becomes calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kits.wires import WEATHER

from mentra_nb.agent.answer import PendingMessage
from mentra_nb.content import Image, Message, Text, ToolResult, ToolUse
from mentra_nb.errors import InvalidRequest
from mentra_nb.providers.base import MessageDelta, ProviderToolSpec, Request, ResponseFormat, ToolChoice
from mentra_nb.providers.chat_completions import ChatCompletionsProvider, ChatDecoder
from mentra_nb.providers.local.tool_calls import MOST_CALLS, CallReader, adapted, grammar

WEATHER_TOOL = ProviderToolSpec(name="weather", description="The weather in a city.", input_schema=WEATHER)


def user(text: str) -> Message:
    return Message.user([Text(text=text)])


def asking(*messages: Message, **options: Any) -> Request:
    return Request(model="m.gguf", messages=messages or [user("Hi")], **options)


# ---- the request --------------------------------------------------------------------------------------------------


def body_of(request: Request) -> dict[str, Any]:
    return adapted(json.loads(ChatCompletionsProvider("local", "http://x.invalid").body(request)))


def root_of(request: Request) -> str:
    (root,) = (line for line in body_of(request)["grammar"].splitlines() if line.startswith("root ::= "))
    return root


def called(city: str, *others: str) -> list[Message]:
    cities = (city, *others)
    uses = [ToolUse(id=f"id of {name}", name="weather", input={"city": name}) for name in cities]
    results = [ToolResult(tool_use_id=f"id of {name}", content=f"sunny in {name}") for name in cities]
    return [Message.assistant(uses), Message.user(results)]


def test_tools_become_words_and_a_grammar() -> None:
    body = body_of(asking(user("Weather in Ulm?"), system="Be brief.", tools=[WEATHER_TOOL]))
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(body)
    assert body["messages"][0]["content"].startswith("Be brief.\n\nYou have these tools:\n")
    assert '"name": "weather"' in body["messages"][0]["content"]
    assert body["messages"][1] == {"role": "user", "content": "Weather in Ulm?"}
    assert '"\\"city\\":" string' in body["grammar"]


def test_without_tools_the_model_is_free() -> None:
    assert "grammar" not in body_of(asking())
    assert "grammar" not in body_of(asking(tools=[WEATHER_TOOL], tool_choice=ToolChoice("none")))


def test_the_choice_of_tools_is_in_the_grammar() -> None:
    both = [WEATHER_TOOL, ProviderToolSpec(name="other")]
    assert " | " in root_of(asking(tools=both)), "calls, or prose"
    assert " | " in root_of(asking(tools=both, tool_choice=ToolChoice("auto")))
    assert " | " not in root_of(asking(tools=both, tool_choice=ToolChoice("any")))
    one = body_of(asking(tools=both, tool_choice=ToolChoice("tool", "other")))
    assert "weather" not in one["grammar"] + one["messages"][0]["content"]
    assert "other" in one["grammar"]
    assert " | " not in root_of(asking(tools=both, tool_choice=ToolChoice("tool", "other")))


@pytest.mark.parametrize(("several", "more"), [(None, MOST_CALLS - 1), (True, MOST_CALLS - 1), (False, 0)])
def test_how_many_calls_there_may_be_is_in_the_grammar(several: bool | None, more: int) -> None:
    assert f'"[" call (",\\n" call){{0,{more}}} "]"' in root_of(
        asking(tools=[WEATHER_TOOL], parallel_tool_calls=several)
    )


def test_calls_and_results_become_turns_that_alternate() -> None:
    messages = body_of(asking(user("Weather?"), *called("Ulm", "Bonn"), tools=[WEATHER_TOOL]))["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    calls = json.loads(messages[2]["content"])
    assert calls == [{"name": "weather", "arguments": {"city": city}} for city in ("Ulm", "Bonn")]
    assert (
        'Result of weather {"city":"Ulm"}:\nsunny in Ulm\n\nResult of weather {"city":"Bonn"}:'
        in messages[3]["content"]
    )


def test_earlier_calls_are_sent_as_the_model_wrote_them() -> None:
    messages = body_of(asking(user("Weather?"), *called("Ulm", "Bonn"), tools=[WEATHER_TOOL]))["messages"]
    message, _ = read([messages[2]["content"]])
    assert [use.input for use in message.tool_uses()] == [{"city": "Ulm"}, {"city": "Bonn"}]


def test_a_call_that_was_made_before_is_the_last() -> None:
    question = user("Weather?")
    different = asking(question, *called("Ulm", "Rome"), *called("Bonn"), tools=[WEATHER_TOOL])
    same = asking(question, *called("Ulm", "Rome"), *called("Bonn", "Ulm"), tools=[WEATHER_TOOL])
    answered = [*called("Ulm"), Message.assistant([Text(text="Sunny.")])]
    later = asking(question, *answered, question, *called("Ulm"), tools=[WEATHER_TOOL])
    assert ["grammar" in body_of(request) for request in (different, same, later)] == [True, False, True]


def test_images_stay_where_they_are_among_the_words() -> None:
    image = Image(data="AAAA", media_type="image/png")
    messages = [user("Look"), Message.user([image, Text(text="What is it?")]), *called("Ulm"), user("And?")]
    body = body_of(asking(*messages, tools=[WEATHER_TOOL]))
    assert [part["type"] for part in body["messages"][1]["content"]] == ["text", "image_url", "text"]
    assert isinstance(body["messages"][3]["content"], str)
    with_results = body_of(asking(*messages[:1], *called("Ulm"), Message.user([image]), tools=[WEATHER_TOOL]))
    parts = with_results["messages"][-1]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url"]
    assert parts[0]["text"].startswith('Result of weather {"city":"Ulm"}')


def test_tools_and_a_format_are_refused_together() -> None:
    both: dict[str, Any] = {"tools": [WEATHER_TOOL], "response_format": ResponseFormat("city", WEATHER)}
    with pytest.raises(InvalidRequest, match="local takes tools or response_format, not both"):
        body_of(asking(**both))
    unused = body_of(asking(**both, tool_choice=ToolChoice("none")))
    assert "response_format" not in unused
    assert unused["grammar"].startswith("root ::= ")


def test_rules_of_different_tools_do_not_meet() -> None:
    tools = [
        {"name": name, "parameters": {"$ref": "#/$defs/x", "$defs": {"x": {"properties": {name: {}}}}}} for name in "ab"
    ]
    names = [rule.partition(" ::= ")[0] for rule in grammar(tools).splitlines()]
    assert len(names) == len(set(names))


# ---- the answer ---------------------------------------------------------------------------------------------------


def piece(content: str | None = None, finish: str | None = None) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {"id": "1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def read(pieces: list[str], finish: str = "stop") -> tuple[Message, str | None]:
    """Return the message of an answer in these pieces, as the adapter reads it, and its stop reason."""
    reader, decoder, pending = CallReader(), ChatDecoder("m"), PendingMessage("agent", "local", "m")
    chunks = [*map(piece, pieces), piece(finish=finish)]
    events = [event for chunk in chunks for event in decoder.feed(reader.feed(chunk))] + decoder.feed(None)
    for event in events:
        pending.apply(event)
    return pending.message(), next(event.stop_reason for event in events if isinstance(event, MessageDelta))


def written(*arguments: dict[str, Any]) -> str:
    calls = [json.dumps({"name": "weather", "arguments": given}, separators=(",", ":")) for given in arguments]
    return "[" + ",\n".join(calls) + "]"


def said(message: Message) -> list[Any]:
    return [
        (block.name, block.input, bool(block.error)) if isinstance(block, ToolUse) else block.text
        for block in message.content
        if isinstance(block, ToolUse | Text)
    ]


TRICKY = {"city": 'Ü"}],\n\\', "more": [{"a": {}}, "},"], "none": {}}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_calls_are_read_in_any_pieces(size: int) -> None:
    text = written(TRICKY, {}, {"city": "Ulm"})
    message, why = read([text[start : start + size] for start in range(0, len(text), size)])
    assert said(message) == [("weather", given, False) for given in (TRICKY, {}, {"city": "Ulm"})]
    assert len({use.id for use in message.tool_uses()}) == 3
    assert why == "tool_use"


def test_arguments_are_passed_on_as_they_come() -> None:
    reader, behind = CallReader(), 0
    text = written({"city": "U" * 50}, {"city": "lm"})
    passed: dict[int, str] = {}
    for at, letter in enumerate(text):
        for call in reader.feed(piece(letter))["choices"][0]["delta"].get("tool_calls", ()):
            passed[call["index"]] = passed.get(call["index"], "") + call["function"]["arguments"]
        if 40 < at < 70:
            behind = max(behind, at + 1 - len('[{"name":"weather","arguments":') - len(passed[0]))
    assert behind == 2, "what may be the end of a call is held back, and no more"
    assert passed == {0: json.dumps({"city": "U" * 50}, separators=(",", ":")), 1: '{"city":"lm"}'}


@pytest.mark.parametrize(
    "text", ["Hello.", " Hello {x}", "{", "[", '[{"name":"wea', "```python\nprint()```", "a\n[{}]"]
)
def test_anything_but_a_call_is_text(text: str) -> None:
    assert said(read(list(text), "length")[0]) == [text]
    assert said(read([text], "length")[0]) == [text]
    assert read([text], "length")[1] == "max_tokens"


def test_an_answer_of_nothing_is_nothing() -> None:
    assert said(read([], "length")[0]) == []


TWO = written({"city": "Ulm"}, {"city": "Bonn"})
ULM, BONN = ("weather", {"city": "Ulm"}, False), ("weather", {"city": "Bonn"}, False)
BROKEN = ("weather", {}, True)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ('[{"name":"weather","arguments":', ['[{"name":"weather","arguments":']),
        ('[{"name":"weather","arguments":{', [BROKEN]),
        ('[{"name":"weather","arguments":{"city":"Ul', [BROKEN]),
        ('[{"name":"weather","arguments":{"city":"Ulm"', [BROKEN]),
        ('[{"name":"weather","arguments":{"city":"Ulm"}', [ULM]),
        ('[{"name":"weather","arguments":{"city":"Ulm"}}', [ULM]),
        ('[{"name":"weather","arguments":{"city":"Ulm"}},', [ULM]),
        ('[{"name":"weather","arguments":{"city":"Ulm"}},\n', [ULM]),
        (TWO[: TWO.index('"name":"weather"', 10) + 5], [ULM]),
        (TWO[: TWO.rindex("{")], [ULM]),
        (TWO[: TWO.index("Bonn") + 2], [ULM, BROKEN]),
        (TWO[:-3], [ULM, BROKEN]),
        (TWO[:-2], [ULM, BONN]),
        (TWO[:-1], [ULM, BONN]),
        (TWO, [ULM, BONN]),
    ],
)
def test_an_answer_cut_short_keeps_what_has_arrived(end: str, expected: list[Any]) -> None:
    assert TWO.startswith(end)
    for pieces in ([end], list(end)):
        message, why = read(pieces, "length")
        assert said(message) == expected
        assert why == "max_tokens"


json_objects = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.one_of(st.none(), st.integers(), st.text("ab\"\\{}[],:\nü", max_size=6)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
        max_leaves=5,
    ),
    max_size=3,
)  # fmt: skip
answers = st.one_of(
    st.lists(json_objects, min_size=1, max_size=MOST_CALLS).map(lambda given: written(*given)),
    st.text('ab{[`"},\n ', max_size=20),
)


@pytest.mark.slow
@given(answers, st.data(), st.sampled_from(["stop", "length"]))
def test_any_chunking_of_a_text_is_the_same_message(text: str, data: st.DataObject, finish: str) -> None:
    text = text[: data.draw(st.integers(0, len(text)))] if finish == "length" else text
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert [said(read(pieces, finish)[0]), read(pieces, finish)[1]] == [
        said(read([text], finish)[0]),
        read([text], finish)[1],
    ]


@pytest.mark.slow
@given(st.lists(json_objects, min_size=1, max_size=MOST_CALLS), st.data())
def test_whole_calls_before_a_cut_are_whole(given: list[dict[str, Any]], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(given) - 1))
    whole = written(*given[:at])[:-1] + ",\n" if at else "["
    text = written(*given)
    cut = data.draw(st.integers(len(whole), len(text)))
    message, _ = read([text[:cut]], "length")
    assert said(message)[:at] == [("weather", arguments, False) for arguments in given[:at]]
