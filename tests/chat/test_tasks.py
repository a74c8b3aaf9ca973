"""The setting `tasks`: what it offers, and the board as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mentra_nb.chat import tasks as chat_tasks
from mentra_nb.chat.chat import Chat, chat_on
from mentra_nb.chat.engine import Engine
from mentra_nb.event.bus import NullAudit
from mentra_nb.event.screen import TasksUpdated
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Settings
from mentra_nb.store.volatile import VolatileStore

NAMES = ["task_claim", "task_create", "task_get", "task_list", "task_update"]
CREATE = tool_calls([("task_create", {"subject": "plan"}), ("task_create", {"subject": "build", "blockedBy": [1]})])


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider([CREATE, text("ok"), text("off"), text("on")])


@pytest.fixture
def engine(provider: ScriptedProvider) -> Iterator[Engine]:
    runtime = Runtime([provider], builtin_tools=False, store=VolatileStore(), audit=NullAudit())
    made = Engine(Settings(model="scripted/scripted", tasks=True), runtime)
    made.offer_settings()
    yield made
    made.close()


@pytest.fixture
def chat(engine: Engine) -> Chat:
    return chat_on(engine, "talk")


def test_the_setting_offers_the_tools_and_takes_them_away_again(
    engine: Engine, chat: Chat, provider: ScriptedProvider
) -> None:
    def ask() -> list[str]:
        chat.ask("go")
        return [tool.name for tool in provider.recorded_requests[-1].tools]

    assert ask() == NAMES
    engine.settings.change("tasks", False, "mn.settings")
    engine.offer_settings()
    assert ask() == []
    engine.settings.change("tasks", True, "mn.settings")
    engine.offer_settings()
    assert ask() == NAMES


def test_a_person_sees_the_board_live_and_as_a_frame(
    engine: Engine, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_tasks, "engine", lambda: engine)
    assert chat_tasks.tasks("talk").empty
    turn = chat.start("go")
    turn.future.result(20)
    seen = [turn.events.get_nowait() for _ in range(turn.events.qsize())]
    assert [len(event.tasks) for event in seen if isinstance(event, TasksUpdated)] == [1, 2]
    frame = chat_tasks.tasks("talk")
    assert frame[["id", "status", "subject", "blocked_by"]].to_numpy().tolist() == [
        [1, "pending", "plan", []],
        [2, "pending", "build", [1]],
    ]
