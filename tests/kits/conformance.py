"""What every wire must do with an answer.

To test another provider, describe how its server speaks in a `Dialect`, and run the suite on that:

    class TestMine(WireConformance):
        dialect = MyDialect()

`AnswerConformance` is the part of it for a provider whose answers do not come as bytes from a server.
"""

from __future__ import annotations

import gzip
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kits.http_server import Reply, Server
from kits.wires import Bytes, Frame, blocks, collect, encoded_again, ending, fold
from mentra_nb.content import Message, Text, Thinking, ToolUse
from mentra_nb.errors import (
    HttpError,
    MalformedStream,
    ProviderError,
    RetryableError,
    StreamTruncated,
    TransportError,
)
from mentra_nb.providers.base import MessageStarted, MessageStopped, ProviderEvent, ProviderToolSpec, Request
from mentra_nb.providers.http import HttpxTransport, Transport
from mentra_nb.providers.wire import WireProvider

DONE = "[DONE]"
REQUEST = Request("m", [Message.user("hi")])
EVENTS = {"content-type": "text/event-stream"}


@dataclass(frozen=True)
class Said:
    """A block of text or reasoning, in the pieces it is sent in."""

    kind: str
    pieces: tuple[str, ...]


@dataclass(frozen=True)
class Called:
    """A tool call, its arguments as JSON text in pieces."""

    id: str
    name: str
    pieces: tuple[str, ...]


Block = Said | Called
Location = tuple[str | int, ...]
"""A path of keys and indices into a frame."""


class Dialect(ABC):
    """How a server speaks: the frames it sends for an answer. A frame is a JSON object, or `DONE`."""

    streams_arguments = True
    """True if arguments come as pieces of text, and so may be invalid."""
    noise: tuple[Frame, ...] = ({"type": "brand_new", "x": 1},)
    """Frames that this version of the adapter does not know."""
    request = REQUEST
    """The request that is sent."""

    @abstractmethod
    def provider(self, url: str = "http://h") -> WireProvider:
        """The provider under test."""

    def transport(self, *pieces: bytes) -> Transport:
        """Return a transport that gives these bytes of a stream."""
        return Bytes(*pieces)

    @abstractmethod
    def answer(self, *blocks: Block, stop: str = "end") -> tuple[list[Any], int]:
        """Return the frames of an answer with these blocks in order, and the index of the one that completes it.

        Its usage is 11 tokens in, 7 out. `stop` is a neutral reason, or a word of the server's own.
        """

    @abstractmethod
    def error(self, message: str, transient: bool) -> Frame:
        """Return the frame of an error in the middle of an answer."""

    @abstractmethod
    def bare(self) -> list[Any]:
        """Return the text `ok` and a call of `clock` without anything optional: no ids, no usage, no model."""

    def interleaved(self, first: Called, second: Called) -> list[Any] | None:
        """Return two calls with alternating pieces, or `None` if the server cannot send them."""
        return None


def stream(frames: Iterable[Any], newline: str = "\n", decorated: bool = False) -> bytes:
    """Return the frames as bytes. `decorated` adds everything else that server-sent events allow."""
    lines = []
    for number, frame in enumerate(frames):
        if decorated:
            lines += [f": comment {number}", "event: whatever", f"id: {number}"]
        lines += [f"data: {frame if frame == DONE else json.dumps(frame, ensure_ascii=False)}", ""]
        if decorated:
            lines += ["", ":", ""]
    return ("\ufeff" * decorated + "".join(line + newline for line in lines)).encode()


def widened(value: Any) -> Any:
    """Return a frame with an unknown field in every object, except in the arguments of calls."""
    if isinstance(value, list):
        return [widened(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item if key in ("args", "arguments", "input") else widened(item) for key, item in value.items()}
    return kept | {"brand_new": {"a": [1, None]}}


def paths(value: Any, path: Location = ()) -> Iterator[Location]:
    """Yield the path of everything inside a frame."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield (*path, key)
        yield from paths(item, (*path, key))


def replaced(value: Any, path: Location, new: Any) -> Any:
    """Return a frame with another value at a path."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def content(message: Message) -> list[tuple[str, Any]]:
    """Return the blocks of a message without their ids."""
    found: list[tuple[str, Any]] = []
    for block in message.content:
        match block:
            case Text(text=text):
                found.append(("text", text))
            case Thinking(text=text):
                found.append(("thinking", text))
            case ToolUse(name=name, input=arguments):
                found.append((name, arguments))
    return found


def expected(blocks: Iterable[Block]) -> list[tuple[str, Any]]:
    return [
        (block.kind, "".join(block.pieces))
        if isinstance(block, Said)
        else (block.name, json.loads("".join(block.pieces) or "{}"))
        for block in blocks
    ]


TEXT = Said("text", ("Grüße ", "🌍", "!"))
THOUGHT = Said("thinking", ("Let me ", "sée."))
WEATHER = Called("a", "weather", ('{"city":', '"Zü', 'rich"}'))
CLOCK = Called("b", "clock", ("{}",))


@st.composite
def answers(draw: st.DrawFn) -> list[Block]:
    """Blocks of which no two neighbours are of the same kind of text. Without `<`, which may begin a tag."""
    words = st.text(st.characters(codec="utf-8", exclude_characters="<"), min_size=1, max_size=5)
    found: list[Block] = []
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["text", "thinking", "call"]))
        if kind == "call":
            text = json.dumps({"x": draw(words)}, ensure_ascii=False)
            cut = draw(st.integers(1, len(text) - 1))
            found.append(Called(f"c{number}", "tool", (text[:cut], text[cut:])))
        elif not found or getattr(found[-1], "kind", None) != kind:
            found.append(Said(kind, ("a", *draw(st.lists(words, max_size=3)))))
    return found


