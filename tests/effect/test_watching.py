"""Files that Python code of this process changes are kept as they were, entered in the journal, and undone."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from kits.trees import tree_in

from mentra_nb.effect import watching
from mentra_nb.effect.journal import Journal
from mentra_nb.effect.undo import undo
from mentra_nb.effect.watching import watching_files

CODE = """
(w / "a.txt").write_text("other")
with (w / "a.txt").open("a") as f: f.write("more")
(w / "new.txt").write_bytes(b"new")
(w / "a.txt").unlink()
(w / "a.txt").rename(w / "b.txt")
(w / "a.txt").replace(w / "sub" / "c.txt")
(w / "sub" / "c.txt").write_text("")
(w / "made").mkdir(); (w / "made" / "d.txt").write_text("d")
(w / "deep" / "er").mkdir(parents=True)
shutil.rmtree(w / "sub")
shutil.copytree(w / "sub", w / "copy")
shutil.move(w / "sub", w / "moved")
shutil.copy(w / "a.txt", w / "e.txt")
(w / "link").symlink_to("a.txt")
(w / "there").unlink()
(w / "there").write_text("through the link")
(w / "a.txt").chmod(0o600)
os.truncate(w / "a.txt", 2)
os.chdir(w); open("relative.txt", "w").close()
with open(w / "a.txt", "r+") as f: f.write("B")
with tempfile.NamedTemporaryFile(dir=w, delete=False) as f: f.write(b"x")
(w / "a.txt").read_text()
""".strip().splitlines()


def begun(folder: Path) -> Path:
    work = folder / "work"
    (work / "sub" / "inner").mkdir(parents=True)
    for name in ("a.txt", "sub/c.txt", "sub/inner/d.txt"):
        (work / name).write_text(name)
    (work / "there").symlink_to("sub/c.txt")
    return work


def test_random_edits_of_files_are_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, journal = begun(tmp_path), Journal(tmp_path / "effects")
    monkeypatch.chdir(work)
    chosen, before = random.Random(20261129), tree_in(work)
    for number in range(40):
        lines = [CODE[number]] if number < len(CODE) else chosen.choices(CODE, k=chosen.randint(1, 4))
        with watching_files(work) as watch:
            for line in lines:
                try:
                    exec(line, {"w": work, "os": os, "shutil": shutil, "tempfile": tempfile})
                except OSError:
                    continue  # an edit may not fit after another
            changed = watch.enter(journal, f"run-{number}", "call", "python")
        assert bool(changed) == (tree_in(work) != before), lines
        assert not undo(journal, f"run-{number}", by=f"undo-{number}").conflicts, lines
        assert tree_in(work) == before, lines


def test_what_lies_outside_or_is_too_large_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = begun(tmp_path)
    monkeypatch.setattr(watching, "MAX_FILE", 4)
    with watching_files(work) as watch:
        (tmp_path / "outside.txt").write_text("x")
        (work / "a.txt").write_text("other")
        (work / "new.txt").write_text("x")
        assert not watch.before.keys() & {str(tmp_path / "outside.txt")}
    assert watch.beyond == [str(work / "a.txt")]
    assert list(watch.before) == [str(work / "new.txt")]
    (work / "later.txt").write_text("x")
    assert list(watch.before) == [str(work / "new.txt")]
