"""What a question about a write shows of the change, and that it is the change which would be made."""

from __future__ import annotations

import os
import random
import time
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from mentra_nb.agent.effects import compared
from mentra_nb.authorization import PermissionQuestion, ToolAuthorizationPreview, ToolCapability
from mentra_nb.effect.lines import MAX_COMPARED, Changes, changes
from mentra_nb.effect.types import FileChange, FileState
from mentra_nb.notebook.approval import ApprovalCard
from mentra_nb.notebook.asking import diff, effect, headline, question_text
from mentra_nb.notebook.changes import planned_changes
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.sandbox.executor import LocalExecutor
from mentra_nb.tools.builtin.files import single as files
from mentra_nb.tools.builtin.files.batch import FilesTool
from mentra_nb.tools.builtin.files.single import MAX_COUNTED, replaced
from mentra_nb.tools.tool import ToolContext


def question(path: Path, content: str) -> PermissionQuestion:
    """Return the question about a write, as the tool describes it."""
    operation: dict[str, Any] = {"op": "create", "resolved_path": str(path)}
    if path.exists():
        operation |= {"op": "set", "replaces": replaced(path)[0]}
    planned = {"kind": "files", "working_directory": str(path.parent), "operations": [operation]}
    return PermissionQuestion(
        request_id="q",
        session_id="s",
        agent_id="a",
        agent_name="mentra",
        tool_call_id="1",
        tool_name="write",
        description="why",
        subject=path.name,
        arguments={"path": path.name, "content": content},
        preview=ToolAuthorizationPreview(
            working_directory=str(path.parent),
            capabilities=(ToolCapability.FILESYSTEM_WRITE,),
            structured_input=planned,
        ),
        arguments_hash="",
        asked_at=0.0,
        deadline=0.0,
    )


def test_a_new_file_says_how_long_it_is(tmp_path: Path) -> None:
    asked = question(tmp_path / "a.txt", "one\ntwo\n")
    assert headline(asked) == "Write a new file"
    assert effect(asked, planned_changes(asked)) == f"file {tmp_path}/a.txt: new, 2 lines"
    assert planned_changes(asked) is None


def test_an_existing_file_shows_a_diff(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"line {n}\n" for n in range(120)))
    new = "".join(f"line {n}\n" if n != 50 else "changed\nadded\n" for n in range(120))
    asked = question(tmp_path / "a.txt", new)
    found = planned_changes(asked)
    assert found is not None
    assert headline(asked) == "Replace a file of 120 lines"
    assert effect(asked, found) == f"file {tmp_path}/a.txt: replaces 120 lines, +2 −1"
    around = [f" line {n}" for n in (47, 48, 49)], [f" line {n}" for n in (51, 52, 53)]
    assert found.lines == ["@@ line 48 @@", *around[0], "-line 50", "+changed", "+added", *around[1]]
    assert "+changed\n+added" in question_text(asked)
    card = ApprovalCard(asked, lambda _: None)
    assert card.question["diff"] == found.lines
    card.close()


def test_a_file_that_has_changed_since_the_question_shows_no_diff(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    asked = question(tmp_path / "a.txt", "new")
    assert planned_changes(asked) is not None
    (tmp_path / "a.txt").write_text("two")
    assert planned_changes(asked) is None


def test_a_text_in_another_encoding_shows_a_diff(tmp_path: Path) -> None:
    raw = "Größe\r\nStraße\r\n".encode("cp1252")
    (tmp_path / "a.txt").write_bytes(raw)
    found = planned_changes(question(tmp_path / "a.txt", "Größe\nSträßchen\n"))
    assert found is not None
    assert found.lines[1:] == [" Größe", "-Straße", "+Sträßchen"]
    after = "Größe\r\nSträßchen\r\n".encode("cp1252")
    before, new = (FileState("file", 0o644, len(each), sha256(each).hexdigest()) for each in (raw, after))
    of_command = compared(FileChange(str(tmp_path / "a.txt"), before, new), lambda digest: BytesIO(after))
    assert of_command is not None
    assert of_command.lines[1:] == [" Größe\r", "-Straße\r", "+Sträßchen\r"]


def test_a_file_that_is_not_text_shows_no_diff(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\xff\x00")
    asked = question(tmp_path / "a.bin", "new")
    assert planned_changes(asked) is None
    assert effect(asked) == f"file {tmp_path}/a.bin: replaces 1 line"


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("a\n", "a\n", []),
        ("", "a\n", ["@@ line 1 @@", "+a"]),
        ("a\n", "", ["@@ line 1 @@", "-a"]),
        ("a\n", "a", ["@@ line 1 @@", "-a", "+a (without a line end)"]),
        ("a\r\n", "a\n", ["@@ line 1 @@", "-a\r", "+a"]),
        ("a\nb\n", "b\n", ["@@ line 1 @@", "-a", " b"]),
    ],
)
def test_every_difference_is_shown(old: str, new: str, lines: list[str]) -> None:
    assert changes(old, new).lines == lines


def test_a_diff_applied_to_the_old_text_gives_the_new_one() -> None:
    rng = random.Random(7)
    for _ in range(300):
        old = [rng.choice("abcde") for _ in range(rng.randrange(40))]
        new = [text for text in old if rng.random() > 0.1]
        for _ in range(rng.randrange(4)):
            new.insert(rng.randrange(len(new) + 1), rng.choice("vwxyz"))
        found = changes("".join(f"{t}\n" for t in old), "".join(f"{t}\n" for t in new))
        assert applied(old, found) == new
        assert found.added - found.removed == len(new) - len(old)
        assert found.added == sum(text[0] == "+" for text in found.lines)


