"""What the tools of a runtime do to files: recorded, undoable, and mended when their process was killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from kits.core import MODEL, Recorder
from kits.trees import NEW, OLD, changes_between, contents_of, make_tree, tree_in

from mentra_nb.authorization import allow_everything
from mentra_nb.effect.journal import Journal
from mentra_nb.event.bus import NullAudit
from mentra_nb.event.effects import EffectMade
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import tool
from mentra_nb.tools.tool import Delegate, ToolContext

pytestmark = pytest.mark.anyio


async def test_what_a_call_did_to_files_is_recorded_before_its_result(tmp_path: Path) -> None:
    recorder = Recorder()
    operations = [{"op": "create", "path": "a.txt", "content": "x\n"}]
    calls = tool_calls([("files", {"operations": operations}), ("write", {"path": "b.txt", "content": "y"})])
    async with Runtime(
        [ScriptedProvider([calls, text("done")])],
        store=VolatileStore(),
        audit=NullAudit(),
        hooks=[recorder],
        authorizer=allow_everything,
        working_directory=tmp_path,
    ) as runtime:
        agent = await runtime.spawn("a", MODEL)
        await agent.send("write")
    made = recorder.of(EffectMade)
    assert [(event.tool_name, event.files[0].path, event.files[0].change) for event in made] == [
        ("files", str(tmp_path / "a.txt"), "created"),
        ("write", str(tmp_path / "b.txt"), "created"),
    ]
    kinds = [(event.kind, getattr(event, "tool_name", "")) for event in recorder.events]
    assert kinds.index(("effect_made", "write")) < kinds.index(("tool_execution_finished", "write"))
    entries = Journal().entries(str(made[0].run_id))
    assert [entry.id for entry in entries] == [event.entry for event in made]


async def test_a_runtime_mends_and_records_what_a_killed_process_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path.resolve() / "work"
    make_tree(root, OLD)

    def dies(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_make_all", dies)
        with pytest.raises(SystemExit):
            Journal().apply(
                changes_between(root, OLD, NEW), contents_of(root, NEW), turn="run-9", call="call-9", tool="files"
            )
    assert list(root.rglob("*.mentra-tmp"))
    recorder = Recorder()
    async with Runtime([ScriptedProvider()], store=VolatileStore(), audit=NullAudit(), hooks=[recorder]) as runtime:
        await runtime.spawn("a", MODEL)
    assert tree_in(root) == OLD
    [mended] = recorder.of(EffectMade)
    assert (mended.outcome, mended.run_id, mended.tool_call_id) == ("taken_back", "run-9", "call-9")


@tool
async def ask_another(question: str, context: ToolContext) -> str:
    """Give a task to a subagent."""
    return await context.service(Delegate)(question)


async def test_what_a_subagent_did_to_files_names_it(tmp_path: Path) -> None:
    recorder = Recorder()
    writes = (tool_calls([("write", {"path": f"{name}.txt", "content": "x"})]) for name in ("inner", "outer"))
    inner, outer = writes
    script = [tool_calls([("ask_another", {"question": "write"})]), inner, text("done"), outer, text("done")]
    async with Runtime(
        [ScriptedProvider(script)],
        [ask_another],
        store=VolatileStore(),
        audit=NullAudit(),
        hooks=[recorder],
        authorizer=allow_everything,
        working_directory=tmp_path,
    ) as runtime:
        agent = await runtime.spawn("a", MODEL)
        await agent.send("write")
    assert [(event.files[0].path, event.agent_name) for event in recorder.of(EffectMade)] == [
        (str(tmp_path / "inner.txt"), "a::task"),
        (str(tmp_path / "outer.txt"), "a"),
    ]
