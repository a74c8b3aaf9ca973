"""Skills: what is found and read, what is refused, what a model reads about them, and what `load_skill` answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from kits.core import Judge, bench, context
from pydantic import ValidationError

from mentra_nb.authorization import (
    ToolAuthorizationDecision,
    ToolCapability,
)
from mentra_nb.content import ToolResult
from mentra_nb.errors import (
    DuplicateSkillName,
    ErrorCategory,
    InvalidFrontmatter,
    ReadDir,
    ReadFile,
    SkillLoadError,
)
from mentra_nb.providers.scripted import ScriptedCall, text, tool_calls
from mentra_nb.tools.builtin.front_matter import MAX_FILE_BYTES, MAX_FRONT_MATTER
from mentra_nb.tools.builtin.skills import (
    MAX_DESCRIPTION,
    MAX_FOLDERS,
    MAX_NAME,
    MAX_SKILLS,
    LoadSkillTool,
    Skill,
    Skills,
)
from mentra_nb.tools.schema import ToolError

pytestmark = pytest.mark.anyio

not_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser reads everything")


def write(root: Path, folder: str, content: str | bytes) -> Path:
    """A `SKILL.md` in a folder of the root, byte for byte. `…/*` is a folder with the name that the file says."""
    if folder.endswith("*"):
        said = re.search(rb"name: (.*)", content if isinstance(content, bytes) else content.encode())
        folder = folder[:-1] + (said[1].decode().strip(" '\r") if said else "any")
    path = root / folder / "SKILL.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def skill(name: str, description: str = "Does it.", body: str = "Do it.\n") -> str:
    return f"---\nname: {name}\ndescription: {description}\n---\n{body}"


def loaded(*roots: Path) -> Skills:
    skills = Skills()
    for root in roots:
        skills.add_root(root)
    return skills


def names(skills: Skills) -> list[str]:
    return [one.name for one in skills.list()]


def body(skills: Skills, name: str) -> str:
    """What is between the tags of `load_skill`'s answer."""
    return skills.load(name).removeprefix(f'<skill name="{name}">\n').removesuffix("\n</skill>")


def only(root: Path) -> tuple[Skill, str]:
    """The one skill of a root, and its body."""
    skills = loaded(root)
    (one,) = skills.list()
    return one, body(skills, one.name)


# ---- files ----------------------------------------------------------------------------------------------------


def test_parses_frontmatter_and_strips_it_from_content(tmp_path: Path) -> None:
    path = write(tmp_path, "*", "---\nname: git\ndescription: Git workflow\n---\n\n# Git\nCommit small.\n\n\n")
    one, content = only(tmp_path)
    assert one == Skill(name="git", description="Git workflow", path=path.resolve())
    assert content == "\n# Git\nCommit small."


def test_falls_back_to_directory_name_when_name_is_missing(tmp_path: Path) -> None:
    write(tmp_path, "absent", "---\ndescription: x\n---\nbody")
    write(tmp_path, "blank", "---\nname: '  '\n---\nbody")
    write(tmp_path, "empty", "---\nname:\n---\nbody")
    write(tmp_path, "null", "---\nname: ~\n---\nbody")
    write(tmp_path, "nothing", "---\n---\nbody")
    write(tmp_path, "comment", "---\n# later\n---\nbody")
    assert names(loaded(tmp_path)) == ["absent", "blank", "comment", "empty", "nothing", "null"]


def test_a_skill_in_the_root_itself_is_named_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "root", "body")
    (tmp_path / "root" / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "root" / "deeper")
    assert names(loaded(Path(".."))) == ["root"]


def test_without_an_opening_line_the_whole_file_is_the_body(tmp_path: Path) -> None:
    for number, content in enumerate(
        ["", "plain", "\n---\nname: x\n---\n", "--- \nname: x\n---\n", "----\n---\n", "---"]
    ):
        write(tmp_path, f"s{number}", content)
    skills = loaded(tmp_path)
    assert {(one.name, one.description) for one in skills.list()} == {(f"s{n}", "") for n in range(6)}
    assert body(skills, "s0") == ""
    assert body(skills, "s2") == "\n---\nname: x\n---"
    assert body(skills, "s3") == "--- \nname: x\n---"


