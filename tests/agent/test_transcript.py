"""The path that is in memory: what it keeps, and that leaving it leaves nothing behind."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from mentra_nb.agent.transcript import KEEP, Transcript, TranscriptPath
from mentra_nb.content import Image, Message
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

    async def say(self, *texts: str, wire: str = "chat", picture: bool = False) -> None:
        for text in texts:
            message = Message.user([*Message.user(text).content, *[PICTURE] * picture])
            await self.store.append_entries([self.transcript.append(message, "run-1")])
            for sent in self.transcript.messages():
                sent.encoded(wire, encode)


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
    await conversation.say(*texts("before"))
    await transcript.ready_for("one model")
    await conversation.say(*texts("sent"))
    transcript.messages()[0].text()
    kept, expected = transcript.snapshot(), parts(transcript.snapshot())

    await transcript.ready_for("another model")
    await conversation.say(*texts("left", 3 * KEEP), wire="messages", picture=True)
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