def applied(old: list[str], found: Changes) -> list[str]:
    """Return `old` with the diff applied."""
    result, at = [], 0
    for text in found.lines:
        if text[0] == "@":
            begin = int(text.split()[2]) - 1
            result += old[at:begin]
            at = begin
        elif text[0] == "+":
            result.append(text[1:])
        else:
            assert old[at] == text[1:]
            result += [text[1:]] * (text[0] == " ")
            at += 1
    return result + old[at:]


@pytest.mark.parametrize("unit", ["x\n", "\n", "{n}\n", "{n}{n}\nx\n"])
def test_comparing_takes_bounded_time(unit: str) -> None:
    old = "".join(unit.replace("{n}", str(n)) for n in range(20_000))
    new = "a\n" + "".join(unit.replace("{n}", str(n * 7 % 20_000)) for n in range(20_000)) + "b\n"
    began = time.thread_time()
    found = changes(old, new)
    assert time.thread_time() - began < 5.0
    assert found.added > 0


def test_a_long_change_is_replaced_as_a_whole_and_still_right() -> None:
    old, new = ([f"{word} {n}" for n in range(MAX_COMPARED + 50)] for word in ("old", "new"))
    found = changes("".join(f"{t}\n" for t in old), "".join(f"{t}\n" for t in new))
    assert applied(old, found) == new


def test_what_is_shown_of_a_diff_is_bounded_and_visible() -> None:
    shown = diff(Changes(["+" + "x" * 9000, "+\u202e\x1b[2K", *["+y"] * 50], 52, 0), 10)
    assert len(shown) == 11
    assert len(shown[0]) == 500
    assert shown[1] == "+\\u202e␛[2K"
    assert shown[-1] == "… 42 more lines: the whole new text is among the arguments"
    assert diff(Changes(["+y", "+z"], 2, 0), 1)[-1].startswith("… 1 more line: ")


def test_files_of_a_few_lines_again_and_again_are_not_compared_line_by_line() -> None:
    old, new = ("".join(f"{'xyz'[n % kinds]}\n" for n in range(MAX_COMPARED)) for kinds in (2, 3))
    found = changes(old, new)
    same_at_both_ends = 2  # the first two lines
    assert (found.added, found.removed) == (MAX_COMPARED - same_at_both_ends,) * 2
    blank = "".join(f"line {n}\n\n" for n in range(90))
    assert changes(blank, blank.replace("line 3\n", "").replace("line 80\n", "")).removed == 2


def test_a_large_file_that_was_changed_is_another_one_whatever_its_time_says(tmp_path: Path) -> None:
    large = tmp_path / "large"
    seen = []
    for letter in (b"a", b"b"):
        large.write_bytes(letter * (MAX_COUNTED + 1))
        os.utime(large, ns=(10**18, 10**18))
        seen.append(replaced(large))
    assert seen[0][1] is None
    assert seen[0] != seen[1]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="there is no file of unknown size here")
def test_no_more_is_read_of_a_file_than_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_COUNTED", 100)
    assert replaced(Path("/proc/self/maps"))[1] is None


def batch(folder: Path, *operations: dict[str, Any]) -> PermissionQuestion:
    tool = FilesTool()
    context = ToolContext(
        agent_id="a",
        agent_name="tester",
        model="m",
        run_id="r",
        tool_call_id="c",
        tool_name="files",
        working_directory=folder,
        policy=RuntimePolicy(),
        executor=LocalExecutor(),
    )
    arguments = tool.validate({"operations": list(operations)})
    return question(folder / "a.txt", "").model_copy(
        update={"arguments": arguments, "preview": tool.preview(context, arguments), "tool_name": "files"}
    )


def test_the_name_of_a_file_cannot_look_like_a_line_of_a_diff(tmp_path: Path) -> None:
    asked = batch(tmp_path, {"op": "create", "path": "a\n+harmless", "content": "rm\n"})
    found = planned_changes(asked)
    assert found is not None
    assert diff(found, 9) == ["@@ a␊+harmless: created @@", "@@ line 1 @@", "+rm"]


def test_a_batch_is_shown_as_one_diff_with_the_name_of_each_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.txt").write_text("gone\n")
    asked = batch(
        tmp_path,
        {"op": "replace", "path": "a.txt", "old": "two", "new": "2"},
        {"op": "create", "path": "c.txt", "content": "new\n"},
        {"op": "delete", "path": "b.txt"},
    )
    shown = planned_changes(asked)
    assert shown is not None
    assert shown.lines == [
        *("@@ a.txt: changed @@", "@@ line 1 @@", " one", "-two", "+2"),
        *("@@ b.txt: deleted @@", "@@ line 1 @@", "-gone"),
        *("@@ c.txt: created @@", "@@ line 1 @@", "+new"),
    ]
    assert (shown.added, shown.removed) == (2, 2)
    assert headline(asked) == "Change 3 files"
    assert effect(asked, shown).splitlines() == [
        f"file {tmp_path}/a.txt: changed, 8 → 6 bytes",
        f"file {tmp_path}/b.txt: deleted, 5 bytes",
        f"file {tmp_path}/c.txt: created, 4 bytes",
    ]
    assert "@@ c.txt: created @@" in question_text(asked)
    (tmp_path / "a.txt").write_text("one\ntwo!\n")
    assert planned_changes(asked) is None


def test_a_batch_that_only_reads_names_its_files(tmp_path: Path) -> None:
    asked = batch(tmp_path, {"op": "read", "path": ".env"})
    assert headline(asked) == "Read a file"
    assert effect(asked) == f"file {tmp_path}/.env"
    assert planned_changes(asked) is None