def test_a_file_that_begins_with_a_byte_order_mark_has_no_front_matter(tmp_path: Path) -> None:
    write(tmp_path, "marked", b"\xef\xbb\xbf---\nname: x\n---\nbody\n")
    one, content = only(tmp_path)
    assert (one.name, content) == ("marked", "\ufeff---\nname: x\n---\nbody")


def test_lines_may_end_with_crlf(tmp_path: Path) -> None:
    write(tmp_path, "*", b"---\r\nname: win\r\ndescription: dows\r\n---\r\nfirst\r\nsecond\r\n\r\n")
    one, content = only(tmp_path)
    assert (one.name, one.description, content) == ("win", "dows", "first\r\nsecond")


@pytest.mark.parametrize("end", ["---", "---\r", "---\n", "---\r\n"])
def test_a_skill_may_end_with_its_front_matter(tmp_path: Path, end: str) -> None:
    write(tmp_path, "*", f"---\nname: short\n{end}")
    one, content = only(tmp_path)
    assert (one.name, content) == ("short", "")


def test_the_front_matter_ends_at_the_first_line_of_just_three_dashes(tmp_path: Path) -> None:
    write(tmp_path, "*", "---\nname: x\ndescription: a --- b\nother: |\n  ---\n---\none\n---\ntwo\n")
    one, content = only(tmp_path)
    assert (one.description, content) == ("a --- b", "one\n---\ntwo")


def test_only_files_of_the_exact_name_at_any_depth_are_skills(tmp_path: Path) -> None:
    write(tmp_path, "a/b/deep", skill("deep"))
    write(tmp_path, ".config/hidden", skill("hidden"))
    for other in ("README.md", "skill.md", "SKILL.md.bak"):
        (tmp_path / "a" / other).write_text(skill(f"not-{other}"))
    (tmp_path / "folder" / "SKILL.md").mkdir(parents=True)
    assert names(loaded(tmp_path)) == ["deep", "hidden"]


def test_an_empty_root_adds_nothing(tmp_path: Path) -> None:
    assert loaded(tmp_path).list() == []


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    target = write(outside, "secret", skill("secret"))
    write(root, "kept", skill("kept"))
    (root / "linked-folder").symlink_to(outside, target_is_directory=True)
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "linked-file").mkdir()
    (root / "linked-file" / "SKILL.md").symlink_to(target)
    (root / "dangling").mkdir()
    (root / "dangling" / "SKILL.md").symlink_to(tmp_path / "nowhere")
    assert names(loaded(root)) == ["kept"]


def test_the_root_itself_may_be_a_symlink(tmp_path: Path) -> None:
    path = write(tmp_path, "real/one", skill("one"))
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert [found.path for found in loaded(tmp_path / "link").list()] == [path.resolve()]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_not_a_regular_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "SKILL.md")
    assert loaded(tmp_path).list() == []


# ---- refusals -------------------------------------------------------------------------------------------------


def refusal(root: Path | str, kind: type[SkillLoadError]) -> str:
    """What is said when a root is refused; nothing of it may be kept."""
    skills = Skills()
    with pytest.raises(SkillLoadError) as raised:
        skills.add_root(root)
    assert type(raised.value) is kind
    assert raised.value.category is ErrorCategory.TERMINAL
    assert skills.list() == []
    said = str(raised.value)
    assert "\n" not in said
    return said


