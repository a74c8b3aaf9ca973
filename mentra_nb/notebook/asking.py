"""A permission question as plain text: for terminals, input boxes and lists. The card shows the same texts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mentra_nb.authorization import CallEffect, PermissionDecision, PermissionQuestion, ToolCapability
from mentra_nb.forms import Form, FormField
from mentra_nb.notebook.changes import planned_changes
from mentra_nb.page.escaping import cut, visible
from mentra_nb.permission.effects import folders_of
from mentra_nb.tools.builtin.python import IN_KERNEL
from mentra_nb.words import counted

if TYPE_CHECKING:
    from mentra_nb.effect.lines import Changes

CHOICES = "[a]llow once, al[w]ays, [d]eny, [s]top"
EFFECT_CHOICES = "[k]eep, al[w]ays, [d]iscard, [s]top"
ONCE_CHOICES = "[k]eep, [d]iscard, [s]top"
UNDO_OF_CODE = (
    "Undo restores variables, files of this folder that Python opens, and settings of this kernel such as its "
    "environment, working folder and random state; not what else the code does"
)
"""Said before code runs."""
MAX_BEYOND = 12
"""Variables that are named of those that undo cannot restore."""
MAX_DIFF_LINE = 500
"""Characters of a line of a diff."""
MAX_VALUES = 8
"""Choices of a field that are named in one line."""
MAX_OUTCOME = 160
"""Characters of what was asked that the line about its answer repeats, where it is text of a model or a server."""
MAX_LINES = 3
"""Lines of a command that was tried from which on all but the first are folded where its diff is shown."""
MAX_FIRST = 100
"""Characters of that first line."""
MAX_DIFF_TEXT = 60
"""Lines of a diff in a text."""
MAX_FILES = 200
"""Changed files that are named one by one."""
_SIGNS = {"created": "+", "changed": "~", "deleted": "−"}

_BLANKS = re.compile(r"(?<=\S)[ \t]{3,}")
MAX_BLANKS = 20
"""Columns of a run of blanks within a line from which it is counted instead."""


def headline(question: PermissionQuestion) -> str:
    """Return what the call would do, or did. Apart from the tool's name, no model or tool has written any of it."""
    if question.form is not None:
        return question.form.title or f"{visible(question.form.who)} asks"
    if question.effect is not None:
        if question.effect.outside:
            return "Run a command outside the sandbox"
        return f"Keep what a command changed: {counted(len(question.effect.files), 'file')}"
    match set(question.preview.capabilities):
        case kinds if ToolCapability.PROCESS_EXEC in kinds:
            return "Run a command"
        case kinds if ToolCapability.BACKGROUND_EXEC in kinds:
            return "Run a command in the background"
        case kinds if ToolCapability.FILESYSTEM_WRITE in kinds:
            return _write_headline(question.preview.structured_input)
        case kinds if ToolCapability.FILESYSTEM_READ in kinds:
            return "Read a file"
        case kinds if IN_KERNEL in kinds:
            return "Run Python in this kernel"
    return f"Call {visible(question.tool_name)}"


def _write_headline(planned: Any) -> str:
    """Return whether a file is new or replaced, as far as the tool knows; only its numbers are shown."""
    match planned:
        case {"changes": [{"kind": str(kind)}]}:
            return {"created": "Write a new file", "deleted": "Delete a file"}.get(kind, "Change a file")
        case {"changes": [_, *_] as several}:
            return f"Change {counted(len(several), 'file')}"
        case {"operations": [{"op": "create"}]}:
            return "Write a new file"
        case {"operations": [{"op": "set", "replaces": {"lines": int(lines)}}]}:
            return f"Replace a file of {_counted(lines)}"
        case {"operations": [{"op": "set", "replaces": {"bytes": int(size)}}]}:
            return f"Replace a file of {size} bytes"
        case {"operations": [{"op": "set"}]}:
            return "Replace a file"
    return "Write a file"


def arguments(question: PermissionQuestion) -> str:
    """Return all arguments of the call; none for a question of its tool, whose message is the effect."""
    if question.form is not None:
        return ""
    return written_out(question.arguments)


def written_out(arguments: Mapping[str, Any]) -> str:
    """Return arguments, each as a line or a ruled block, so that no value can look like another argument."""
    rows = []
    for name, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
        name, text = visible(name).replace("\n", "␊"), in_sight(text)
        rows.append(f"{name}:\n  │ " + text.replace("\n", "\n  │ ") if "\n" in text else f"{name}: {text}")
    return "\n".join(rows)


def in_sight(text: str) -> str:
    """Return a text with its hidden characters made visible and its long runs of blanks counted."""
    return _BLANKS.sub(_counted_run, visible(text))


def _counted_run(run: re.Match[str]) -> str:
    return f" ␣×{len(run[0])} " if len(run[0].expandtabs()) >= MAX_BLANKS else run[0]


