"""Changes to a tree of files by a process that kills itself at a given step, and what becomes of them.

As a program, `killable_apply.py FOLDER STRIDE RECOVERIES`, it makes each change of `SHAPES` in forked processes that
kill themselves before or after every STRIDE-th call that changes the file system. After each kill a second process
recovers, which is killed at a step too, and then a third; after every RECOVERIES-th kill the second one is killed at
each of its steps in turn. The tree must be as before or as afterwards, and if it is as afterwards, an undo must bring
it back. Prints, as JSON, how many kills of each shape ended each way.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from kits.steps import AtStep
from kits.trees import NEW, OLD, Tree, changes_between, contents_of, make_tree, tree_in
from mentra_nb.effect import journal
from mentra_nb.effect.journal import Journal
from mentra_nb.effect.undo import undo

DEEP: Tree = {
    **{f"d{n}": ("folder", 0o755, b"") for n in range(3)},
    **{f"d{n}/e{m}": ("folder", 0o750, b"") for n in range(3) for m in range(2)},
    **{f"d{n}/e{m}/f": ("file", 0o644, b"%d%d" % (n, m)) for n in range(3) for m in range(2)},
}
AT_ONCE = "all, written to disk at once"
FILE: Tree = {"f": ("file", 0o644, b"one")}
SHAPES: dict[str, tuple[Tree, Tree]] = {
    "create": ({}, FILE),
    "change": (FILE, {"f": ("file", 0o600, b"two")}),
    "delete": (FILE, {}),
    "rename": (FILE, {"g": ("file", 0o644, b"one")}),
    "mode": (
        {"f": ("file", 0o644, b"x"), "d": ("folder", 0o755, b"")},
        {"f": ("file", 0o755, b"x"), "d": ("folder", 0o700, b"")},
    ),
    "link": ({"l": ("link", 0, b"f"), **FILE}, {"l": ("link", 0, b"elsewhere"), "f": ("link", 0, b"l")}),
    "type": (
        {"a": ("file", 0o644, b"a"), "b": ("folder", 0o755, b""), "b/c": ("file", 0o644, b"c"), "d": ("link", 0, b"a")},
        {"a": ("folder", 0o755, b""), "a/c": ("file", 0o644, b"c"), "b": ("link", 0, b"a"), "d": ("file", 0o644, b"d")},
    ),
    "make many folders": ({}, DEEP),
    "delete many folders": (DEEP, {}),
    "all": (OLD, NEW),
    AT_ONCE: (OLD, NEW),
}


def killed(step: int, act: Callable[[], object]) -> bool:
    """Do something in a forked process that kills itself at a step. Returns `False` if it came to its end before."""
    child = os.fork()
    if child == 0:
        with AtStep(step, lambda: os.kill(os.getpid(), signal.SIGKILL), changing=True):
            act()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, status
    return os.WIFSIGNALED(status)


@dataclass
class Case:
    """A change that is killed at a step, and mended by a process that is killed at another one."""

    root: Path
    journal: Journal
    old: Tree
    new: Tree

    def run(self, step: int, recovery: int) -> tuple[str, bool] | None:
        """Return what became of the files, and whether the recovery was killed; `None` if the change was not."""
        make_tree(self.root, self.old)
        shutil.rmtree(self.journal.folder, ignore_errors=True)
        changes = changes_between(self.root, self.old, self.new)
        if not killed(step, lambda: self.journal.apply(changes, contents_of(self.root, self.new), turn="t", call="c")):
            return None
        again = killed(recovery, self.journal.recover)
        assert [each for each in self.journal.recover() if each.outcome == "conflict"] == [], (step, recovery)
        assert self.journal.recover() == []
        found = tree_in(self.root)
        assert found in (self.old, self.new), (step, recovery, found)
        assert not list((self.journal.folder / "pending").glob("effect-*/"))
        assert bool(self.journal.entries("t")) == (found == self.new)
        if found == self.old:
            return "taken back", again
        assert undo(self.journal, "t", by="u").conflicts == ()
        assert tree_in(self.root) == self.old
        return "finished", again

    def enter(self, step: int) -> str | None:
        """Return whether changes that were made already can be undone after a kill while they are entered."""
        make_tree(self.root, self.old)
        shutil.rmtree(self.journal.folder, ignore_errors=True)
        changes, images = changes_between(self.root, self.old, self.new), {}
        for number, change in enumerate(changes):
            if change.before is not None and change.before.has_content:
                images[change.path] = self.root.parent / f"image-{number}"
                images[change.path].write_bytes(contents_of(self.root, self.old)(change.path).read())
        make_tree(self.root, self.new)
        if not killed(step, lambda: self.journal.enter(changes, images, turn="t", call="c")):
            return None
        assert [each for each in self.journal.recover() if each.outcome != "finished"] == [], step
        assert tree_in(self.root) == self.new
        if not self.journal.entries("t"):
            return "not entered"
        assert undo(self.journal, "t", by="u").conflicts == ()
        assert tree_in(self.root) == self.old
        return "entered"


def _words(outcome: str, again: bool) -> str:
    return f"{outcome}, recovery killed" if again else outcome


def main(folder: Path, stride: int, recoveries: int) -> None:
    """Kill at the steps and print the outcomes."""
    counts: dict[str, Counter[str]] = {}
    for name, (old, new) in SHAPES.items():
        journal.MANY = 0 if name == AT_ONCE else 64
        case, found = Case(folder / "work", Journal(folder / "effects"), old, new), counts.setdefault(name, Counter())
        for step in count(0, stride):
            outcome = case.run(step, step * 7 % 30)
            if outcome is None:
                break
            found[_words(*outcome)] += 1
            for recovery in count() if step % (stride * recoveries) == 0 else ():
                outcome = case.run(step, recovery)
                assert outcome is not None
                if not outcome[1]:
                    break
                found[_words(*outcome)] += 1
        for step in count(0, stride):
            if (entered := case.enter(step)) is None:
                break
            found[entered] += 1
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]))