def test_rejects_duplicate_skill_names(tmp_path: Path) -> None:
    second = write(tmp_path, "b/*", skill("same"))
    first = write(tmp_path, "a/z/*", skill("' same '"))
    with pytest.raises(DuplicateSkillName) as raised:
        Skills().add_root(tmp_path)
    error = raised.value
    assert (error.name, error.first, error.second) == ("same", first.resolve(), second.resolve())
    assert str(error) == f"two skills are named 'same': '{error.first}' and '{error.second}'; rename one of them"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("---\nname: x\nbody without an end", "the closing line '---' is missing"),
        ("---\nname: x\n--- \nbody", "the closing line '---' is missing"),
        ("---\nname: [x\n---\nbody", "expected ',' or ']', but got '<stream end>' in line 3"),
        ("---\nok: yes\ndescription: use when: asked\n---\n", "mapping values are not allowed here in line 3"),
        ("---\nname: *nobody\n---\n", "found undefined alias 'nobody' in line 2"),
        ("---\nname: a\n--- name: b\n---\n", "but found another document in line 3"),
        ("---\nname: \x07\n---\n", "unacceptable character #x0007: special characters are not allowed"),
        ("---\n- name\n---\n", "write it as lines like `name: …` and `description: …`"),
        ("---\njust words\n---\n", "write it as lines like `name: …` and `description: …`"),
        ("---\nname: [a, b]\n---\n", "its `name` must be text; put it in quotes"),
        ("---\ndescription: {a: b}\n---\n", "its `description` must be text; put it in quotes"),
        ("---\nx: " + "[" * 5_000 + "\n---\n", "it is nested too deeply"),
        ('---\nname: "\\U00110000"\n---\n', "chr() arg not in range(0x110000)"),
        ("---\nname: &a x\nb: &a y\n---\n", "first occurrence: second occurrence in line 3"),
    ],
)  # fmt: skip
def test_rejects_malformed_frontmatter(tmp_path: Path, content: str, why: str) -> None:
    path = write(tmp_path, "any", content).resolve()
    said = refusal(tmp_path, InvalidFrontmatter)
    assert said.startswith(f"the front matter of '{path}' is not valid: ")
    assert said.endswith(why)


def test_a_missing_root_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path / "nowhere", ReadDir)
    assert said == f"the skills folder '{tmp_path / 'nowhere'}' cannot be read: No such file or directory"


def test_a_root_that_is_a_file_or_a_loop_or_no_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert refusal(write(tmp_path, "a", "body"), ReadDir).endswith("cannot be read: Not a directory")
    assert str(tmp_path / "loop") in refusal(tmp_path / "loop", ReadDir)
    assert "null byte" in refusal("a\0b", ReadDir)
    assert "home directory" in refusal("~nobody-of-this-name/skills", ReadDir)


@not_root
def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "fine", skill("fine"))
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    assert refusal(tmp_path, ReadDir) == f"the skills folder '{closed}' cannot be read: Permission denied"


@not_root
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "closed", skill("x"))
    path.chmod(0o000)
    assert refusal(tmp_path, ReadFile) == f"'{path}' cannot be read: Permission denied"


def test_what_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "latin", "---\nname: café\n---\nbody".encode("latin-1")).resolve()
    assert refusal(tmp_path, ReadFile) == (
        f"'{path}' cannot be read: it is not UTF-8 text; save it as UTF-8"
    )  # fmt: skip


def test_a_file_has_a_greatest_size(tmp_path: Path) -> None:
    write(tmp_path, "*", b"x" * MAX_FILE_BYTES)
    assert len(only(tmp_path)[1]) == MAX_FILE_BYTES
    write(tmp_path, "*", b"x" * (MAX_FILE_BYTES + 1))
    assert refusal(tmp_path, ReadFile).endswith("it is larger than 256 KiB; shorten it")


def test_front_matter_has_a_greatest_size(tmp_path: Path) -> None:
    write(tmp_path, "*", "---\n" + "#" * (MAX_FRONT_MATTER - 1) + "\n---\n")
    assert names(loaded(tmp_path)) == ["any"]
    write(tmp_path, "*", "---\n" + "#" * MAX_FRONT_MATTER + "\n---\n")
    assert f"longer than {MAX_FRONT_MATTER} characters" in refusal(tmp_path, InvalidFrontmatter)


def test_a_name_and_a_description_have_a_greatest_size(tmp_path: Path) -> None:
    write(tmp_path, "*", skill("n" * MAX_NAME, "d" * MAX_DESCRIPTION))
    assert len(only(tmp_path)[0].description) == MAX_DESCRIPTION
    write(tmp_path / "long", "*", skill("n", "d" * (MAX_DESCRIPTION + 1)))
    assert f"longer than {MAX_DESCRIPTION} characters" in refusal(tmp_path / "long", InvalidFrontmatter)
    write(tmp_path / "name", "*", skill("n" * (MAX_NAME + 1)))
    assert f"up to {MAX_NAME} lower-case letters" in refusal(tmp_path / "name", InvalidFrontmatter)


def test_a_root_has_a_greatest_number_of_skills(tmp_path: Path) -> None:
    for number in range(MAX_SKILLS):
        write(tmp_path, f"{number:03}", "body")
    assert len(loaded(tmp_path).list()) == MAX_SKILLS
    write(tmp_path, "one-more", "body")
    assert f"more than {MAX_SKILLS} skills" in refusal(tmp_path, ReadDir)


