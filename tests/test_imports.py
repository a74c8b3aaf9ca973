"""What loads what: importing is light, and layers point one way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mentra_nb

ROOT = Path(mentra_nb.__file__).parents[1]
SCREENS = {"IPython", "ipywidgets", "anywidget", "pandas", "duckdb", "ipykernel"}
LATER = {
    *("altair", "genai_prices", "jsonschema", "markdown_it", "numpy", "pyarrow", "pygments", "regex", "yaml"),
    *(() if sys.platform == "darwin" else ("psutil",)),
}
"""What a first turn has no use for either."""
SELDOM = {
    *("mentra_nb.agent.strategy", "mentra_nb.event.rare", "mentra_nb.event.screen", "mentra_nb.providers.http"),
    *("mentra_nb.agent.trial", "mentra_nb.effect.journal", "mentra_nb.effect.types", "mentra_nb.sandbox.fenced"),
    *(
        "mentra_nb.record.write.health",
        "mentra_nb.sandbox.supervised",
        "mentra_nb.store.work_records",
        "mentra_nb.tools.post_hooks",
    ),
    "mentra_nb.tools.pre_hooks",
    *("mentra_nb.memory.config", "mentra_nb.memory.keeper", "mentra_nb.memory.tools"),
    *("mentra_nb.tools.builtin.task", "mentra_nb.tools.builtin.templates"),
    *("mentra_nb.teams.team", "mentra_nb.teams.teammate", "mentra_nb.teams.tools"),
    *("mentra_nb.task_board.board", "mentra_nb.task_board.keeper", "mentra_nb.task_board.tools"),
    *("tree_sitter", "mentra_nb.permission.denials", "mentra_nb.permission.lines", "mentra_nb.permission.programs"),
}
"""Our modules that are loaded when they are used. A turn may do without them."""
VALIDATORS = "pydantic.plugin._loader"
"""What pydantic loads when it makes its first validator."""


def loaded_by(program: str) -> set[str]:
    """The modules a fresh interpreter has after running `program`."""
    program += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = SCREENS | {"pydantic", "anyio", "httpx", "httpx2", "sqlite3", "asyncio"}
    assert loaded_by("import mentra_nb") & heavy == set()


def test_the_errors_load_nothing_heavy() -> None:
    assert (
        loaded_by("import mentra_nb; mentra_nb.errors.MentraError") & (SCREENS | {"anyio", "httpx", "httpx2"}) == set()
    )


def test_the_runtime_loads_no_screen_and_no_database() -> None:
    loaded = loaded_by("import mentra_nb; mentra_nb.Runtime")
    assert (
        loaded & (SCREENS | LATER | SELDOM | {"httpx", "httpx2", "asyncio", "sqlite3", "psutil", "portalocker"})
        == set()
    )
    assert VALIDATORS not in loaded


def test_a_first_turn_loads_no_screen_and_no_database(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
import anyio
from mentra_nb import ModelInfo, Runtime, SqliteStore, tool
from mentra_nb.record.write.journal import Journal
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls

@tool(reads_only=True)
def add(a: int, b: int) -> int:
    "Add."
    return a + b

async def main():
    provider = ScriptedProvider([tool_calls([("add", {{"a": 1, "b": 2}})]), text("3")])
    folder = Path({str(tmp_path)!r})
    async with Runtime([provider], [add], store=SqliteStore(folder / "s"), audit=Journal(folder / "record")) as runtime:
        agent = await runtime.spawn("a", ModelInfo(id="scripted", provider="scripted"))
        assert (await agent.send("1 + 2?")).text() == "3"

anyio.run(main)
"""
    loaded = loaded_by(program)
    assert loaded & (SCREENS | LATER | SELDOM | {"httpx", "httpx2"}) == set()
    assert VALIDATORS in loaded


def test_a_turn_without_calls_makes_no_events_of_calls() -> None:
    program = """
import anyio
import mentra_nb as mn

async def main():
    provider = mn.ScriptedProvider([mn.scripted.text("Three.")])
    async with mn.Runtime([provider], store=mn.VolatileStore(), builtin_tools=False) as runtime:
        agent = await runtime.spawn("a", mn.ModelInfo(id="scripted", provider="scripted"))
        assert (await agent.send("1 + 2?")).text() == "Three."

anyio.run(main)
"""
    assert loaded_by(program) & {"mentra_nb.event.calls", "mentra_nb.event.rare", "shlex"} == set()


def test_a_cell_loads_the_undo_journal_of_files_only_when_code_runs() -> None:
    loaded = loaded_by("import mentra_nb.notebook.drive, mentra_nb.notebook.python.user_kernel")
    assert loaded & {"mentra_nb.effect.apply", "mentra_nb.effect.journal", "mentra_nb.effect.watching"} == set()


def test_the_runtime_compiles_no_expression_for_secrets() -> None:
    program = """
import re, sys
compiled = []
usual = re.compile
def seen(pattern, flags=0):
    compiled.append(sys._getframe(1).f_globals["__name__"])
    return usual(pattern, flags)
re.compile = seen
import mentra_nb
mentra_nb.Runtime
re.compile = usual
assert "mentra_nb.secrets.mask" in sys.modules and "mentra_nb.permission.splitting" in compiled
assert [name for name in compiled if name.startswith("mentra_nb.secrets")] == []
from mentra_nb.secrets.mask import mask_secrets
assert mask_secrets("curl -u ann:pa55word https://example.org") == "curl -u ann:[redacted] https://example.org"
"""
    loaded_by(program)


def test_layers_point_one_way() -> None:
    pytest.importorskip("importlinter")
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_package_has_no_import_cycle() -> None:
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("mentra_nb", cache_dir=None)
    uses = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path[path.index(module) :], module))
        if module not in done:
            for used in sorted(uses[module]):
                visit(used, (*path, module))
            done.add(module)

    for module in sorted(uses):
        visit(module, ())
