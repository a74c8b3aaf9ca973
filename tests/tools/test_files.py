"""The tool `files`: a batch of operations on files, as a whole or not at all, within the policy's roots."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kits.trees import Tree, make_tree, tree_in

from mentra_nb.authorization import ToolCapability
from mentra_nb.effect.journal import Journal, JournalEntry
from mentra_nb.effect.undo import undo
from mentra_nb.permission.policy import PolicyViolation, RuntimePolicy
from mentra_nb.sandbox.executor import LocalExecutor
from mentra_nb.tools.builtin.files import looking
from mentra_nb.tools.builtin.files.batch import FilesTool
from mentra_nb.tools.builtin.files.single import ReadTool, WriteTool
from mentra_nb.tools.builtin.files.text import editable
from mentra_nb.tools.schema import ToolError
from mentra_nb.tools.tool import Tool, ToolContext

pytestmark = pytest.mark.anyio
Operations = list[dict[str, Any]]


class Shown(list[str]):
    """What a call showed while it ran, and the entries it made in the journal."""

    def __init__(self) -> None:
        self.entries: list[JournalEntry] = []


def context(folder: Path, policy: RuntimePolicy | None = None, shown: Shown | None = None) -> ToolContext:
    return ToolContext(
        agent_id="agent-1",
        agent_name="tester",
        model="scripted",
        run_id="run-1",
        tool_call_id=f"call-{time.monotonic_ns()}",
        tool_name="files",
        working_directory=folder,
        policy=policy or RuntimePolicy(),
        executor=LocalExecutor(),
        progress=shown.append if shown is not None else lambda text: None,
        changed=shown.entries.append if shown is not None else lambda entry: None,
    )


async def call(tool: Tool, ctx: ToolContext, arguments: dict[str, Any]) -> str:
    """Go the way of a call: policy, what it would do, and the run."""
    valid = tool.validate(arguments)
    tool.check_policy(ctx, valid)
    tool.subject(ctx, valid)
    json.dumps(tool.preview(ctx, valid).structured_input)
    return str((await tool.execute(ctx, valid)).content)


async def files(folder: Path, *operations: dict[str, Any], shown: Shown | None = None, **more: Any) -> str:
    policy = more.pop("policy", None)
    return await call(FilesTool(), context(folder, policy, shown), {"operations": list(operations), **more})


# ---- looking ---------------------------------------------------------------------------------------------------------


async def test_files_tool_reads_numbered_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    found = await files(tmp_path, {"op": "read", "path": "a.txt", "offset": 2, "limit": 1})
    assert found == "read a.txt\nL2: two"
    assert await files(tmp_path, {"op": "read", "path": "a.txt", "offset": 9}) == "read a.txt\n(no lines)"
    with pytest.raises(ToolError, match=r"operations\.0\.read\.offset"):
        await files(tmp_path, {"op": "read", "path": "a.txt", "offset": 0})


async def test_files_tool_lists_and_searches_with_staged_state(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "old.py").write_text("x = 1\n")
    (tmp_path / "gone.py").write_text("x = 2\n")
    found = await files(
        tmp_path,
        {"op": "create", "path": "src/deep/new.py", "content": "y = 0\nx = 3\n"},
        {"op": "delete", "path": "gone.py"},
        {"op": "list", "path": ".", "depth": 3},
        {"op": "search", "path": ".", "pattern": r"^x\b"},
    )
    assert found.split("\n\n")[2:] == [
        "list .\n[dir] src\n[dir] src/deep\n[file] src/deep/new.py\n[file] src/old.py",
        "search . /^x\\b/\nsrc/deep/new.py:2: x = 3\nsrc/old.py:1: x = 1",
    ]
    assert await files(tmp_path, {"op": "list", "path": "src/old.py"}) == "list src/old.py\n[file] old.py"


async def test_a_search_honours_ignore_files_and_skips_what_is_no_text(tmp_path: Path) -> None:
    for name, text in {
        ".gitignore": "*.log\nbuild/\n!kept.log\n",
        "a.log": "word",
        "kept.log": "word",
        "build/x.txt": "word",
        ".git/config": "word",
        "sub/.gitignore": "/only-here.txt\n",
        "sub/only-here.txt": "word",
        "only-here.txt": "word",
        "server.key": "word",
        "utf16.txt": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "binary").write_bytes(b"word\0word")
    (tmp_path / "data").write_bytes(b"word \xe9\x01")
    (tmp_path / "latin").write_bytes(b"a word \xe9")
    (tmp_path / "utf16.txt").write_text("a word", encoding="utf-16")
    os.mkfifo(tmp_path / "pipe")
    assert await files(tmp_path, {"op": "search", "path": ".", "pattern": "word"}) == (
        "search . /word/\nkept.log:1: word\nlatin:1: a word é\nonly-here.txt:1: word\nutf16.txt:1: a word\n"
        "[not searched: 1 binary, 4 ignored, 1 no regular file, 1 not text, 1 protected]"
    )
    inside = await files(tmp_path, {"op": "search", "path": "sub", "pattern": "word"})
    assert inside == "search sub /word/\n(no matches)\n[not searched: 1 ignored]"
    assert "build/x.txt:1: word" in await files(tmp_path, {"op": "search", "path": "build", "pattern": "word"})


async def test_files_tool_search_handles_symlink_loops(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "loop").symlink_to("..")
    (tmp_path / "a" / "f.txt").write_text("word\n")
    began = time.monotonic()
    found = await files(tmp_path, {"op": "search", "path": ".", "pattern": "word"})
    assert found == "search . /word/\na/f.txt:1: word\n[not searched: 1 no regular file]"
    assert time.monotonic() - began < 2


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A working folder with links that lead out of it, to what nobody may see."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "private.txt").write_text("private\n")
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "link").symlink_to("../outside")
    (folder / "file").symlink_to("../outside/private.txt")
    return folder


async def test_files_tool_search_rejects_symlink_escape_during_recursive_traversal(beside: Path) -> None:
    found = await files(beside, {"op": "search", "path": ".", "pattern": "private"})
    assert found == "search . /private/\n(no matches)\n[not searched: 2 no regular file]"
    with pytest.raises(PolicyViolation, match="outside the runtime policy read roots"):
        await files(beside, {"op": "search", "path": "link", "pattern": "private"})


async def test_files_tool_list_rejects_symlink_escape_during_recursive_traversal(beside: Path) -> None:
    assert await files(beside, {"op": "list", "path": ".", "depth": 9}) == "list .\n[link] file\n[link] link"
    with pytest.raises(PolicyViolation) as raised:
        await files(beside, {"op": "list", "path": "link"})
    assert raised.value.action == "files_list"


async def test_recursive_limits_short_circuit_before_unvisited_descendants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f.txt").write_text("word\nword\n")
    seen = []
    names = looking.Overlay.names
    monkeypatch.setattr(looking.Overlay, "names", lambda self, path: seen.append(Path(path).name) or names(self, path))
    listed = await files(tmp_path, {"op": "list", "path": ".", "depth": 2, "limit": 2})
    assert listed.startswith("list .\n[dir] a\n[file] a/f.txt\n[there is more than these 2")
    searched = await files(tmp_path, {"op": "search", "path": ".", "pattern": "word", "limit": 1})
    assert searched == "search . /word/\na/f.txt:1: word\n[more than 1 line]"
    assert {"b", "c"}.isdisjoint(seen)


async def test_a_pattern_that_takes_too_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("a" * 60 + "!\n")
    monkeypatch.setattr(looking, "SEARCH_TIME", 0.2)
    found = await files(tmp_path, {"op": "search", "path": ".", "pattern": "(a|a|b)*(a|aa)*$(?<=x)"})
    assert "(no matches)" in found
    with pytest.raises(ToolError, match="not a regular expression"):
        await files(tmp_path, {"op": "search", "path": ".", "pattern": "("})


# ---- changing --------------------------------------------------------------------------------------------------------


async def test_files_tool_can_stage_create_then_read_in_one_call(tmp_path: Path) -> None:
    create = {"op": "create", "path": "new/a.txt", "content": "one\n"}
    found = await files(tmp_path, create, {"op": "read", "path": "new/a.txt"})
    assert found == "create new/a.txt\n\nread new/a.txt\nL1: one"
    assert (tmp_path / "new" / "a.txt").read_text() == "one\n"


async def test_files_tool_can_update_existing_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("alpha beta\n")
    (tmp_path / "a.txt").chmod(0o640)
    (tmp_path / "b.txt").write_text("old\n")
    found = await files(
        tmp_path,
        {"op": "replace", "path": "a.txt", "old": "beta", "new": "gamma"},
        {"op": "insert", "path": "a.txt", "anchor": "alpha", "position": "before", "content": "> "},
        {"op": "set", "path": "b.txt", "content": "new\n"},
        {"op": "move", "from": "b.txt", "to": "sub/c.txt"},
    )
    assert found == ("replace a.txt (1 replacement)\n\ninsert a.txt\n\nset b.txt\n\nmove b.txt -> sub/c.txt")
    assert tree_in(tmp_path)["a.txt"] == ("file", 0o640, b"> alpha gamma\n")
    assert (tmp_path / "sub" / "c.txt").read_text() == "new\n"
    assert not (tmp_path / "b.txt").exists()


async def test_files_tool_aborts_without_partial_mutation_on_validation_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    create = {"op": "create", "path": "new.txt", "content": "x"}
    for wrong, words in (
        (
            {"op": "replace", "path": "a.txt", "old": "two", "new": "x"},
            r"Expected 1 replacement\(s\) in 'a.txt', found 0",
        ),
        ({"op": "read", "path": "none"}, "'none' does not exist"),
        ({"op": "create", "path": "a.txt", "content": ""}, "'a.txt' already exists"),
        ({"op": "set", "path": "b.txt", "content": ""}, "'b.txt' does not exist"),
        ({"op": "delete", "path": "."}, "not empty"),
        ({"op": "move", "from": "a.txt", "to": "new.txt"}, "'new.txt' already exists"),
        ({"op": "insert", "path": "a.txt", "anchor": "?", "position": "after", "content": ""}, "was not found"),
    ):
        with pytest.raises(ToolError, match=words):
            await files(tmp_path, create, wrong)
    assert list(tree_in(tmp_path)) == ["a.txt"]
    with pytest.raises(ToolError, match="At least one file operation is required"):
        await files(tmp_path)


async def test_legacy_batched_replace_keeps_its_first_match_contract(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x x\n")
    replace = {"op": "replace", "path": "a.txt", "old": "x", "new": "y"}
    with pytest.raises(ToolError, match="found 2"):
        await files(tmp_path, replace)
    await files(tmp_path, {**replace, "expectedReplacements": 2})
    assert (tmp_path / "a.txt").read_text() == "y x\n"
    (tmp_path / "a.txt").write_text("x x\n")
    with pytest.raises(ToolError, match="Expected 3"):
        await files(tmp_path, {**replace, "replaceAll": True, "expectedReplacements": 3})
    assert "(2 replacements)" in await files(tmp_path, {**replace, "replaceAll": True})


async def test_an_ambiguous_anchor_needs_its_occurrence(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("b\nb\n")
    insert = {"op": "insert", "path": "a.txt", "anchor": "b\n", "position": "after", "content": "c\n"}
    with pytest.raises(ToolError, match="occurs 2 times"):
        await files(tmp_path, insert)
    await files(tmp_path, {**insert, "occurrence": 2})
    assert (tmp_path / "a.txt").read_text() == "b\nb\nc\n"


@pytest.mark.parametrize(
    ("text", "patch", "made"),
    [
        ("a\nb\nc\n", "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n", "a\nB\nc\n"),
        ("a\nb\nc\n", "@@ -9,2 +9,3 @@ def f():\n b\n+x\n c\n", "a\nb\nx\nc\n"),
        ("a\n\nb", "@@\n a\n\n-b\n+c", "a\n\nc"),
        ("a\n", "@@ -1 +1 @@\n-a\n+b\n\\ No newline at end of file\n", "b"),
        ("", "@@ -0,0 +1,2 @@\n+a\n+b\n", "a\nb\n"),
        ("a\nb\n", "@@ -1,0 +2 @@\n+x\n", "a\nx\nb\n"),
        ("x\ny\nx\ny\n", "@@ -3,2 +3,2 @@\n x\n-y\n+z\n", "x\ny\nx\nz\n"),
        ("a\nb\nc\nd\n", "@@ -1 +1 @@\n-a\n+A\n@@ -4 +4 @@\n-d\n+D\n", "A\nb\nc\nD\n"),
    ],
)
async def test_a_unified_diff_is_applied_where_its_lines_are(tmp_path: Path, text: str, patch: str, made: str) -> None:
    (tmp_path / "f").write_text(text)
    assert "patch f" in await files(tmp_path, {"op": "patch", "path": "f", "patch": patch})
    assert (tmp_path / "f").read_text() == made


@pytest.mark.parametrize(
    ("patch", "words"),
    [("@@ -1 +1 @@\n-z\n+y\n", "hunk 1"), ("@@\n-x\n+y\n", "not once"), ("+y\n", "no hunk"), ("@@\n?\n", "line 2")],
)
async def test_a_diff_that_does_not_fit_is_refused(tmp_path: Path, patch: str, words: str) -> None:
    (tmp_path / "f").write_text("x\nx\n")
    with pytest.raises(ToolError, match=words):
        await files(tmp_path, {"op": "patch", "path": "f", "patch": patch})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"a\r\nb\r\n", b"a\r\nB\r\n+\r\n"),
        (b"\xef\xbb\xbfa\nb\n", b"\xef\xbb\xbfa\nB\n+\n"),
        ("a\nb\n".encode("utf-16"), "a\nB\n+\n".encode("utf-16")),
        (b"a\r\nb\n", b"a\r\nB\n+\n"),
        (b"a\rb", b"a\rB\n+\n"),
    ],
)
async def test_encoding_line_ends_and_mode_of_a_file_are_kept(tmp_path: Path, before: bytes, after: bytes) -> None:
    (tmp_path / "f").write_bytes(before)
    (tmp_path / "f").chmod(0o751)
    has_end = before.rstrip(b"\0").endswith(b"\n")
    await files(tmp_path, {"op": "replace", "path": "f", "old": "b\n" if has_end else "b", "new": "B\n+\n"})
    assert tree_in(tmp_path)["f"] == ("file", 0o751, after)


async def test_what_is_no_text_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xff\xfd\0")
    with pytest.raises(ToolError, match="'f' is not text"):
        await files(tmp_path, {"op": "replace", "path": "f", "old": "a", "new": "b"})
    with pytest.raises(ToolError, match="cannot be written"):
        await files(tmp_path, {"op": "create", "path": "g", "content": "\ud800"})


TEXTS = {
    "latin_1": "Le café est fermé\nÀ demain, élève!\n",
    "cp1252": "Straße;Größe\nPreis: 12 € – „gut“\n",
    "cp1250": "Příliš žluťoučký kůň\núpěl ďábelské ódy\n",
    "cp1251": "Привет, мир\nКак дела?\n",
    "cp932": "名前,年齢\n日本語のテキスト\n",
    "euc_jp": "日本語のテキストです。\nこれはテストです。\n",
    "gb18030": "你好，世界\n这是一个测试\n",
    "cp949": "안녕하세요 세계\n이것은 시험입니다\n",
}


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", TEXTS)
async def test_a_text_in_another_encoding_is_read_and_edited_in_it(tmp_path: Path, encoding: str, ends: str) -> None:
    text = f"x = 1\n{TEXTS[encoding]}"
    raw = text.replace("\n", ends).encode(encoding)
    (tmp_path / "f").write_bytes(raw)
    shown = await files(tmp_path, {"op": "read", "path": "f"})
    assert shown.splitlines()[1:-1] == [f"L{n}: {line}" for n, line in enumerate(text.splitlines(), 1)]
    first, second = TEXTS[encoding].splitlines()
    await files(tmp_path, {"op": "replace", "path": "f", "old": first[:5], "new": second[:5]})
    assert (tmp_path / "f").read_bytes() == raw.replace(first[:5].encode(encoding), second[:5].encode(encoding), 1)


async def test_what_the_encoding_of_a_text_does_not_have_is_refused_in_a_sentence(tmp_path: Path) -> None:
    raw = "Größe\nStraße\n".encode("cp1252")
    (tmp_path / "f").write_bytes(raw)
    for operation in ({"op": "replace", "old": "Stra", "new": "日"}, {"op": "set", "content": "Größe\n日\n"}):
        with pytest.raises(
            ToolError, match=r"^'\\u65e5' in line 2 of the new text of 'f' cannot be written in its enc"
        ):
            await files(tmp_path, {"path": "f", **operation})
    assert (tmp_path / "f").read_bytes() == raw


async def test_a_text_that_would_be_written_with_other_bytes_is_read_but_not_edited(tmp_path: Path) -> None:
    raw = "日本語のテキスト x\n".encode("cp932") + b"\x87\x90\n"  # a second code of a character
    assert raw.decode("cp932").encode("cp932") != raw
    (tmp_path / "f").write_bytes(raw)
    assert "日本語のテキスト x" in await files(tmp_path, {"op": "read", "path": "f"})
    with pytest.raises(ToolError, match="'f' cannot be edited: in its encoding, cp932, unchanged text is not kept"):
        await files(tmp_path, {"op": "replace", "path": "f", "old": "x", "new": "y"})


@settings(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("latin_1", "replace")))
def test_an_edit_keeps_all_other_bytes_whatever_they_are(raw: bytes) -> None:
    try:
        text, form = editable(raw, "f")
    except ToolError:
        return
    assert form.encoded(text, "f") == raw
    assert form.encoded(f"{text}+", "f") == raw + form.encoded("+", "f").removeprefix(form.mark)


async def test_folders_are_made_and_empty_ones_deleted(tmp_path: Path) -> None:
    await files(tmp_path, {"op": "create", "path": "a/b/", "content": ""})
    assert (tmp_path / "a" / "b").is_dir()
    await files(tmp_path, {"op": "delete", "path": "a/b"}, {"op": "delete", "path": "a"})
    assert not (tmp_path / "a").exists()


async def test_paths_are_relative_to_the_folder_of_the_call(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    create = {"op": "create", "path": "a.txt", "content": "x"}
    assert await files(tmp_path, create, workingDirectory="sub") == "create sub/a.txt"
    with pytest.raises(PolicyViolation, match="write roots"):
        await files(tmp_path, create, workingDirectory="..")


async def test_files_tool_denies_writes_outside_workspace_roots(beside: Path) -> None:
    for operation in (
        {"op": "create", "path": "../x", "content": ""},
        {"op": "set", "path": "file", "content": ""},
        {"op": "create", "path": "link/x", "content": ""},
        {"op": "move", "from": "link/private.txt", "to": "x"},
        {"op": "delete", "path": "file"},
    ):
        with pytest.raises(PolicyViolation, match="outside the runtime policy write roots"):
            await files(beside, operation)


async def test_every_split_file_tool_enforces_its_workspace_policy(beside: Path) -> None:
    for path in ("../outside/private.txt", "file", "link/private.txt"):
        with pytest.raises(PolicyViolation, match="read roots"):
            await call(ReadTool(), context(beside), {"path": path})
        with pytest.raises(PolicyViolation, match="write roots"):
            await call(WriteTool(), context(beside), {"path": path, "content": "x"})
    assert (beside.parent / "outside" / "private.txt").read_text() == "private\n"


async def test_split_read_and_write_match_equivalent_files_operations(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    make_tree(one, {"a.txt": ("file", 0o640, b"a\r\nb\r\n")})
    make_tree(other, tree_in(one))
    await call(WriteTool(), context(one), {"path": "a.txt", "content": "c\nd\n"})
    await call(WriteTool(), context(one), {"path": "new/b.txt", "content": "e\n"})
    await files(
        other,
        {"op": "set", "path": "a.txt", "content": "c\nd\n"},
        {"op": "create", "path": "new/b.txt", "content": "e\n"},
    )
    assert tree_in(one) == tree_in(other)
    assert tree_in(one)["a.txt"][2] == b"c\r\nd\r\n"
    read = await call(ReadTool(), context(one), {"path": "a.txt", "offset": 2})
    assert await files(one, {"op": "read", "path": "a.txt", "offset": 2}) == f"read a.txt\n{read}"


# ---- what is said of a call ------------------------------------------------------------------------------------------


def test_files_tool_metadata_marks_local_mutation() -> None:
    spec = FilesTool().spec
    assert spec.capabilities == (ToolCapability.FILESYSTEM_READ, ToolCapability.FILESYSTEM_WRITE)
    assert (spec.side_effect_level, spec.durability) == ("LocalState", "Ephemeral")
    assert (spec.execution_category, spec.approval_category) == ("ExclusiveLocalMutation", "Filesystem")


READING: Operations = [
    {"op": "read", "path": "a"},
    {"op": "list", "path": "."},
    {"op": "search", "path": ".", "pattern": "x"},
]
CHANGING: Operations = [
    {"op": "create", "path": "n", "content": ""},
    {"op": "set", "path": "a", "content": ""},
    {"op": "replace", "path": "a", "old": "x", "new": "y"},
    {"op": "insert", "path": "a", "anchor": "x", "position": "after", "content": "y"},
    {"op": "patch", "path": "a", "patch": "@@\n-x\n+y\n"},
    {"op": "move", "from": "a", "to": "n"},
    {"op": "delete", "path": "a"},
]


def test_read_only_operations_opt_into_parallel_execution(tmp_path: Path) -> None:
    tool = FilesTool()
    arguments = tool.validate({"operations": READING})
    assert tool.is_parallel(arguments)
    preview = tool.preview(context(tmp_path), arguments)
    assert ToolCapability.READ_ONLY in preview.capabilities
    assert (preview.side_effect_level, preview.execution_category) == ("None", "ReadOnlyParallel")


@pytest.mark.parametrize("operation", CHANGING, ids=lambda each: each["op"])
def test_mutating_operations_stay_exclusive(tmp_path: Path, operation: dict[str, Any]) -> None:
    (tmp_path / "a").write_text("x\n")
    tool = FilesTool()
    arguments = tool.validate({"operations": [*READING, operation]})
    assert not tool.is_parallel(arguments)
    assert ToolCapability.READ_ONLY not in tool.preview(context(tmp_path), arguments).capabilities
    assert not tool.is_parallel({"operations": "?"})


@pytest.mark.parametrize("operation", CHANGING, ids=lambda each: each["op"])
async def test_file_op_progress_is_the_first_line_of_what_changed(tmp_path: Path, operation: dict[str, Any]) -> None:
    (tmp_path / "a").write_text("x\n")
    shown = Shown()
    found = await files(tmp_path, READING[0], operation, shown=shown)
    assert shown == [f"file_op: {found.split(chr(10) * 2)[1]}"]
    assert [len(entry.changes) for entry in shown.entries] == [2 if operation["op"] == "move" else 1]


async def test_files_tool_set_emits_tool_progress_with_file_op_metadata(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x\n")
    shown = Shown()
    await files(tmp_path, CHANGING[1], shown=shown)
    assert shown == ["file_op: set a"]


async def test_files_tool_create_emits_tool_progress_once_it_is_done(tmp_path: Path) -> None:
    shown = Shown()
    with pytest.raises(ToolError):
        await files(tmp_path, CHANGING[0], {"op": "read", "path": "none"}, shown=shown)
    assert shown == shown.entries == []
    await files(tmp_path, CHANGING[0], shown=shown)
    assert shown == ["file_op: create n"]


async def test_files_tool_read_does_not_emit_file_op_progress(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x\n")
    shown = Shown()
    await files(tmp_path, *READING, shown=shown)
    assert shown == shown.entries == []


def test_files_tool_authorization_preview_exposes_resolved_paths_and_no_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x secret\n")
    tool, ctx = FilesTool(), context(tmp_path)
    arguments = tool.validate(
        {"operations": [{"op": "replace", "path": "./b/../a", "old": "secret", "new": "hidden"}, READING[2]]}
    )
    described = tool.preview(ctx, arguments).structured_input
    assert described["operations"] == [
        {"op": "replace", "resolved_path": f"{tmp_path}/a", "replace_all": False},
        {"op": "search", "resolved_path": str(tmp_path), "limit": 200, "pattern": "x"},
    ]
    assert [(each["path"], each["kind"]) for each in described["changes"]] == [(f"{tmp_path}/a", "changed")]
    assert "secret" not in json.dumps(described)
    assert "hidden" not in json.dumps(described)
    assert tool.subject(ctx, arguments).parts == ("a", ".")


async def test_what_was_decided_about_is_what_is_done(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x\n")
    tool, ctx = FilesTool(), context(tmp_path)
    arguments = tool.validate({"operations": [CHANGING[2]]})
    before = tool.structured_input(ctx, arguments)
    (tmp_path / "a").write_text("x and more\n")
    with pytest.raises(ToolError, match="changed since then; nothing was written"):
        await tool.execute(ctx, arguments)
    assert (tmp_path / "a").read_text() == "x and more\n"
    assert tool.structured_input(ctx, arguments) != before


async def test_a_batch_is_undone(tmp_path: Path) -> None:
    make_tree(tmp_path / "w", {"a": ("file", 0o600, b"x\n"), "b": ("file", 0o644, b"b")})
    before = tree_in(tmp_path / "w")
    shown = Shown()
    await files(
        tmp_path / "w",
        CHANGING[2],
        {"op": "move", "from": "b", "to": "c/d"},
        {"op": "create", "path": "e", "content": "e"},
        shown=shown,
    )
    [entry] = shown.entries
    assert Journal().entries("run-1")[-1] == entry
    assert undo(Journal(), "run-1", by="run-2").conflicts == ()
    assert tree_in(tmp_path / "w") == before


# ---- against a model -------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "d/a", "d/e/b")
texts = st.text("xy\n", max_size=6)
paths = st.sampled_from(NAMES)
operations = st.one_of(
    st.fixed_dictionaries({"op": st.sampled_from(["create", "set"]), "path": paths, "content": texts}),
    st.fixed_dictionaries({"op": st.just("replace"), "path": paths, "old": st.sampled_from("xy"), "new": texts}),
    st.fixed_dictionaries({"op": st.just("move"), "from": paths, "to": paths}),
    st.fixed_dictionaries({"op": st.just("delete"), "path": paths}),
)


def modelled(tree: dict[str, str], operation: dict[str, Any]) -> dict[str, str] | None:
    """Return what an operation makes of files by path; `None` if it cannot be done."""
    made, op, path = dict(tree), operation["op"], operation.get("path", operation.get("from"))
    if op == "create":
        return None if path in tree else {**made, path: operation["content"]}
    if path not in tree:
        return None
    if op == "set":
        return {**made, path: operation["content"]}
    if op == "replace":
        old = operation["old"]
        return {**made, path: tree[path].replace(old, operation["new"])} if tree[path].count(old) == 1 else None
    text = made.pop(path)
    if op == "move":
        return None if operation["to"] in tree else {**made, operation["to"]: text}
    return made


def contents(folder: Path) -> dict[str, str]:
    tree: Tree = tree_in(folder)
    return {name: raw.decode() for name, (kind, _, raw) in tree.items() if kind == "file"}


@pytest.mark.slow
@given(start=st.dictionaries(paths, texts), batch=st.lists(operations, min_size=1, max_size=6))
@settings(
    max_examples=1000 if os.environ.get("MENTRA_FAULT_KILLS") else 40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_batch_does_what_a_plain_model_does_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: dict[str, str], batch: Operations
) -> None:
    import anyio

    folder = tmp_path / "work"
    make_tree(folder, {})
    for name, text in start.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    expected: dict[str, str] | None = start
    for operation in batch:
        expected = modelled(expected, operation) if expected is not None else None
    before = tree_in(folder)

    async def run() -> None:
        await files(folder, *batch)

    if expected is None:
        with pytest.raises(ToolError):
            anyio.run(run)
        assert tree_in(folder) == before
    else:
        anyio.run(run)
        assert contents(folder) == expected


async def test_a_batch_says_which_of_its_files_it_only_reads(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    operations = [
        {"op": "read", "path": "a"},
        {"op": "read", "path": "b"},
        {"op": "set", "path": "b", "content": "x"},
        {"op": "move", "from": "c", "to": "d"},
    ]
    made, tool = context(tmp_path), FilesTool()
    subject = tool.subject(made, {"operations": operations})
    assert set(subject.parts) == {"a", "b", "c", "d"}
    assert subject.only_read == ("a",)