@pytest.mark.slow
def test_a_root_has_a_greatest_number_of_folders(tmp_path: Path) -> None:
    for number in range(MAX_FOLDERS - 1):
        (tmp_path / str(number)).mkdir()
    assert loaded(tmp_path).list() == []
    (tmp_path / "0" / "one-more").mkdir()
    assert f"more than {MAX_FOLDERS} folders" in refusal(tmp_path, ReadDir)


def test_one_bad_skill_refuses_its_root_and_leaves_the_others(tmp_path: Path) -> None:
    write(tmp_path, "first/a", skill("a"))
    write(tmp_path, "second/b", skill("b"))
    write(tmp_path, "second/c", "---\nname: c")
    skills = loaded(tmp_path / "first")
    with pytest.raises(InvalidFrontmatter):
        skills.add_root(tmp_path / "second")
    assert names(skills) == ["a"]


# ---- odd and hostile texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2024", "2024"),
        ("007", "007"),
        ("1.10", "1.10"),
        ("on", "on"),
        ("2024-01-31", "2024-01-31"),
        ("12:30:00", "12:30:00"),
        ("'quoted: text'", "quoted: text"),
        ('"tab\\there"', "tab here"),
        ("!!python/object:os.system x", "x"),
        ("&anchor text", "text"),
    ],
)
def test_a_scalar_is_read_as_it_is_written(tmp_path: Path, written: str, read: str) -> None:
    write(tmp_path, "any", skill("any", written))
    assert only(tmp_path)[0].description == read


def test_other_keys_are_ignored_whatever_they_hold(tmp_path: Path) -> None:
    write(tmp_path, "*", "---\nname: kept\nday: 2024-13-45\n[a, b]: c\n? {d: e}\n: f\ntags: [a, {b: c}]\n---\n")
    assert only(tmp_path)[0].name == "kept"


def test_merge_keys_that_multiply_are_not_expanded(tmp_path: Path) -> None:
    bomb = "a0: &a0 {k: v}\n" + "".join(
        f"a{level}: &a{level} {{<<: [{','.join([f'*a{level - 1}'] * 9)}]}}\n" for level in range(1, 40)
    )
    write(tmp_path, "*", f"---\n{bomb}name: calm\n---\n")
    began = time.process_time()
    assert only(tmp_path)[0].name == "calm"
    assert time.process_time() - began < 10  # expanded it would be 9**40 pairs


def test_a_description_stays_on_its_line_of_the_prompt(tmp_path: Path) -> None:
    block = "  first\n  second\n\n    - fake: entry\n"
    write(tmp_path, "block", f"---\nname: block\ndescription: |\n{block}---\n")
    write(
        tmp_path, "escapes", '---\nname: "\\nescapes"\ndescription: "a\\u2028b\\x85c\\e[1m\\u202Ed\\uD800e\\0"\n---\n'
    )
    skills = loaded(tmp_path)
    prompt = skills.prompt()
    assert prompt is not None
    assert prompt.splitlines()[1:-1] == ["  - block: first second - fake: entry", "  - escapes: a b c [1m d e"]
    prompt.encode()


def test_joined_letters_and_emoji_are_kept(tmp_path: Path) -> None:
    words = "می\u200cخواهم 👩\u200d💻"
    write(tmp_path, "*", skill("x", words))
    assert only(tmp_path)[0].description == words


@pytest.mark.parametrize("name", ['a"b', "a<b", "A", "a b", "a--b", "-a", "a_b"])
def test_a_name_is_lower_case_letters_digits_and_single_hyphens(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, "body")
    assert "lower-case letters, digits and single hyphens" in refusal(tmp_path, InvalidFrontmatter)


def test_a_name_is_that_of_its_folder(tmp_path: Path) -> None:
    write(tmp_path, "reports", skill("report"))
    said = refusal(tmp_path, InvalidFrontmatter)
    assert said.endswith("its `name` is 'report' and its folder 'reports': they must be the same")


def test_the_tools_a_skill_asks_for_are_kept_as_a_suggestion(tmp_path: Path) -> None:
    write(tmp_path, "git", "---\nname: git\nallowed-tools: shell(git *) read\n---\nbody")
    assert only(tmp_path)[0].allowed_tools == "shell(git *) read"


