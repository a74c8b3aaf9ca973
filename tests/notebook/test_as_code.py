"""What calls did, as Python: run again here, it leaves what they left."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from mentra_nb.chat.reply import ToolCallSummary
from mentra_nb.notebook.as_code import MASKED, as_code


def call(name: str, given: dict[str, Any] | None, **details: Any) -> ToolCallSummary:
    return ToolCallSummary(name, "", bool(details), 1, given, details or None)


def run(text: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec("import subprocess\nfrom pathlib import Path\n" + text, names)
    return names


@pytest.mark.parametrize(
    ("code", "line", "left"),
    [
        ("a = 1\n1 / 0\na = 2", 2, {"a": 1}),
        ("a = 1; 1 / 0; a = 2", 1, {"a": 1}),
        ("a = 0\nfor n in 1, 2:\n    a += n\n    '''x\ny''' + n\na = 9", 4, {"a": 1}),
        ("a = 1\nb = (a,\n  f'''{a}\n  z''', 1 / 0)\nc = 1", 4, {"a": 1}),
        ("a = []\n@a.append\n@next\ndef f(): pass\na = 2", 3, {"a": []}),
        ("def f(): raise ValueError\na = 3\nf()", 3, {"a": 3}),
        ("a = 1\n", None, {}),
    ],
)
def test_of_code_that_failed_what_ran_is_kept(code: str, line: int | None, left: dict[str, Any]) -> None:
    names = run(as_code([call("python", {"code": code}, failed_line=line)]).text)
    assert {name: names[name] for name in ("a", "c") if name in names} == left


@pytest.mark.parametrize(
    "content", ["", "one", "a\nb\n", 'say "\n"', "'''\n\"\"\"\\", "\\n\n\\\r\n", "\ttab\n\x00é\u2028"]
)
def test_a_file_is_written_as_it_was(content: str, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "it's"
    run(as_code([call("write", {"path": str(path), "content": content})]).text)
    with path.open(encoding="utf-8", newline="") as file:
        assert file.read() == content


def test_operations_on_files_are_done_in_their_folder(tmp_path: Path) -> None:
    operations = [
        {"op": "create", "path": "sub/", "content": ""},
        {"op": "create", "path": "sub/a", "content": "x\nx"},
        {"op": "read", "path": "sub/a"},
        {"op": "replace", "path": "sub/a", "old": "x", "new": "y", "replaceAll": True},
        {"op": "move", "from": "sub/a", "to": "b"},
        {"op": "delete", "path": "sub"},
        {"op": "patch", "path": "b\nimport os", "patch": "@@"},
    ]
    made = as_code([call("files", {"operations": operations, "workingDirectory": str(tmp_path)})])
    run(made.text)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("b", "y\ny")]
    assert made.text.splitlines()[-1] == "# Not repeated here: the agent changed 'b\\nimport os' (patch)."
    assert made.imports == ("from pathlib import Path",)


def test_calls_that_did_nothing_are_left_out_and_others_are_named() -> None:
    made = as_code(
        [
            call("python", None),
            call("read", {"path": "a"}),
            call("write", {"path": "a", "content": "b"}, failed=True),
            call("mcp__mail__send\nimport os", {"to": "x"}),
        ]
    )
    assert made.text == "# Not repeated here: the agent called mcp__mail__send import os."
    assert (made.imports, made.notes) == ((), ())
    assert as_code([call("read", {"path": "a"})]).text == ""


def test_a_command_is_what_it_was_and_fails_as_it_did(tmp_path: Path) -> None:
    command = "printf '%s' \"$0 {x} it's\" > out\nexit 3"
    given = {"command": command, "working_directory": str(tmp_path)}
    run(as_code([call("shell", given, exit=3)]).text)
    expected = subprocess.run(command.partition("\n")[0], shell=True, cwd=tmp_path, check=True)
    assert expected.returncode == 0
    assert (tmp_path / "out").read_text().endswith(" {x} it's")
    with pytest.raises(subprocess.CalledProcessError):
        run(as_code([call("shell", given)]).text)


def test_a_secret_is_left_out_and_said() -> None:
    key = "sk-proj-" + "a1B2c3D4" * 6
    made = as_code([call("python", {"code": f"key = '{key}'"})])
    assert key not in made.text
    assert made.notes == (MASKED,)