def folded(question: PermissionQuestion) -> str:
    """Return what stands for the arguments of a call that was tried, where they have many lines; else nothing."""
    first, *more = in_sight(str(question.subject)).split("\n")
    if question.effect is None or len(more) < MAX_LINES:
        return ""
    return f"{cut(first, MAX_FIRST)} … {counted(len(more), 'more line')} of the whole call"


def code(question: PermissionQuestion) -> str:
    """Return the code that the call would run, as it may be shown; empty for a call of another kind."""
    planned, text = question.preview.structured_input, question.arguments.get("code")
    is_code = isinstance(planned, dict) and planned.get("kind") == "python" and isinstance(text, str)
    return in_sight(str(text)) if is_code else ""


def effect(question: PermissionQuestion, changed: Changes | None = None) -> str:
    """Return where the call would act, resolved, and what it would change: the folder of a command, or each file.

    Of a call that ran in the sandbox: each file that it changed there, and what it wanted and did not get.
    """
    if question.effect is not None:
        return "\n".join(in_sight(text).replace("\n", "␊") for text in _done(question, question.effect))
    if question.form is not None:
        return in_sight(question.form.message)
    planned = question.preview.structured_input
    if not isinstance(planned, dict):
        return ""
    lines = []
    for change in planned.get("changes") or ():
        lines.append(f"file {change['path']}: {change['kind']}{_sizes(change)}")
    for operation in () if lines else planned.get("operations") or ():
        lines.append(f"file {operation.get('resolved_path', '')}{_extent(question, operation, changed)}")
    if not lines and planned.get("working_directory"):
        lines.append(f"in {planned['working_directory']}")
    if planned.get("kind") == "python":
        lines += _python_effect(planned)
    if (count := str(planned.get("command", "")).count("\n") + 1) > 1:
        lines.append(f"the command has {count} lines")
    return "\n".join(in_sight(text).replace("\n", "␊") for text in lines)


def _python_effect(planned: Mapping[str, Any]) -> list[str]:
    """Return what allowing code means, and what of the variables undo could not restore."""
    lines = [str(planned.get("warning", "")), UNDO_OF_CODE]
    if beyond := planned.get("beyond_undo"):
        shown = ", ".join(map(str, beyond[:MAX_BEYOND]))
        more = f" and {len(beyond) - MAX_BEYOND} more" if len(beyond) > MAX_BEYOND else ""
        lines.append(f"Undo could not restore all of {shown}{more}")
    return lines


def _done(question: PermissionQuestion, done: CallEffect) -> Iterator[str]:
    """Yield a line for each file that was changed, protected ones first, and one for each thing not granted."""
    base = question.preview.working_directory
    files = sorted(done.files, key=lambda file: file.protected is None)
    for file in files[:MAX_FILES]:
        lines = f", +{file.added} −{file.removed}" if file.diff and file.kind == "changed" else ""
        warned = f" ⚠ {file.protected}" if file.protected else ""
        yield f"{_SIGNS[file.kind]} {_within(base, file.path)}: {file.kind}, {file.about}{lines}{warned}"
    if (left := len(files) - MAX_FILES) > 0:
        yield f"… and {counted(left, 'more file')}"
    for want in done.wanted if not done.outside else ():  # outside, it is why a person is asked
        yield f"it wanted, and did not get: {want}"


def _within(base: str, path: str) -> str:
    return os.path.relpath(path, base) if f"{path}{os.sep}".startswith(f"{base.rstrip(os.sep)}{os.sep}") else path


def effect_diff(question: PermissionQuestion) -> list[str]:
    """Return the diffs of the files that a call changed in the sandbox, each below the name of its file."""
    done, lines = question.effect, []
    for file in done.files if done is not None else ():
        if file.diff:
            name = visible(_within(question.preview.working_directory, file.path)).replace("\n", "␊")
            lines += [f"@@ {name} @@", *map(_diff_line, file.diff)]
    return lines


def _diff_line(text: str) -> str:
    return cut(text[:1] + in_sight(text[1:]).replace("\n", "␊"), MAX_DIFF_LINE)


def _extent(question: PermissionQuestion, operation: Mapping[str, Any], changed: Changes | None) -> str:
    """Return how much of a file a write would change: `: new, 6 lines`, `: replaces 120 lines, +6 −4`."""
    match operation:
        case {"op": "create"} if isinstance(content := question.arguments.get("content"), str):
            count = content.count("\n") + (not content.endswith("\n") and bool(content))
            return f": new, {_counted(count)}"
        case {"op": "set", "replaces": {"lines": int(count)}}:
            extent = f", +{changed.added} −{changed.removed}" if changed is not None else ""
            return f": replaces {_counted(count)}{extent}"
    return ""


def _sizes(change: Mapping[str, Any]) -> str:
    """Return the sizes of a file before and afterwards: `, 3 → 5 bytes`."""
    sizes = [str(each["bytes"]) for each in (change.get("before"), change.get("after")) if each is not None]
    return f", {' → '.join(sizes)} bytes"


