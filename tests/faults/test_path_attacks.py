"""A second process swaps files and folders with links that lead outside, while the tools of files work on them.

Nothing outside is read, written, made or deleted. `MENTRA_FAULT_KILLS` makes it 10,000 tries.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from kits import link_swapper
from kits.trees import tree_in

from mentra_nb.permission.policy import PolicyViolation, RuntimePolicy
from mentra_nb.sandbox.executor import LocalExecutor
from mentra_nb.tools.builtin.files.batch import FilesTool
from mentra_nb.tools.builtin.files.single import ReadTool, WriteTool
from mentra_nb.tools.schema import ToolError
from mentra_nb.tools.tool import Tool, ToolContext

TRIES = 10_000 if os.environ.get("MENTRA_FAULT_KILLS") else 400
MEMORY = Path("/dev/shm")
PRIVATE = "what nobody may read"
CALLS: list[tuple[Tool, dict[str, Any]]] = [
    (FilesTool(), {"operations": [operation]})
    for operation in (
        {"op": "read", "path": "d/private"},
        {"op": "read", "path": "f"},
        {"op": "list", "path": "d", "depth": 3},
        {"op": "search", "path": ".", "pattern": "."},
        {"op": "search", "path": "d", "pattern": "."},
        {"op": "create", "path": "d/made/new.txt", "content": "x"},
        {"op": "set", "path": "f", "content": "x"},
        {"op": "set", "path": "d/private", "content": "x"},
        {"op": "replace", "path": "d/private", "old": "nobody", "new": "everybody"},
        {"op": "delete", "path": "d/private"},
        {"op": "delete", "path": "f"},
        {"op": "move", "from": "d/private", "to": "stolen"},
        {"op": "move", "from": "f", "to": "d/moved"},
    )
] + [
    (WriteTool(), {"path": "d/private", "content": "x"}),
    (WriteTool(), {"path": "f", "content": "x"}),
    (ReadTool(), {"path": "f"}),
]

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(sys.platform == "win32", reason="needs directory handles"),
    pytest.mark.timeout(1200),
]


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        for name in ("outside", "work/d"):
            (Path(folder) / name).mkdir(parents=True)
        (Path(folder) / "outside" / "private").write_text(PRIVATE)
        yield Path(folder).resolve()


def context(folder: Path, number: int) -> ToolContext:
    return ToolContext(
        agent_id="a",
        agent_name="tester",
        model="m",
        run_id=f"run-{number}",
        tool_call_id=f"call-{number}",
        tool_name="files",
        working_directory=folder,
        policy=RuntimePolicy(),
        executor=LocalExecutor(),
    )


async def tried(tool: Tool, given: dict[str, Any], ctx: ToolContext) -> str:
    """Go the way of a call, and return its result, or how it was refused."""
    try:
        arguments = tool.validate(given)
        tool.check_policy(ctx, arguments)
        tool.subject(ctx, arguments)
        tool.structured_input(ctx, arguments)
        return str((await tool.execute(ctx, arguments)).content)
    except PolicyViolation:
        return "refused by the policy"
    except ToolError:
        return "failed"
    except OSError:
        return "no such path"


def test_nothing_outside_is_touched_while_links_are_swapped(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENTRA_HOME", str(place / "home"))
    work, outside = place / "work", place / "outside"
    before, outcomes = tree_in(outside), Counter[str]()

    async def attack() -> None:
        for number in range(TRIES):
            for name in ("d/private", "f"):
                with_file = work / name
                try:
                    if not with_file.is_symlink() and not with_file.parent.is_symlink():
                        with_file.open("x").close()
                except OSError:
                    pass
            tool, given = CALLS[number % len(CALLS)]
            found = await tried(tool, given, context(work, number))
            assert PRIVATE not in found
            outcomes[found if found in ("refused by the policy", "failed", "no such path") else "done"] += 1
            assert tree_in(outside) == before, given

    program = [sys.executable, link_swapper.__file__, str(work), str(outside)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as swapper:
        try:
            assert swapper.stdout is not None
            assert swapper.stdout.readline() == b"ready\n"
            anyio.run(attack)
        finally:
            swapper.kill()
    print(dict(outcomes))
    assert outcomes["done"] > TRIES / 20
    assert outcomes["done"] < TRIES
