"""The path that is in memory: what it keeps, and that leaving it leaves nothing behind."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from mentra_nb.agent.transcript import KEEP, Transcript, TranscriptPath
from mentra_nb.compaction.entry import summary_message
from mentra_nb.content import Image, Message, ToolResult, ToolUse
from mentra_nb.store.records import AgentRecord, RunRecord
from mentra_nb.store.volatile import VolatileStore

pytestmark = pytest.mark.anyio

PICTURE = Image.from_bytes("image/png", b"\x89PNG")


def encode(message: Message) -> str:
    return f"form of {message.text()}"


class Conversation:
    """A transcript whose messages are stored, and sent after each turn."""

    def __init__(self) -> None:
        self.store = VolatileStore()
        self.transcript = Transcript("agent-1", self.store)

    async def open(self) -> None:
        await self.store.create_agent(
            AgentRecord(
                id="agent-1",
                runtime_identifier="default",
                name="tester",
                model="m",
                provider_id="p",
                created_at=0.0,
                updated_at=0.0,
            )
        )
        await self.store.start_run(RunRecord(id="run-1", agent_id="agent-1", started_at=0.0))

    async def say(self, *texts: str, wire: str = "chat", picture: bool = False, call: bool = False) -> None:
        for text in texts:
            message = Message.user([*Message.user(text).content, *[PICTURE] * picture])
            if call:
                message = Message.assistant([*message.content, ToolUse(id=text, name="look")])
            await self.store.append_entries([self.transcript.append(message, "run-1")])
            for sent in self.transcript.messages():
                sent.encoded(wire, encode)

    async def compact(self, text: str, keeps: int) -> None:
        await self.transcript.load()
        await self.store.append_entries([self.transcript.compact(summary_message(text, keeps), keeps, "run-1")])

    async def stored(self) -> Transcript:
        """Return the transcript as another process reads it."""
        other = Transcript.stored("agent-1", self.store, self.transcript.leaf, len(self.transcript))
        await other.load()
        return other


@pytest.fixture
async def conversation() -> Conversation:
    made = Conversation()
    await made.open()
    return made


def texts(prefix: str, count: int = 2 * KEEP) -> list[str]:
    return [f"{prefix} {number}" for number in range(count)]


def parts(path: TranscriptPath) -> dict[str, Any]:
    return {part.name: getattr(path, part.name) for part in fields(path)}


async def test_going_back_restores_every_part_of_the_path(conversation: Conversation) -> None:
    transcript = conversation.transcript
    await conversation.say(*texts("before"), call=True)
    await transcript.ready_for("one model")
    await conversation.say(*texts("sent"))
    transcript.messages()[0].text()
    kept, expected = transcript.snapshot(), parts(transcript.snapshot())

    await transcript.ready_for("another model")
    await conversation.compact("the beginning", 2)
    await conversation.say(*texts("left", 3 * KEEP), wire="messages", picture=True)
    await conversation.compact("more", 1)
    transcript.shorten(1)
    await conversation.say("last", wire="messages")
    transcript.messages()[0].text()
    unchanged = [name for name, part in parts(transcript.snapshot()).items() if part == expected[name]]
    assert unchanged == []  # or going back would show nothing about that part

    transcript.go_back(kept)
    assert parts(transcript.snapshot()) == expected
    assert transcript.leaf == expected["items"][-1].id


async def test_old_messages_are_not_read_from_a_branch_that_was_left(conversation: Conversation) -> None:
    transcript = conversation.transcript
    await conversation.say(*texts("before"))
    kept = transcript.snapshot()
    await conversation.say(*texts("left"))
    assert transcript.messages()[2 * KEEP].text() == "left 0"  # read from the store

    transcript.go_back(kept)
    await conversation.say(*texts("after"))
    assert [message.text() for message in transcript.messages()] == [*texts("before"), *texts("after")]
    assert [message.text() for message in transcript.history()] == [*texts("before"), *texts("after")]


async def test_a_snapshot_does_not_change_when_the_conversation_goes_on(conversation: Conversation) -> None:
    await conversation.say(*texts("before"))
    kept, expected = conversation.transcript.snapshot(), parts(conversation.transcript.snapshot())
    await conversation.say(*texts("after"))
    assert parts(kept) == expected


async def test_an_unloaded_path_keeps_only_its_leaf_and_its_length(conversation: Conversation) -> None:
    transcript = conversation.transcript
    await conversation.say(*texts("before"))
    leaf = transcript.leaf
    transcript.unload()
    assert (transcript.leaf, len(transcript), transcript.is_loaded) == (leaf, 2 * KEEP, False)
    assert transcript.snapshot() == TranscriptPath(2 * KEEP, leaf)
    assert [message.text() for message in transcript.history()] == texts("before")


def read(transcript: Transcript) -> list[str]:
    """Return the texts that are sent."""
    return [message.text() for message in transcript.messages()]


async def test_a_summary_is_sent_in_place_of_what_came_before_and_nothing_leaves_the_path(
    conversation: Conversation,
) -> None:
    transcript = conversation.transcript
    await conversation.say(*texts("before"))
    everything = texts("before")
    await conversation.compact("SUMMARY", 3)
    assert read(transcript) == ["SUMMARY", *everything[-3:]]
    for number in range(3 * KEEP):  # the summary and what it keeps become old together
        assert read(transcript) == ["SUMMARY", *everything[-3:], *texts("after", number)]
        whole = [*everything, "SUMMARY", *texts("after", number)]
        assert [message.text() for message in transcript.history()] == whole
        assert len(transcript) == len(whole)
        other = await conversation.stored()
        assert (read(other), other.leaf, len(other)) == (read(transcript), transcript.leaf, len(transcript))
        assert other.tokens == transcript.tokens
        assert [entry.parent_id for entry in other.tail][-2:] == [entry.parent_id for entry in transcript.tail][-2:]
        await conversation.say(f"after {number}")
    assert transcript.snapshot().old > 4
    assert [message.text() for message in transcript.messages()[:5]] == ["SUMMARY", *everything[-3:], "after 0"]


async def test_a_second_summary_stands_for_the_first_too(conversation: Conversation) -> None:
    await conversation.say(*texts("before"))
    await conversation.compact("FIRST", 3)
    await conversation.say(*texts("after", 3))
    await conversation.compact("SECOND", 2)
    assert read(conversation.transcript) == ["SECOND", "after 1", "after 2"]
    assert read(await conversation.stored()) == ["SECOND", "after 1", "after 2"]
    path = [message.text() for message in conversation.transcript.history()]
    assert path == [*texts("before"), "FIRST", "after 0", "after 1", "after 2", "SECOND"]
    await conversation.transcript.load()
    assert read(conversation.transcript) == ["SECOND", "after 1", "after 2"]


async def test_a_shortened_message_stays_short_for_another_model_and_is_whole_in_the_history(
    conversation: Conversation,
) -> None:
    transcript, long = conversation.transcript, "word " * 1000
    for number in range(KEEP):
        result = Message.user([ToolResult(tool_use_id=f"call-{number}", content=long)])
        await conversation.store.append_entries([transcript.append(result, "run-1")])
    before = transcript.tokens
    transcript.shorten(3)
    assert transcript.tokens < before
    await conversation.say(*texts("after", 2 * KEEP))
    for wire in ("chat", "messages", "after it was loaded"):
        if wire == "after it was loaded":
            await transcript.load()
        for message in transcript.messages():
            message.encoded(wire, encode)
        sizes = [len(result.content) for message in transcript.messages() for result in message.tool_results()]
        assert [size < 700 for size in sizes] == [True] * 3 + [False] * (KEEP - 3)
    whole = [result.content for message in transcript.history() for result in message.tool_results()]
    assert whole == [long] * KEEP
