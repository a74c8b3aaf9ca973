"""A kernel is killed between the end of a background command and the turn that tells it, or in that turn: told once.

Two moments are tested; with `MENTRA_FAULT_KILLS` all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kits.notebooks import Notebook

LONG = bool(os.environ.get("MENTRA_FAULT_KILLS"))

pytestmark = [
    pytest.mark.fault,
    pytest.mark.kernel,
    pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9"),
]

DIES = """
import os, signal
def dies(when, name):
    "Kill this process when the store is asked to do `name`: before it is done, or after."
    store = engine().runtime.store
    real = getattr(store, name)
    async def killed(*args, **options):
        if when == "after":
            await real(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    object.__setattr__(store, name, killed)
"""
SHORT = ["after finish_job", "in the request"]
MOMENTS = [
    *SHORT,
    "before finish_job",
    "before take_notifications",
    "after take_notifications",
    "before acknowledge_notifications",
    "after acknowledge_notifications",
]
"""Where the process is killed: at a step of its store, or while the model answers."""


def until_dead(notebook: Notebook) -> None:
    process = notebook.manager.provisioner.process  # type: ignore[union-attr]  # a local kernel has one
    assert isinstance(process, subprocess.Popen)
    assert process.wait(20) == -9


@pytest.mark.parametrize("moment", MOMENTS if LONG else SHORT)
def test_a_result_is_told_once_and_a_new_kernel_asks_nothing_by_itself(tmp_path: Path, moment: str) -> None:
    running = Notebook(tmp_path)
    try:
        running.begin()
        (running.work / "build.sh").write_text("until [ -e go ]; do sleep 0.01; done; echo built")
        running.run("mn.allow('background_run', 'sh build.sh')")
        call = "s.tool_calls([s.ScriptedCall('background_run', {'command': 'sh build.sh'}, 'call-b')])"
        answer = "silent('As I was saying')" if moment == "in the request" else "s.text('It is built.')"
        running.script(call, "s.text('It runs.')", answer)
        cell = running.run("%mentra build it")
        assert "It runs." in cell.texts()
        when, _, step = moment.partition(" ")
        if when != "in":
            running.run(f"{DIES}\ndies({when!r}, {step!r})")
        (running.work / "go").touch()
        if when == "in":
            running.until(lambda: "As I was saying" in cell.texts())
            running.manager.provisioner.process.kill()  # type: ignore[union-attr]
        until_dead(running)
    finally:
        running.close()
    fresh = Notebook(tmp_path)
    try:
        fresh.begin()
        fresh.script("s.text('First.')", "s.text('Second.')", "s.text('Third.')")
        fresh.run("%mentra")
        fresh.run("%mentra sessions")
        assert fresh.value("len(model.recorded_requests)") == 0
        resumed = fresh.run("%mentra resume")
        assert resumed.status == "ok", resumed.error
        if "finish_job" in moment:  # no turn has broken off
            assert fresh.value("len(model.recorded_requests)") == 0
        assert fresh.run("%mentra and?").status == "ok"
        assert sum("[bg:bg-1]" in text for text in fresh.said()) == 1
        fresh.run("%mentra and now?")
        assert sum("[bg:bg-1]" in text for text in fresh.said()) == 1
    finally:
        fresh.close()