class AnswerConformance:
    dialect: Dialect

    async def ask(self, *pieces: bytes) -> list[ProviderEvent]:
        transport = self.dialect.transport(*pieces)
        try:
            return await collect(self.dialect.provider().with_transport(transport), self.dialect.request)
        finally:
            await transport.aclose()

    async def said(self, *blocks: Block, stop: str = "end") -> list[ProviderEvent]:
        return await self.ask(stream(self.dialect.answer(*blocks, stop=stop)[0]))

    @pytest.mark.anyio
    @pytest.mark.parametrize(
        "blocks_",
        [
            (TEXT,),
            (THOUGHT, TEXT),
            (TEXT, WEATHER),
            (THOUGHT, TEXT, WEATHER, CLOCK),
            (CLOCK,),
            (Called("e", "clock", ()), WEATHER),
            (Called("p", "weather", tuple('{"city": "Rome", "n": [1, 2]}')),),
        ],
        ids=["text", "reasoning", "call", "everything", "only a call", "no arguments", "arguments by the letter"],
    )
    async def test_an_answer_is_its_blocks_in_order(self, blocks_: tuple[Block, ...]) -> None:
        events = await self.said(*blocks_)
        assert blocks(events)
        assert content(fold(events)) == expected(blocks_)
        called = any(isinstance(block, Called) for block in blocks_)
        assert ending(events).stop_reason == ("tool_use" if called else "end")
        usage = ending(events).usage
        assert usage is not None
        assert (usage.input_tokens, usage.output_tokens) == (11, 7)

    @pytest.mark.anyio
    async def test_interleaved_calls_are_told_apart(self) -> None:
        frames = self.dialect.interleaved(WEATHER, CLOCK)
        if frames is not None:
            assert content(fold(await self.ask(stream(frames)))) == expected([WEATHER, CLOCK])

    @pytest.mark.anyio
    async def test_calls_with_one_id_stay_two_calls(self) -> None:
        events = await self.said(CLOCK, Called("b", "weather", ('{"city":"B"}',)))
        assert content(fold(events)) == [("clock", {}), ("weather", {"city": "B"})]
        assert len({id for _, id, _, _ in blocks(events)}) == 2

    @pytest.mark.anyio
    @pytest.mark.parametrize("text", ['{"a":1}{"b":2}', '{"a":', "nope", "[1]", '"x"', "NaN"])
    async def test_arguments_that_are_not_an_object_make_a_call_with_an_error(self, text: str) -> None:
        if self.dialect.streams_arguments:
            message = fold(await self.said(Called("x", "clock", (text,)), WEATHER))
            broken, whole = message.tool_uses()
            assert broken.error
            assert broken.input == {}
            assert whole.error is None

    @pytest.mark.anyio
    async def test_unknown_frames_and_fields_are_ignored(self) -> None:
        frames, _ = self.dialect.answer(THOUGHT, TEXT, WEATHER)
        known = await self.ask(stream(frames))
        noisy = [frames[0]]
        for frame in frames[1:]:
            noisy += [*self.dialect.noise, frame if frame == DONE else widened(frame)]
        assert await self.ask(stream(noisy)) == known
        assert ending(await self.said(TEXT, stop="brand_new")).stop_reason == "brand_new"

    @pytest.mark.anyio
    async def test_optional_fields_may_be_missing(self) -> None:
        events = await self.ask(stream(self.dialect.bare()))
        message = fold(events)
        assert content(message) == [("text", "ok"), ("clock", {})]
        assert message.tool_uses()[0].id
        assert ending(events).usage is None

    @pytest.mark.anyio
    async def test_an_answer_cut_by_its_limit_says_so(self) -> None:
        pieces = ('{"city":',) if self.dialect.streams_arguments else ("{}",)
        events = await self.said(TEXT, Called("a", "weather", pieces), stop="max_tokens")
        assert ending(events).stop_reason == "max_tokens"

    @pytest.mark.anyio
    @pytest.mark.parametrize("transient", [True, False])
    async def test_an_error_in_the_middle_is_raised_in_the_providers_words(self, transient: bool) -> None:
        frames, complete = self.dialect.answer(TEXT)
        broken = stream([*frames[:complete], self.dialect.error("what went wrong", transient), *frames[complete:]])
        with pytest.raises(ProviderError, match="what went wrong") as caught:
            await self.ask(broken)
        assert caught.value.is_transient is transient
        assert isinstance(caught.value, RetryableError) is transient

    @pytest.mark.anyio
    async def test_an_answer_that_ends_after_any_frame_is_whole_or_truncated(self) -> None:
        frames, complete = self.dialect.answer(TEXT, WEATHER)
        whole = fold(await self.ask(stream(frames)))
        for at in range(len(frames) + 1):
            if at <= complete:
                with pytest.raises(StreamTruncated):
                    await self.ask(stream(frames[:at]))
            else:
                assert fold(await self.ask(stream(frames[:at]))) == whole

    @pytest.mark.anyio
    async def test_frames_that_are_not_objects_are_malformed(self) -> None:
        frames, _ = self.dialect.answer(TEXT)
        for bad in (b"data: [1]\n\n", b"data: {nope\n\n", b"data: 7\n\n"):
            with pytest.raises(MalformedStream) as caught:
                await self.ask(stream(frames[:1]), bad, stream(frames[1:]))
            assert not isinstance(caught.value, StreamTruncated)

    @pytest.mark.anyio
    async def test_deep_nesting_is_malformed_or_skipped(self) -> None:
        frames, _ = self.dialect.answer(TEXT, WEATHER)
        whole = await self.ask(stream(frames))
        for depth in (100, 300, 900, 5000):
            deep = b'{"deep":' + b"[" * depth + b"]" * depth + b","
            with suppress(MalformedStream):
                assert await self.ask(stream(frames[:1]).replace(b"{", deep, 1), stream(frames[1:])) == whole

    @settings(
        max_examples=150, deadline=None, suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow]
    )
    @given(st.data())
    def test_a_value_of_the_wrong_type_is_skipped_or_malformed(self, data: Any) -> None:
        frames, _ = self.dialect.answer(THOUGHT, TEXT, WEATHER)
        number = data.draw(st.sampled_from([at for at, frame in enumerate(frames) if frame != DONE]))
        path = data.draw(st.sampled_from(list(paths(frames[number]))))
        wrong = data.draw(st.sampled_from([None, 7, "x", [], {}, [1], [[]], {"x": 1}, True, 1.5]))
        frames[number] = replaced(frames[number], path, wrong)
        try:
            message = fold(anyio.run(self.ask, stream(frames)))
        except ProviderError:
            return
        assert Message.model_validate_json(message.model_dump_json()) == message

    @pytest.mark.anyio
    async def test_arguments_beyond_the_limit_are_malformed(self) -> None:
        endless = Called("a", "weather", ('{"x":"', *["y" * (1 << 20)] * 4, '"}'))
        with pytest.raises(MalformedStream, match="longer than"):
            await self.said(endless)

    def test_a_message_and_a_tool_are_encoded_once(self) -> None:
        adapter, message, tool = self.dialect.provider(), Message.user("hi"), ProviderToolSpec(name="clock")
        request = Request("m", [message], tools=[tool])
        first, wire = adapter.body(request), message.last_wire
        form = message.form(wire)
        assert form is not None
        assert adapter.body(Request("m", [message], tools=[tool])) == first
        assert message.last_wire == wire
        assert message.form(wire) is form
        assert adapter.tool_fragments(request, encoded_again)


