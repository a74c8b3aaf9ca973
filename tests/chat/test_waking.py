"""A background command whose turn no cell showed: its end begins no turn, and the next prompt tells the model."""

from __future__ import annotations

from pathlib import Path

from mentra_nb.chat.chat import chat_on
from mentra_nb.chat.engine import Engine
from mentra_nb.event.bus import NullAudit
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Settings
from mentra_nb.store.volatile import VolatileStore


def test_where_a_program_asked_the_end_of_a_command_begins_no_turn(tmp_path: Path) -> None:
    command = "until [ -e go ]; do sleep 0.01; done"
    build = tool_calls([("background_run", {"command": command})])
    provider = ScriptedProvider([build, text("It runs."), text("Seen.")])
    runtime = Runtime(
        [provider],
        policy=RuntimePolicy.for_notebook(),
        store=VolatileStore(),
        audit=NullAudit(),
        working_directory=tmp_path,
    )
    engine = Engine(Settings(model="scripted/scripted"), runtime)
    try:
        chat = chat_on(engine, "talk")
        chat.allow("background_run", command)
        chat.ask("build it")
        assert chat.agent_id is not None
        (tmp_path / "go").touch()
        assert engine.call(runtime.jobs.wait, chat.agent_id, "bg-1").status == "finished"
        assert engine.waking._started == {}
        assert chat.ask("and?").text == "Seen."
        assert "[bg:bg-1] status=finished" in provider.recorded_requests[-1].messages[-1].text()
    finally:
        engine.close()
