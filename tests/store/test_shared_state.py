"""A runtime on a state store in PostgreSQL, which other machines share."""

from __future__ import annotations

from pathlib import Path

import pytest
from kits.core import MODEL
from kits.postgres import Server

from mentra_nb.errors import FailedToStreamResponse, HttpError, LeaseUnavailable
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.scripted import ScriptedProvider, failure, text, tool_calls
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.tools.function import tool

pytestmark = pytest.mark.anyio

ran: list[str] = []


@tool
def act(what: str = "") -> str:
    """Do it."""
    ran.append(what)
    return "done"


async def test_a_conversation_moves_from_one_machine_to_another(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MENTRA_STATE", postgres.new_database())
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path))
    first = ScriptedProvider([tool_calls([("act", {"what": "a"})]), failure(HttpError(400))])
    second = ScriptedProvider([text("there")])
    async with (
        Runtime([first], [act], builtin_tools=False, audit=NullAudit()) as here,
        Runtime([second], [act], builtin_tools=False, audit=NullAudit()) as there,
    ):
        session = await here.create_session("talk", MODEL, project_id="/p")
        await session.permissions.add_rule("act", "*", allow=True, scope="project")
        with pytest.raises(FailedToStreamResponse):
            await session.append_turn("go")
        with pytest.raises(LeaseUnavailable):
            await there.resume_session("talk", "/p")
        await session.close()
        moved = await there.resume_session("talk", "/p")
        assert (await moved.resume_turn()).text() == "there"
        assert [rule.tool for rule in await moved.remembered_rules()] == ["act"]
        assert len(moved.history()) == 4
    assert ran == ["a"]
    assert not (tmp_path / "state.sqlite").exists()