class WireConformance(AnswerConformance):
    """The part about bytes over a connection: they may be cut, packed, stalled or missing, and have headers."""

    @pytest.mark.slow
    @pytest.mark.anyio
    @pytest.mark.parametrize(
        ("newline", "decorated"),
        [("\n", False), ("\r\n", True), ("\r", False)],
    )
    async def test_bytes_cut_anywhere_give_the_same_and_ended_anywhere_are_whole_or_truncated(
        self, newline: str, decorated: bool
    ) -> None:
        frames, complete = self.dialect.answer(TEXT, WEATHER)
        whole = await self.ask(stream(frames))
        data = stream(frames, newline, decorated)
        needed = len(stream(frames[: complete + 1], newline, decorated).rstrip(b"\r\n: "))
        outcomes = set()
        for at in range(len(data) + 1):
            if at < len(data):
                assert await self.ask(data[:at], data[at:]) == whole
            try:
                ended = await self.ask(data[:at])
            except StreamTruncated:
                ended = None
            outcomes.add(ended is not None)
            # counts that come after the answer is complete may be lost with the end
            assert ended is None or (at >= needed and fold(ended) == fold(whole)), at
        assert outcomes == {True, False}
        assert ended == whole
        assert await self.ask(*(data[at : at + 1] for at in range(len(data)))) == whole

    @settings(
        max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow]
    )
    @given(answers(), st.data())
    def test_any_answer_survives_any_framing(self, wanted: Any, data: Any) -> None:
        frames, _ = self.dialect.answer(*wanted)
        newline, decorated = data.draw(st.sampled_from(["\n", "\r\n"])), data.draw(st.booleans())
        whole = stream(frames, newline, decorated)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        assert content(fold(anyio.run(self.ask, *pieces))) == expected(wanted)

    @pytest.mark.anyio
    async def test_bytes_that_are_not_text_are_malformed(self) -> None:
        frames, _ = self.dialect.answer(TEXT)
        with pytest.raises(MalformedStream) as caught:
            await self.ask(stream(frames[:1]), b"data: \xff\n\n", stream(frames[1:]))
        assert not isinstance(caught.value, StreamTruncated)

    @pytest.mark.anyio
    @pytest.mark.parametrize("header", ["x-request-id", "request-id"])
    async def test_events_and_errors_carry_the_request_id(self, header: str) -> None:
        frames, complete = self.dialect.answer(TEXT)
        named = EVENTS | {header: "req-7"}

        async def asked(*frames: Any, **reply: Any) -> list[ProviderEvent]:
            reply = {"headers": named} | reply
            return await collect(self.dialect.provider().with_transport(Bytes(stream(frames), **reply)), REQUEST)

        (started,) = [event for event in await asked(*frames) if isinstance(event, MessageStarted)]
        assert started.request_id == "req-7"
        for broken in ([*frames[:complete], self.dialect.error("what went wrong", False)], frames[:complete]):
            with pytest.raises(ProviderError, match="request req-7"):
                await asked(*broken)
        with pytest.raises(HttpError) as caught:
            await asked(*frames, status=500)
        assert caught.value.request_id == "req-7"

    @pytest.mark.anyio
    async def test_silence_is_a_transient_error_and_can_be_stopped(self, server: Server) -> None:
        frames, complete = self.dialect.answer(TEXT)
        begun = stream(frames[:complete])
        hasty = self.dialect.provider(server.url).with_transport(HttpxTransport(idle_timeout=0.1))
        patient = self.dialect.provider(server.url)
        for silent in (Reply([begun], end="stall"), Reply(end="mute")):
            server.reply(silent, silent)
            with pytest.raises(TransportError, match=r"sent nothing for 0\.1 s"):
                await collect(hasty, REQUEST)
            with anyio.fail_after(10), anyio.move_on_after(0.2) as scope:
                await collect(patient, REQUEST)
            assert scope.cancelled_caught
            with anyio.fail_after(10):
                await server.gone.wait()
        await hasty.aclose()
        await patient.aclose()

    @pytest.mark.anyio
    async def test_compressed_and_over_a_socket_the_answer_is_the_same(self, server: Server) -> None:
        frames, _ = self.dialect.answer(TEXT, WEATHER)
        data, adapter = stream(frames, "\r\n", True), self.dialect.provider(server.url)
        packed = gzip.compress(data)
        for at in range(0, len(packed), 40):
            pieces = [piece for piece in (packed[:at], packed[at:]) if piece]
            server.reply(Reply(pieces, headers=EVENTS | {"content-encoding": "gzip"}))
            assert await collect(adapter, REQUEST) == await self.ask(data)
        assert server.connections == 1, "the connection is used again"
        for end in ("cut", "reset"):
            server.reply(Reply([data[: len(data) // 2]], end=end))
            with pytest.raises(TransportError):
                await collect(adapter, REQUEST)
        server.reply(Reply([packed[: len(packed) // 2]], headers=EVENTS | {"content-encoding": "gzip"}, end="close"))
        with pytest.raises(ProviderError):
            await collect(adapter, REQUEST)
        server.reply(Reply([data, b"data: {broken\n\n"], end="stall"))
        with anyio.fail_after(10):
            assert isinstance((await collect(adapter, REQUEST))[-1], MessageStopped)
            await server.gone.wait()
        await adapter.aclose()