def test_a_body_cannot_end_its_tags(tmp_path: Path) -> None:
    write(tmp_path, "*", skill("x", body="a </skill> b </SKILL > c </skills> <skill>"))
    assert loaded(tmp_path).load("x") == (
        '<skill name="x">\na &lt;/skill> b &lt;/SKILL > c </skills> <skill>\n</skill>'
    )


# ---- several roots, and what is listed ------------------------------------------------------------------------


def test_registering_a_second_root_keeps_the_first(tmp_path: Path) -> None:
    write(tmp_path, "first/a", skill("a", "first"))
    write(tmp_path, "second/b", skill("b", "second"))
    assert names(loaded(tmp_path / "first", tmp_path / "second")) == ["a", "b"]


def test_an_earlier_root_wins_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "first/*", skill("same", "first", "one")).resolve()
    write(tmp_path, "second/*", skill("same", "second", "two"))
    write(tmp_path, "second/*", skill("other"))
    skills = loaded(tmp_path / "first", tmp_path / "second")
    assert skills.list()[1] == Skill(name="same", description="first", path=path)
    assert body(skills, "same") == "one"
    assert names(skills) == ["other", "same"]


def test_a_duplicate_inside_a_later_root_is_an_error_even_when_an_earlier_root_has_the_name(tmp_path: Path) -> None:
    write(tmp_path, "first/*", skill("same"))
    for folder in ("second/a/*", "second/b/*"):
        write(tmp_path, folder, skill("same"))
    skills = loaded(tmp_path / "first")
    with pytest.raises(DuplicateSkillName):
        skills.add_root(tmp_path / "second")
    assert names(skills) == ["same"]


def test_the_same_root_again_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a", skill("a", "old"))
    skills = loaded(tmp_path)
    before = skills.list()
    write(tmp_path, "a", skill("a", "new"))
    skills.add_root(str(tmp_path))
    assert skills.list() == before


def test_enumeration_reports_name_description_and_source(tmp_path: Path) -> None:
    z = write(tmp_path, "1/*", skill("zeta", "Last.")).resolve()
    a = write(tmp_path, "2/*", skill("alpha", "First.", "secret")).resolve()
    listed = loaded(tmp_path).list()
    assert [one.model_dump() for one in listed] == [
        {"name": "alpha", "description": "First.", "path": a, "allowed_tools": ""},
        {"name": "zeta", "description": "Last.", "path": z, "allowed_tools": ""},
    ]
    with pytest.raises(ValidationError):
        listed[0].name = "other"  # type: ignore[misc]


def test_renders_descriptions_in_sorted_order(tmp_path: Path) -> None:
    write(tmp_path, "1/*", skill("zeta", "Last."))
    write(tmp_path, "2/*", skill("alpha", "First."))
    prompt = loaded(tmp_path).prompt()
    assert prompt is not None
    heading, *lines, hint = prompt.split("\n")
    assert heading == "Skills available:"
    assert lines == ["  - alpha: First.", "  - zeta: Last."]
    assert "`load_skill`" in hint


def test_without_skills_the_prompt_has_no_section() -> None:
    assert Skills().prompt() is None


# ---- load_skill -----------------------------------------------------------------------------------------------


def test_load_skill_describes_itself() -> None:
    spec = LoadSkillTool(Skills()).spec
    assert spec.name == "load_skill"
    assert spec.capabilities == (ToolCapability.SKILL_LOAD, ToolCapability.READ_ONLY)
    assert (spec.side_effect_level, spec.durability) == ("None", "ReplaySafe")
    assert spec.execution_category == "ReadOnlyParallel"
    assert spec.approval_category == "ReadOnly"
    assert (spec.asks, spec.reads_only, spec.effect) == (False, True, "none")
    assert spec.input_schema["required"] == ["name"]
    assert spec.input_schema["properties"]["name"]["type"] == "string"


async def call(skills: Skills, folder: Path, **arguments: Any) -> str:
    """Validate and run, as the scheduler does."""
    made = LoadSkillTool(skills)
    return str((await made.execute(context(folder), made.validate(arguments))).content)


