"""What the calls of a turn did, as Python that does the same without an agent."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mentra_nb.chat.reply import ToolCallSummary
from mentra_nb.secrets.mask import mask_secrets

_IMPORTS = {"subprocess.": "import subprocess", "Path(": "from pathlib import Path"}
_READ_ONLY = {"read", "variables", "read_tool_result", "search_tools", "ask_user", "load_skill", "check_background"}
"""Built-in tools that leave nothing which code could do again."""
MASKED = "A secret in it was left out: fill it in before you run the cell."


@dataclass(frozen=True)
class AsCode:
    """The code, the imports it needs, and lines about what is not in it."""

    text: str
    imports: tuple[str, ...]
    notes: tuple[str, ...]


def as_code(calls: Iterable[ToolCallSummary]) -> AsCode:
    """Return calls as code. Calls that never ran, or only read, are left out; what cannot be repeated is a comment."""
    whole = "\n\n".join(filter(None, map(_of_call, calls)))
    text = mask_secrets(whole)
    imports = tuple(line for used, line in _IMPORTS.items() if used in text)
    return AsCode(text, ("\n".join(imports),) if imports else (), () if text == whole else (MASKED,))


def _of_call(call: ToolCallSummary) -> str:
    given = call.arguments
    if given is None or call.name in _READ_ONLY:
        return ""
    match call.name:
        case "python":
            return _python(str(given.get("code", "")), call)
        case "shell":
            return _command(given, failed=call.is_error)
        case "write" | "files" if call.is_error:
            return ""  # all of it was done, or nothing
        case "write":
            return _written(given["path"], given["content"])
        case "files":
            return _files(given)
    return _comment(f"Not repeated here: the agent called {call.name}.")


def _comment(text: str) -> str:
    return f"# {' '.join(text.split())}"


# ---- Python -----------------------------------------------------------------------------------------------------


def _python(code: str, call: ToolCallSummary) -> str:
    """Return code that ran in the kernel; of code that failed, what ran of it."""
    if code.lstrip().startswith("%%"):
        code = _transformed(code.lstrip())
    if not call.is_error:
        return code.strip("\n")
    line = call.details.get("failed_line") if isinstance(call.details, dict) else None
    return _until(_transformed(code), line) if isinstance(line, int) else ""


def _transformed(code: str) -> str:
    """Return code with its magics as the calls that they stand for."""
    from IPython.core.inputtransformer2 import TransformerManager

    made: str = TransformerManager().transform_cell(code)  # type: ignore[no-untyped-call]  # IPython has no types
    return made


def _until(code: str, line: int) -> str:
    """Return the statements that ran before the one that raised at this line, and that one so that it may raise."""
    body = ast.parse(code).body
    failed = [each for each in body if _begin(each) <= line <= (each.end_lineno or each.lineno)]
    if not failed:
        return ""
    first, last = min(map(_begin, failed)), max(each.end_lineno or each.lineno for each in failed)
    lines = code.splitlines()
    inside: set[int] = set()  # lines that begin within text, where blanks would be part of it
    for node in ast.walk(ast.Module(failed, [])):
        if isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno is not None:
            inside.update(range(node.lineno + 1, node.end_lineno + 1))
    raising = [
        text if number in inside else textwrap.indent(text, "    ")
        for number, text in enumerate(lines[first - 1 : last], first)
    ]
    shielded = ["try:  # this raised then, too", *raising, "except Exception:", "    pass"]
    return "\n".join([*lines[: first - 1], *shielded]).strip("\n")


def _begin(statement: ast.stmt) -> int:
    """Return the first line of a statement, with its decorators."""
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(each.lineno for each in decorators)])


# ---- commands and files -----------------------------------------------------------------------------------------


def _command(given: dict[str, Any], *, failed: bool) -> str:
    where = f", cwd={given['working_directory']!r}" if given.get("working_directory") else ""
    return f"subprocess.run({_text(given['command'])}, shell=True, check={not failed}{where})"


def _files(given: dict[str, Any]) -> str:
    from mentra_nb.tools.builtin.files.operations import Files, reads_only

    wanted = Files.model_validate(given)
    folder = wanted.working_directory or ""
    done = [each for each in wanted.operations if not reads_only([each])]
    return "\n".join(_operation(each.op, each.model_dump(), folder) for each in done)


def _operation(op: str, given: dict[str, Any], folder: str) -> str:
    def at(path: str) -> str:
        return f"Path({folder!r}, {path!r})" if folder else f"Path({path!r})"

    path = given.get("path", "")
    match op:
        case "create" if path.endswith("/"):
            return f"{at(path)}.mkdir(parents=True, exist_ok=True)"
        case "create" | "set":
            return _written(path, given["content"], folder)
        case "replace":
            read = f'{at(path)}.read_text(encoding="utf-8")'
            new = f"{read}.replace({_text(given['old'])}, {_text(given['new'])})"
            return f'{at(path)}.write_text({new}, encoding="utf-8")'
        case "move":
            return f"{at(given['source'])}.rename({at(given['to'])})"
        case "delete":
            return f"{at(path)}.rmdir() if {at(path)}.is_dir() else {at(path)}.unlink()"
    return _comment(f"Not repeated here: the agent changed {path!r} ({op}).")


def _written(path: str, content: str, folder: str = "") -> str:
    where = f"Path({folder!r}, {path!r})" if folder else f"Path({path!r})"
    return f'{where}.parent.mkdir(parents=True, exist_ok=True)\n{where}.write_text({_text(content)}, encoding="utf-8")'


def _text(text: str) -> str:
    """Return a text as Python: over several lines where that means the same, else as its `repr`."""
    if "\n" in text:
        made = '"""' + text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"') + '"""'
        try:
            if ast.literal_eval(made) == text:
                return made
        except (SyntaxError, ValueError):
            pass
    return repr(text)