def _counted(lines: int) -> str:
    return f"{lines} line{'' if lines == 1 else 's'}"


def diff(changed: Changes, limit: int) -> list[str]:
    """Return at most `limit` lines of a diff, and how many are left out."""
    shown = [_diff_line(text) for text in changed.lines[:limit]]
    if (left := len(changed.lines) - limit) > 0:
        shown.append(f"… {counted(left, 'more line')}: the whole new text is among the arguments")
    return shown


def shown_diff(question: PermissionQuestion, changed: Changes | None, limit: int) -> list[str]:
    """Return at most `limit` lines of what a call would change, or changed in the sandbox."""
    if question.effect is None:
        return diff(changed, limit) if changed is not None else []
    lines = effect_diff(question)
    left = len(lines) - limit
    return [*lines[:limit], f"… {counted(left, 'more line')}"] if left > 0 else lines


def choices(question: PermissionQuestion) -> str:
    """Return what can be typed for an answer."""
    if (form := question.form) is not None:
        values = f"{values_line(form)}, or [a]nswer one by one" if form.fields else f"[a] {form.yes}"
        return f"{values}, [d] {form.no}, [s]top"
    if question.effect is None:
        return CHOICES
    if question.effect.outside:
        return "[a]llow once, [d]eny, [s]top"
    return EFFECT_CHOICES if folders(question) else ONCE_CHOICES


def values_line(form: Form) -> str:
    """Return how the values of a form are typed in one line: `days=… sea=yes|no`."""
    return visible(" ".join(f"{typed_name(field.name)}={_like(field)}" for field in form.fields)).replace("\n", "␊")


def _like(field: FormField) -> str:
    match field.kind:
        case "boolean":
            return "yes|no"
        case "choice" | "choices":
            values = [f'"{value}"' if set(value) & set(" \t'") else value for value, _ in field.choices[:MAX_VALUES]]
            return "|".join(values) + ("|…" if len(field.choices) > MAX_VALUES else "")
    return "…"


def typed_name(name: str) -> str:
    """Return the name of a field as it is typed, in quotes if it would not be one word."""
    return f'"{name}"' if re.search(r"[\s='\"]", name) else name


def field_line(field: FormField) -> str:
    """Return what is asked for in one field, on one line: `Days (days): a whole number, needed`."""
    kind = {
        "text": "a text",
        "number": "a number",
        "integer": "a whole number",
        "boolean": "yes or no",
        "choice": f"one of {', '.join(value for value, _ in field.choices)}",
        "choices": f"some of {', '.join(value for value, _ in field.choices)}, with commas",
    }[field.kind]
    more = ["needed"] if field.required else []
    default = {True: "yes", False: "no"}.get(field.default) if field.kind == "boolean" else field.default
    more += [f"else {default}"] if default is not None else []
    named = f" ({field.name})" if field.title != field.name else ""
    return visible(f"{field.title}{named}: {', '.join([kind, *more])}").replace("\n", "␊")


def outcome(question: PermissionQuestion, decision: PermissionDecision) -> str:
    """Return how a question was answered, in one line."""
    if question.form is not None:
        word = "Sent" if decision.allow else "Declined"
    else:
        word = "Allowed" if decision.allow else "Denied"
    return f"{word}: {cut(subject(question), MAX_OUTCOME) if question.form is not None else subject(question)}"


def folders(question: PermissionQuestion) -> list[str]:
    """Return the folders in which what a command changed can be kept from now on; none where it is always asked."""
    done = question.effect
    if done is None or done.outside or any(file.protected for file in done.files):
        return []
    return [_within(question.preview.working_directory, path) for path in folders_of(done)]


def subject(question: PermissionQuestion) -> str:
    """Return the tool and its subject on one line."""
    return in_sight(f"{question.tool_name}: {question.subject}").replace("\n", "␊")


def _field_lines(question: PermissionQuestion) -> list[str]:
    return [f"  {field_line(field)}" for field in question.form.fields] if question.form is not None else []


def short_text(question: PermissionQuestion) -> str:
    """Return the question for an input box: what it would do, and where a command was tried, what it changed."""
    changed = effect(question) if question.effect is not None else ""
    return "\n".join(filter(None, (f"{headline(question)} — {subject(question)}", changed, *_field_lines(question))))


def question_text(question: PermissionQuestion) -> str:
    """Return the whole question for a screen without widgets."""
    who = visible(question.agent_name)
    why = visible(question.description).replace("\n", "␊")
    changed = planned_changes(question)
    rows = (
        f"{who} asks: {headline(question)} ({visible(question.tool_name)})",
        arguments(question),
        effect(question, changed),
        *shown_diff(question, changed, MAX_DIFF_TEXT),
        *_field_lines(question),
        why,
    )
    return "\n".join(filter(None, rows))
