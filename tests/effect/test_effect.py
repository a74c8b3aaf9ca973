"""Changes to a tree of files: whole or not at all, undone and done again, never over somebody else's change."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kits.steps import AtStep
from kits.trees import NEW, OLD, Node, Tree, changes_between, contents_of, make_tree, state_of, tree_in

from mentra_nb.effect.apply import moves, take_back
from mentra_nb.effect.handles import exchange, folder, parent, state
from mentra_nb.effect.journal import MANY, Journal
from mentra_nb.effect.types import Conflict, Effect, FileChange, FileState, Want
from mentra_nb.effect.undo import plan_undo, undo

LONG = bool(os.environ.get("MENTRA_FAULT_KILLS"))
NAMES = ("a", "b", "c")
PATHS = [*NAMES, *(f"{one}/{two}" for one in NAMES for two in NAMES), "a/a/a", "a/a/b"]

nodes = st.one_of(
    st.tuples(st.just("file"), st.sampled_from([0o644, 0o600, 0o755]), st.binary(max_size=8)),
    st.tuples(st.just("folder"), st.sampled_from([0o755, 0o700]), st.just(b"")),
    st.tuples(st.just("link"), st.just(0), st.sampled_from([b"b", b"nowhere", b"/etc", b".."])),
)


def whole(drawn: dict[str, Node]) -> Tree:
    """Return a tree in which everything is in a folder."""
    tree: Tree = {}
    for name in sorted(drawn):
        above = name.rpartition("/")[0]
        if not above or (above in tree and tree[above][0] == "folder"):
            tree[name] = drawn[name]
    return tree


trees = st.dictionaries(st.sampled_from(PATHS), nodes, max_size=10).map(whole)
REMOVED = {"a": ("folder", 0o755, b""), "a/a": ("folder", 0o700, b""), "a/a/a": ("file", 0o644, b"1")}


@pytest.fixture
def place(in_memory: Path) -> tuple[Path, Journal]:
    return in_memory / "work", Journal(in_memory / "effects")


def apply(journal: Journal, root: Path, old: Tree, new: Tree, turn: str = "turn-1") -> Any:
    changes = changes_between(root, old, new)
    return journal.apply(changes, contents_of(root, new), turn=turn, call="call-1") if changes else None


def nothing_is_left(root: Path, journal: Journal) -> bool:
    pending = journal.folder / "pending"
    return not list(root.rglob("*.mentra-tmp")) and not (pending.is_dir() and list(pending.iterdir()))


@pytest.mark.slow
@given(old=trees, new=trees)
@example(old=REMOVED, new={"a": ("file", 0o600, b"2")})
@example(old={"a": ("file", 0o600, b"2")}, new=REMOVED)
@example(old=REMOVED, new={})
@settings(max_examples=1000 if LONG else 60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_tree_becomes_another_is_undone_and_done_again(place: tuple[Path, Journal], old: Tree, new: Tree) -> None:
    root, journal = place
    journal = Journal(journal.folder / str(len(list(journal.folder.parent.iterdir()))) / os.urandom(4).hex())
    make_tree(root, old)
    if apply(journal, root, old, new) is None:
        return
    assert tree_in(root) == new
    assert undo(journal, "turn-1", by="turn-2").conflicts == ()
    assert tree_in(root) == old
    assert undo(journal, "turn-1", by="turn-3").entry is None
    assert undo(journal, "turn-2", by="turn-4").conflicts == ()
    assert tree_in(root) == new
    assert nothing_is_left(root, journal)


def overwrite(path: Path) -> None:
    path.write_bytes(b"somebody else's")


def put_in_place(path: Path) -> None:
    other = path.parent.parent / "other"
    other.write_bytes(b"somebody else's")
    other.replace(path)


@pytest.mark.slow
@pytest.mark.parametrize("write", [overwrite, put_in_place])
@pytest.mark.parametrize("name", ["changed.txt", "deleted.txt", "folder/inner.txt", "kept.txt", "added.txt"])
def test_what_somebody_else_writes_at_any_step_is_kept(
    place: tuple[Path, Journal], write: Callable[[Path], None], name: str
) -> None:
    root, journal = place
    step, stride, outcomes = len(name) * 11, 7 if LONG else 311, set()
    while True:
        make_tree(root, OLD)
        there = []

        def act(there: list[bool] = there) -> None:
            if (root / name).parent.is_dir():
                write(root / name)
                there.append(True)

        at = AtStep(step, act)
        try:
            with at:
                apply(journal, root, OLD, NEW, f"turn-{step}")
            outcomes.add("made")
        except Conflict:
            outcomes.add("refused")
        if not at.acted:
            break
        if there:
            assert (root / name).read_bytes() == b"somebody else's"
        found = tree_in(root)
        expected = [{**tree, **({name: found[name]} if there else {})} for tree in (OLD, NEW)]
        if name == "folder/inner.txt" and "folder" in found and found["folder"][0] == "folder":
            expected.append({**OLD, name: found[name]})
        assert found in expected, step
        assert nothing_is_left(root, journal)
        step += stride
    assert "made" in outcomes
    assert name in ("kept.txt", "added.txt") or "refused" in outcomes


def test_a_folder_that_a_killed_recovery_has_made_again_is_no_conflict(place: tuple[Path, Journal]) -> None:
    root, _ = place
    old, new = {"b": ("folder", 0o755, b"")}, {"b": ("link", 0, b"a")}
    make_tree(root, old)
    [put] = [move for move in moves(changes_between(root, old, new), "id") if move.kind == "put"]
    for mode, is_ours in ((0o755, True), (0o700, True), (0o711, False)):
        (root / "b").chmod(mode)
        assert take_back(put, contents_of(root, old)) is is_ours
        assert tree_in(root) == {"b": ("folder", mode, b"")}


def test_many_changes_are_written_to_disk_together(
    place: tuple[Path, Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, journal = place
    written: list[int] = []
    monkeypatch.setattr(os, "fsync", written.append)
    many: Tree = {f"f{n}": ("file", 0o644, b"%d" % n) for n in range(MANY + 1)}
    make_tree(root, many)
    apply(journal, root, many, {})
    assert tree_in(root) == {}
    assert len(written) < MANY / 2
    assert undo(journal, "turn-1", by="turn-2").conflicts == ()
    assert tree_in(root) == many


def test_recovery_restores_from_images_what_nobody_changed_since(
    place: tuple[Path, Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, journal = place
    make_tree(root, OLD)

    def dies(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_move", dies)
        with pytest.raises(SystemExit):
            apply(journal, root, OLD, NEW)
    assert tree_in(root) == NEW
    (root / "changed.txt").write_bytes(b"mine")
    [recovered] = journal.recover()
    assert (recovered.outcome, recovered.paths) == ("conflict", (str(root / "changed.txt"),))
    assert tree_in(root) == {**OLD, "changed.txt": ("file", 0o640, b"mine")}
    [kept] = (journal.folder / "conflicts").iterdir()
    assert b"before" in [image.read_bytes() for image in (kept / "images").iterdir()]
    assert journal.turns() == []
    assert nothing_is_left(root, journal)


def test_recovery_leaves_alone_what_a_living_process_applies(
    place: tuple[Path, Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, journal = place
    make_tree(root, OLD)
    found = []
    monkeypatch.setattr(Journal, "_make_all", lambda *_: found.append(Journal(journal.folder).recover()))
    apply(journal, root, OLD, NEW)
    assert found == [[]]


@pytest.mark.parametrize("name", ["changed.txt", "deleted.txt", "folder/inner.txt"])
def test_a_changed_file_stops_the_whole_batch(place: tuple[Path, Journal], name: str) -> None:
    root, journal = place
    make_tree(root, OLD)
    (root / name).write_bytes(b"other")
    before = tree_in(root)
    with pytest.raises(Conflict, match=name) as raised:
        apply(journal, root, OLD, NEW)
    assert raised.value.paths == (str(root / name),)
    assert tree_in(root) == before
    assert journal.turns() == []


def test_another_mode_or_type_is_a_conflict_too(place: tuple[Path, Journal]) -> None:
    root, journal = place
    make_tree(root, OLD)
    (root / "changed.txt").chmod(0o600)
    with pytest.raises(Conflict):
        apply(journal, root, OLD, NEW)
    make_tree(root, {**OLD, "changed.txt": ("link", 0, b"kept.txt")})
    with pytest.raises(Conflict):
        apply(journal, root, OLD, NEW)
    assert tree_in(root)["kept.txt"][2] == b"kept"


def test_new_content_must_have_the_digest_that_was_decided_about(place: tuple[Path, Journal]) -> None:
    root, journal = place
    make_tree(root, OLD)
    with pytest.raises(Conflict, match="decided about"):
        journal.apply(changes_between(root, OLD, NEW), lambda path: io.BytesIO(b"?"), turn="t", call="c")
    assert tree_in(root) == OLD
    assert nothing_is_left(root, journal)


def test_pipes_and_sockets_are_neither_read_nor_changed(place: tuple[Path, Journal]) -> None:
    root, journal = place
    root.mkdir()
    os.mkfifo(root / "pipe")
    found = state(str(root / "pipe"))
    assert found is not None
    assert found.type == "other"
    with pytest.raises(Conflict, match="not a file, folder or link"):
        journal.apply([FileChange(str(root / "pipe"), found, None)], contents_of(root, {}), turn="t", call="c")


def test_an_undo_leaves_what_somebody_changed_since(place: tuple[Path, Journal]) -> None:
    root, journal = place
    make_tree(root, OLD)
    apply(journal, root, OLD, NEW)
    (root / "changed.txt").write_bytes(b"mine")
    (root / "made" / "mine.txt").write_bytes(b"mine")
    plan = plan_undo(journal, "turn-1")
    undone = undo(journal, "turn-1", by="turn-2")
    assert plan.conflicts == undone.conflicts == (str(root / "changed.txt"), str(root / "made"))
    expected = {**OLD, "changed.txt": ("file", 0o640, b"mine"), "made": ("folder", 0o755, b"")}
    assert {k: v for k, v in tree_in(root).items() if k != "made/mine.txt"} == expected
    assert (root / "made" / "mine.txt").read_bytes() == b"mine"


def test_an_undo_goes_back_only_to_what_somebody_wrote_between_two_calls(place: tuple[Path, Journal]) -> None:
    root, journal = place
    make_tree(root, {"f": ("file", 0o644, b"1")})
    apply(journal, root, {"f": ("file", 0o644, b"1")}, {"f": ("file", 0o644, b"2")})
    (root / "f").write_bytes(b"mine")
    apply(journal, root, {"f": ("file", 0o644, b"mine")}, {"f": ("file", 0o644, b"3")})
    undone = undo(journal, "turn-1", by="turn-2")
    assert (root / "f").read_bytes() == b"mine"
    assert undone.conflicts == (str(root / "f"),)


def test_several_calls_of_a_turn_are_undone_together(place: tuple[Path, Journal]) -> None:
    root, journal = place
    first, second, third = ({"f": ("file", 0o644, text)} for text in (b"1", b"2", b"3"))
    make_tree(root, first)
    apply(journal, root, first, second)
    apply(journal, root, second, third)
    assert [len(each.changes) for each in journal.entries("turn-1")] == [1, 1]
    assert undo(journal, "turn-1", by="turn-2").changes == tuple(changes_between(root, third, first))
    assert tree_in(root) == first
    assert journal.turns() == ["turn-2", "turn-1"]
    assert journal.entries("turn-2")[0].undoes == "turn-1"


def test_the_oldest_turns_are_dropped_over_the_bound(place: tuple[Path, Journal]) -> None:
    root, journal = place
    trees = [{"f": ("file", 0o644, bytes([number]) * 10_000)} for number in range(4)]
    make_tree(root, trees[0])
    for number in range(3):
        apply(journal, root, trees[number], trees[number + 1], f"turn-{number}")
    journal.max_bytes = 15_000
    assert journal.prune() == ["turn-0", "turn-1"]
    assert journal.turns() == ["turn-2"]
    journal.max_bytes = 0
    assert journal.prune() == []  # the last turn can be undone in any case


def test_the_bound_holds_as_entries_are_made_and_what_is_dropped_is_said(
    place: tuple[Path, Journal], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root, journal = place
    monkeypatch.setattr("mentra_nb.effect.journal.PRUNE_EVERY", 1)
    journal.max_bytes = 25_000
    trees = [{"f": ("file", 0o644, bytes([number]) * 10_000)} for number in range(6)]
    make_tree(root, trees[0])
    for number in range(5):
        apply(journal, root, trees[number], trees[number + 1], f"turn-{number}")
    assert journal.turns() == ["turn-4", "turn-3"]
    assert caplog.messages == ["undo no longer reaches back to 1 earlier turn: no room"] * 3


def test_the_journal_is_private(place: tuple[Path, Journal]) -> None:
    root, journal = place
    make_tree(root, OLD)
    entry = apply(journal, root, OLD, NEW)
    assert (journal.folder / "done").stat().st_mode & 0o777 == 0o700
    with journal.image(entry, str(root / "changed.txt")) as image:
        assert image.read() == b"before"


def test_an_effect_survives_json_with_any_file_name() -> None:
    change = FileChange("/w/\udcff\n☃", None, FileState("file", 0o644, 1, "0" * 64))
    effect = Effect((change,), (Want("network", "pypi.org:443"),))
    assert effect.to_json().isascii()
    assert Effect.from_json(effect.to_json()) == effect
    assert Effect.from_json(effect.to_json()).digest == effect.digest != Effect((change,)).digest
    with pytest.raises(ValueError):
        Effect.from_json("[]")


def test_no_part_of_a_path_may_be_a_link(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "real").mkdir()
    (root / "real" / "f").write_bytes(b"1")
    (root / "link").symlink_to("real")
    assert state(str(root / "real" / "f")) == state_of(("file", (root / "real/f").stat().st_mode & 0o777, b"1"))
    assert state(str(root / "link" / "f")) is None
    with pytest.raises(OSError), folder(str(root / "link")):
        pass
    with pytest.raises(OSError, match="normal form"), folder(str(root / "real" / ".." / "real")):
        pass


def test_this_system_exchanges_files_in_one_step(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "a").write_bytes(b"1")
    (root / "b").write_bytes(b"2")
    with parent(str(root / "a")) as one, parent(str(root / "b")) as other:
        assert exchange(one, other)
    assert (root / "a").read_bytes() == b"2"