async def test_load_skill_returns_the_body_as_it_was_when_its_root_was_added(tmp_path: Path) -> None:
    path = write(tmp_path, "*", skill("git", body="old\n\n"))
    skills = loaded(tmp_path)
    path.unlink()
    assert await call(skills, tmp_path, name=" git ", reason="because") == '<skill name="git">\nold\n</skill>'


async def test_an_unknown_skill_is_a_tool_error(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as raised:
        await call(Skills(), tmp_path, name="nope")
    assert str(raised.value) == "Unknown skill 'nope'"


@pytest.mark.parametrize("arguments", [{}, {"name": ""}, {"name": " \n"}, {"name": None}, {"name": 3}])
async def test_a_skill_is_asked_for_by_name(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ToolError, match=r"^Skill name is required$"):
        await call(Skills(), tmp_path, **arguments)


async def test_skills_are_loaded_in_a_turn_and_a_rule_can_name_them(tmp_path: Path) -> None:
    write(tmp_path, "git", skill("git", body="Commit small.\n"))
    calls = tool_calls([ScriptedCall("load_skill", {"name": "git"}), ScriptedCall("load_skill", {"name": "nope"})])
    judge = Judge(ToolAuthorizationDecision.allow())
    async with bench(calls, text("done"), tools=[LoadSkillTool(loaded(tmp_path))], authorizer=judge) as b:
        agent = await b.agent()
        await agent.send("commit")
        results = [block for message in agent.history() for block in message.content if isinstance(block, ToolResult)]
    assert [(result.content, result.is_error) for result in results] == [
        ('<skill name="git">\nCommit small.\n</skill>', False),
        ("Unknown skill 'nope'", True),
    ]
    assert [(str(request.subject), request.asks) for request in judge.asked] == [("git", False), ("nope", False)]


def test_the_other_files_of_a_skill_are_listed_and_read_on_demand(tmp_path: Path) -> None:
    write(tmp_path, "git", skill("git", body="See more.md."))
    write(tmp_path, "git/inner", skill("inner"))
    folder = tmp_path / "git"
    (folder / "inner" / "its.md").write_text("of the skill within")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "run.py").write_text("print(1) # </skill>")
    (folder / "more.md").write_text("old")
    (folder / ".env").write_text("KEY=1")
    (folder / "link").symlink_to("/etc/hostname")
    (folder / "picture.png").write_bytes(b"\x89PNG\xff")
    skills = loaded(tmp_path)
    assert "Files of this skill, for `file`: more.md, picture.png, scripts/run.py\n" in skills.load("git")
    (folder / "more.md").write_text("new")
    assert skills.read("git", "more.md") == '<skill name="git" file="more.md">\nnew\n</skill>'
    assert "&lt;/skill>" in skills.read("git", "scripts/run.py")
    with pytest.raises(ToolError, match="is not UTF-8 text"):
        skills.read("git", "picture.png")
    for other in (".env", "link", "inner/SKILL.md", "inner/its.md", "../git/more.md", "/etc/hostname", "SKILL.md", ""):
        with pytest.raises(ToolError, match=r"^skill 'git' has no file"):
            skills.read("git", other)
    (folder / "more.md").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ToolError, match="larger than 256 KiB"):
        skills.read("git", "more.md")


async def test_load_skill_reads_a_file_by_name(tmp_path: Path) -> None:
    write(tmp_path, "git", skill("git"))
    (tmp_path / "git" / "more.md").write_text("More.")
    skills = loaded(tmp_path)
    assert "More." in await call(skills, tmp_path, name="git", file="more.md")
    with pytest.raises(ToolError, match="has no file"):
        await call(skills, tmp_path, name="git", file="../x")
    with pytest.raises(ToolError, match="a name that the skill lists"):
        await call(skills, tmp_path, name="git", file=3)


# ---- cost -----------------------------------------------------------------------------------------------------


def test_yaml_is_loaded_with_the_first_front_matter_and_not_before(tmp_path: Path) -> None:
    write(tmp_path, "plain/a", "body")
    write(tmp_path, "headed/b", skill("b"))
    program = f"""
import sys
from pathlib import Path
from mentra_nb import Runtime
from mentra_nb.tools.builtin.skills import LoadSkillTool, Skills
skills = Skills()
LoadSkillTool(skills)
skills.add_root(Path({str(tmp_path / "plain")!r}))
assert "yaml" not in sys.modules
skills.add_root(Path({str(tmp_path / "headed")!r}))
assert "yaml" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
