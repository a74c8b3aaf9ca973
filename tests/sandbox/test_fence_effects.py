"""What is said of a command's effect is what it would have done, for any commands.

`MENTRA_FAULT_EFFECTS` sets how many sequences of commands are tried.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kits.fences import ENV, changed, fenced, needs_fence
from kits.trees import Tree, changes_between, make_tree, tree_in

from mentra_nb.effect.journal import Journal
from mentra_nb.effect.undo import undo

EXAMPLES = int(os.environ.get("MENTRA_FAULT_EFFECTS", "10"))
pytestmark = pytest.mark.slow

WITHOUT_POWER = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
"""Root may write what it may not, which it cannot in the sandbox."""
NAMES = ["a", "b", "c d", "é"]
PATHS = [*NAMES, *(f"{above}/{name}" for above in NAMES[:3] for name in NAMES[:2]), "a/b/a", "b/a/b"]
paths = st.sampled_from(PATHS).map(shlex.quote)
content = st.binary(max_size=20)
nodes = st.one_of(
    st.tuples(st.just("file"), st.sampled_from([0o644, 0o600, 0o755, 0o444]), content),
    st.tuples(st.just("folder"), st.sampled_from([0o755, 0o700]), st.just(b"")),
    st.tuples(st.just("link"), st.just(0), st.sampled_from([b"a", b"../b", b"/etc/passwd", b"nowhere"])),
)
modes = st.sampled_from(["600", "755", "4711", "640"])
commands = st.one_of(
    st.builds("printf %s {1} >{0}".format, paths, st.sampled_from(["x", "yy", "''"])),
    st.builds("printf z >>{}".format, paths),
    st.builds("rm -f {}".format, paths),
    st.builds("rm -rf {}".format, paths),
    st.builds("rmdir {}".format, paths),
    st.builds("mkdir {}".format, paths),
    st.builds("mkdir -p {}".format, paths),
    st.builds("mv -T {} {}".format, paths, paths),
    st.builds("cp -r {} {}".format, paths, paths),
    st.builds("ln {} {}".format, paths, paths),
    st.builds("ln -sfT {} {}".format, paths, paths),
    st.builds("chmod {} {}".format, modes, paths),
    st.builds("touch {}".format, paths),
    st.builds("truncate -s 3 {}".format, paths),
    st.builds("rm -rf {0}; mkdir {0}".format, paths),
)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Draw what is in a folder: each path below another that is no folder is left out."""
    wanted = draw(st.dictionaries(st.sampled_from(PATHS), nodes, max_size=8))
    found: Tree = {}
    for name in sorted(wanted):
        above = name.rpartition("/")[0]
        if not above or found.get(above, ("", 0, b""))[0] == "folder":
            found[name] = wanted[name]
    return found


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="MENTRA_FAULT_EFFECTS" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(trees(), st.lists(commands, min_size=1, max_size=8))
def test_the_effect_is_the_difference_and_can_be_discarded_kept_and_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Tree, lines: list[str]
) -> None:
    needs_fence()
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "home"))
    workspace, plain, script = tmp_path / "workspace", tmp_path / "plain", "\n".join(lines)
    make_tree(workspace, tree)
    make_tree(plain, tree)
    subprocess.run([*WITHOUT_POWER, "sh", "-c", script], cwd=plain, env=ENV, capture_output=True, check=False)
    expected = tree_in(plain)
    with fenced(script, workspace) as run:
        assert run.problem is None
        assert tree_in(workspace) == tree, "the command itself changed something"
        found = sorted(run.effect.changes, key=lambda change: change.path)
        assert found == sorted(changes_between(workspace, tree, expected), key=lambda change: change.path)
        journal = Journal()
        if found:
            journal.apply(found, run.contents, turn="turn", call="call")
            assert tree_in(workspace) == expected
            undone = undo(journal, "turn", by="later")
            assert undone.conflicts == ()
            assert tree_in(workspace) == tree
    shutil.rmtree(tmp_path / "home", ignore_errors=True)


IMPORTS = "import sys; sys.path.insert(0, '.'); import module"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with a Git repository, whose index is out of date, and a module."""
    needs_fence()
    (tmp_path / "module.py").write_text("x = 1\n")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True)
    os.utime(tmp_path / "module.py", (1, 1))
    return tmp_path


@pytest.fixture
def env(repository: Path) -> dict[str, str]:
    """The variables of a command that finds the programs of this environment."""
    with fenced(f"test -x {shlex.quote(sys.executable)}", repository) as run:
        if not run.output.success:
            pytest.skip(f"the sandbox hides the folder of {sys.executable}")
    return ENV | {"PATH": f"{Path(sys.executable).parent}:{ENV['PATH']}"}


@pytest.mark.parametrize(
    "command",
    [
        "git status --short",
        f'python -c "{IMPORTS}"',
        "ruff check --isolated module.py",
        "ruff format --isolated --check module.py",
        "pip list | grep nothing-of-this-name; test $? = 1",
    ],
)
def test_programs_that_only_read_leave_nothing_to_ask_about(
    repository: Path, env: dict[str, str], command: str
) -> None:
    with fenced(command, repository, env=env) as run:
        assert run.output.success, run.output.stderr
        assert (changed(run, repository), run.effect.wanted) == ({}, ())


def test_the_environment_of_a_command_says_whether_it_leaves_caches(repository: Path, env: dict[str, str]) -> None:
    with fenced(f'python -c "{IMPORTS}"', repository, env=env | {"PYTHONDONTWRITEBYTECODE": ""}) as run:
        assert changed(run, repository)["__pycache__"] == "created"
