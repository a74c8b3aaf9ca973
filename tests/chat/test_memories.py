"""The setting `memory`, and what is remembered as a person reads and changes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mentra_nb import paths
from mentra_nb.chat import memories as chat_memories
from mentra_nb.chat.chat import Chat, chat_on
from mentra_nb.chat.context import context_use
from mentra_nb.chat.engine import Engine
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.event.bus import NullAudit
from mentra_nb.event.screen import MemoryRecalled
from mentra_nb.event.types import TurnOrigin
from mentra_nb.memory.recall import BEGIN
from mentra_nb.notebook.commands import memories as command
from mentra_nb.notebook.commands.table import BY_NAME
from mentra_nb.providers.scripted import ScriptedProvider, text
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Settings
from mentra_nb.store.records import MemoryRecord
from mentra_nb.store.volatile import VolatileStore

NAMES = ["memory_forget", "memory_pin", "memory_search"]


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider([text("It is copper.")] * 6)


@pytest.fixture
def engine(provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr("mentra_nb.memory.keeper.RECALL_SECONDS", 60.0)  # a busy machine may take long
    runtime = Runtime([provider], builtin_tools=False, store=VolatileStore(), audit=NullAudit())
    made = Engine(Settings(model="scripted/scripted", memory="project"), runtime)
    made.offer_settings()
    monkeypatch.setattr(chat_memories, "engine", lambda: made)
    yield made
    made.close()


@pytest.fixture
def chat(engine: Engine) -> Chat:
    return chat_on(engine, "talk")


def tell(chat: Chat, prompt: str, cell: str | None = None) -> None:
    chat.start(prompt, origin=TurnOrigin(cell_id=cell)).result()


def test_the_setting_turns_memory_on_and_off_for_the_next_turn(
    engine: Engine, chat: Chat, provider: ScriptedProvider
) -> None:
    def offered() -> list[str]:
        return [tool.name for tool in provider.recorded_requests[-1].tools]

    tell(chat, "one")
    assert offered() == NAMES
    engine.settings.change("memory", "off", "test")
    engine.offer_settings()
    tell(chat, "two")
    assert offered() == []
    engine.settings.change("memory", "global", "test")
    engine.offer_settings()
    tell(chat, "three")
    assert offered() == NAMES
    frame = chat_memories.memories()
    assert [(row.scope, row.text.splitlines()[0]) for row in frame.itertuples()] == [
        ("global", "user: three"),
        ("project", "user: one"),
    ]


def test_a_turn_is_off_by_default(provider: ScriptedProvider) -> None:
    assert Settings().memory == "off"


def test_another_conversation_is_given_what_one_has_kept_and_a_person_sees_both(
    engine: Engine, chat: Chat, provider: ScriptedProvider
) -> None:
    tell(chat, "What is the kettle made of?", "cell-7")
    [row] = list(chat_memories.memories().itertuples())
    assert (row.kind, row.scope, row.conversation, row.cell_id, row.source) == (
        "episode",
        "project",
        "talk",
        "cell-7",
        "auto_ingest",
    )
    turn = chat_on(engine, "other").start("And the kettle?")
    turn.result()
    seen = [turn.events.get_nowait() for _ in range(turn.events.qsize())]
    [recalled] = [event for event in seen if isinstance(event, MemoryRecalled)]
    assert "It is copper." in recalled.lines[0]
    assert provider.recorded_requests[-1].messages[-1].text().startswith(BEGIN)


def test_a_profile_without_tools_leaves_recall_on(engine: Engine, chat: Chat, provider: ScriptedProvider) -> None:
    engine.settings.change("tool_profile", ("-*",), "test")
    tell(chat, "What is the kettle made of?")
    chat_memories.memories()  # waits for what is kept
    tell(chat_on(engine, "other"), "And the kettle?")
    last = provider.recorded_requests[-1]
    assert (last.tools, last.messages[-1].text().startswith(BEGIN)) == ([], True)


def test_what_recall_fills_of_the_context_is_a_row_of_its_own(engine: Engine, chat: Chat) -> None:
    tell(chat, "What is the kettle made of?")
    chat_memories.memories()
    other = chat_on(engine, "other")
    tell(other, "And the kettle?")
    use = {row.part: row.tokens for row in context_use(other).itertuples()}
    assert 20 < use["memories"] < 300
    assert "memories" not in set(context_use(chat).part)


def test_a_person_pins_moves_and_forgets(engine: Engine, chat: Chat) -> None:
    tell(chat, "What is the kettle made of?")
    [row] = list(chat_memories.memories().itertuples())
    for scope in ("global", "agent", "project"):
        assert chat_memories.pin(1, scope=scope) == row.text  # type: ignore[arg-type]
        [moved] = list(chat_memories.memories().itertuples())
        assert (moved.scope, moved.pinned, moved.id) == (scope, True, row.id)
    assert chat_memories.pin(row.id[-8:]) == row.text
    assert chat_memories.forget(row.id) == row.text
    assert chat_memories.memories().empty
    with pytest.raises(OperationDenied, match=r"there is no memory '1': mn.memories\(\) lists them"):
        chat_memories.forget(1)


def test_what_is_meant_must_be_one_memory_and_its_scope_one_of_three(engine: Engine) -> None:
    owner = f"project:{paths.project_root()}"
    made: list[Any] = [
        MemoryRecord(record_id=f"{n}-fact", agent_id=owner, kind="fact", content=f"text {n}", created_at=float(n))
        for n in range(2)
    ]
    engine.call(engine.runtime.store.save_memories, made)
    assert chat_memories.pin(1) == "text 1"
    with pytest.raises(OperationDenied, match="2 memories fit '-fact'"):
        chat_memories.pin("-fact")
    with pytest.raises(OperationDenied, match="comes from no conversation"):
        chat_memories.pin(1, scope="agent")
    with pytest.raises(ConfigurationError, match="a scope is"):
        chat_memories.pin(1, scope="team")  # type: ignore[arg-type]


def test_a_conversation_that_is_deleted_takes_what_was_kept_of_it_along(engine: Engine, chat: Chat) -> None:
    tell(chat, "What is the kettle made of?")
    tell(chat_on(engine, "other"), "And the pot?")
    assert len(chat_memories.memories()) == 2
    chat.close()
    engine.call(engine.runtime.store.delete_conversation, chat.id)
    assert [row.text.splitlines()[0] for row in chat_memories.memories().itertuples()] == ["user: And the pot?"]


def test_the_command_lists_pins_and_forgets(engine: Engine, chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    def run(line: str) -> Any:
        found = BY_NAME["memories"].words(line)
        assert found is not None
        return command.memories(None, found)  # type: ignore[arg-type]

    assert "Nothing is remembered" in repr(run("memories"))
    tell(chat, "What is the kettle made of?")
    assert "It is copper." in repr(run("memories"))
    run("memories pin 1")
    assert chat_memories.memories().pinned.tolist() == [True]
    run("memories forget 1")
    assert chat_memories.memories().empty
    said = capsys.readouterr().out
    assert said.splitlines()[0] == "Pinned: user: What is the kettle made of?"
    assert "Forgotten: user:" in said
