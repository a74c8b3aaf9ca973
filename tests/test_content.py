"""Messages and token counts: what they are made of, and that JSON gives them back."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import mentra_nb
from mentra_nb.content import Data, Image, Message, Role, Text, Thinking, TokenUsage, ToolResult, ToolUse

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
blocks = st.one_of(
    st.builds(Text, text=st.text()),
    st.builds(Image, media_type=st.just("image/png"), data=st.just("aGk=")),
    st.builds(Thinking, text=st.text(), signature=st.none() | st.text()),
    st.builds(
        ToolUse,
        id=st.text(),
        name=st.text(),
        input=st.dictionaries(st.text(), json_values, max_size=3),
        error=st.none() | st.text(),
    ),
    st.builds(ToolResult, tool_use_id=st.text(), content=json_values, is_error=st.booleans()),
)
messages = st.builds(Message, role=st.sampled_from(Role), content=st.lists(blocks, max_size=4).map(tuple))


@given(messages)
def test_a_message_survives_json(message: Message) -> None:
    assert Message.model_validate_json(message.model_dump_json()) == message


def test_the_text_of_a_message_is_its_text_blocks_without_a_separator() -> None:
    message = Message.assistant([Text(text="one"), ToolUse(id="1", name="x"), Text(text="two")])
    assert message.text() == "onetwo"
    assert [use.name for use in message.tool_uses()] == ["x"]
    assert Message.user([ToolResult(tool_use_id="1")]).tool_results()[0].tool_use_id == "1"


def test_a_block_is_told_by_its_type_tag() -> None:
    dumped = Message.user("hello").model_dump(mode="json")
    assert dumped == {"role": "user", "content": [{"type": "text", "text": "hello"}]}


def test_unknown_keys_of_a_newer_version_are_ignored() -> None:
    assert Message.model_validate({"role": "user", "content": [{"type": "text", "text": "x", "new": 1}], "also": 2})


def test_bytes_of_an_image_are_kept_as_base64() -> None:
    assert Image.from_bytes("image/png", b"hi").data == "aGk="


def test_a_json_result_is_shown_as_compact_json() -> None:
    assert ToolResult(tool_use_id="1", content={"a": "ä"}).display() == '{"a":"ä"}'
    assert ToolResult(tool_use_id="1", content="as is").display() == "as is"


def test_a_message_is_encoded_once_for_each_wire() -> None:
    encoded: list[str] = []

    def encode(message: Message) -> bytes:
        encoded.append(message.text())
        return message.text().encode()

    message = Message.user("hello")
    assert message.encoded("one", encode) == message.encoded("one", encode) == b"hello"
    assert encoded == ["hello"]
    message.encoded("two", encode)
    assert encoded == ["hello", "hello"]


def test_usage_adds_field_by_field_and_unknown_stays_unknown() -> None:
    total = TokenUsage(input_tokens=1, output_tokens=2) + TokenUsage(input_tokens=3, cache_read_input_tokens=4)
    assert total == TokenUsage(input_tokens=4, output_tokens=2, cache_read_input_tokens=4)
    assert total.total_tokens is None


def test_usage_with_nothing_known_is_empty_and_zero_is_not_nothing() -> None:
    assert TokenUsage().is_empty()
    assert not TokenUsage(output_tokens=0).is_empty()


def test_messages_are_equal_whether_they_were_sent_or_not() -> None:
    sent, fresh = Message.user("hi"), Message.user("hi")
    sent.encoded("wire", lambda message: b"x")
    assert (sent == fresh, hash(sent) == hash(fresh)) == (True, True)
    assert (sent == Message.user("ho"), sent == Message.assistant("hi"), sent == "hi") == (False, False, False)
    assert len({sent, fresh, Message.user("ho")}) == 2


MODELS = [
    name
    for name in mentra_nb.__all__
    if inspect.isclass(kind := getattr(mentra_nb, name)) and issubclass(kind, BaseModel)
]


@pytest.mark.slow  # a process for each
@pytest.mark.parametrize("name", MODELS)
def test_a_public_model_shows_its_fields_before_its_first_instance(name: str) -> None:
    program = f"import inspect, mentra_nb; print(*inspect.signature(mentra_nb.{name}).parameters)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == list(getattr(mentra_nb, name).model_fields)


def test_a_signature_is_that_of_the_class_itself_whatever_was_built_before() -> None:
    class First(Data):
        a: int

    assert First(a=1).a == 1

    class Second(First):
        b: str = ""

    assert list(inspect.signature(Second).parameters) == ["a", "b"]
    assert list(inspect.signature(First).parameters) == ["a"]
    assert Second(a=1).b == ""


def test_a_model_that_cannot_be_built_yet_has_the_signature_of_any_model() -> None:
    class Later(Data):
        a: Unknown  # type: ignore[name-defined]  # noqa: F821

    assert list(inspect.signature(Later).parameters) == ["data"]
