"""Changes to a tree of files by a process that kills itself at a given step, and what becomes of them.

As a program, `killable_apply.py FOLDER FIRST STRIDE`, it forks once for every STRIDE-th step from FIRST on. After each
kill a second process recovers, which is killed at a step too, and then a third. The tree must be as before or as
afterwards, and if it is as afterwards, an undo must bring it back. Prints how many kills ended each way, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from kits.steps import AtStep
from kits.trees import NEW, OLD, changes_between, contents_of, make_tree, tree_in
from mentra_nb.effect.journal import Journal
from mentra_nb.effect.undo import undo


def killed(step: int, act: Callable[[], object]) -> bool:
    """Do something in a forked process that kills itself at a step. Returns `False` if it came to its end before."""
    child = os.fork()
    if child == 0:
        with AtStep(step, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            act()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, status
    return os.WIFSIGNALED(status)


def outcome(root: Path, journal: Journal, step: int) -> str | None:
    """Apply changes that are killed at a step, recover, and return what became of them; `None` if there was no kill."""
    make_tree(root, OLD)
    changes, turn = changes_between(root, OLD, NEW), f"turn-{step}"
    if not killed(step, lambda: journal.apply(changes, contents_of(root, NEW), turn=turn, call="call")):
        return None
    recovery = 0 if killed(step * 7 % 1500, journal.recover) else 1
    recovered = journal.recover()
    assert [each for each in recovered if each.outcome == "conflict"] == []
    assert journal.recover() == []
    found = tree_in(root)
    assert found in (OLD, NEW), (step, found)
    assert not list((journal.folder / "pending").glob("effect-*/"))
    assert bool(journal.entries(turn)) == (found == NEW)
    if found == OLD:
        return f"taken back, recovery {'killed' if recovery == 0 else 'whole'}"
    assert undo(journal, turn, by=f"undo-{step}").conflicts == ()
    assert tree_in(root) == OLD
    return "finished"


def main(folder: Path, step: int, stride: int) -> None:
    """Kill at every step and print the outcomes."""
    counts: Counter[str] = Counter()
    journal = Journal(folder / "effects")
    while (found := outcome(folder / "work", journal, step)) is not None:
        counts[found] += 1
        step += stride
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]))
