"""A permission question as plain text, and its answer as typed: for terminals, input boxes and `%mentra allow`.

What a question says is decided here for the card as well, so that every way of asking says the same.
"""

from __future__ import annotations

import json
import re
from typing import Literal

from mentra_nb.authorization import PermissionDecision, PermissionQuestion, ToolCapability
from mentra_nb.notebook.render import visible

Answer = PermissionDecision | Literal["stop"]

_COMMAND = re.compile(
    r"\s*%mentra[ \t]+(?:(?P<allow>allow)(?:[ \t]+(?:once|(?P<always>always)))?"
    r"|(?P<deny>deny)(?:[ \t]+because[ \t]+(?P<reason>\S[^\n]*?))?"
    r"|stop)[ \t]*(?:[ \t]#[^\n]*)?\s*"
)
_SHORT = {"a": "allow", "y": "allow", "yes": "allow", "w": "allow always", "always": "allow always"} | {
    "d": "deny",
    "n": "deny",
    "no": "deny",
    "s": "stop",
}
CHOICES = "[a]llow once, al[w]ays, [d]eny, [s]top"


def parse_answer(code: str) -> Answer | None:
    """A cell that is nothing but `%mentra allow [once|always]`, `deny [because …]` or `stop`; else `None`."""
    found = _COMMAND.fullmatch(code)
    if found is None:
        return None
    if found["allow"]:
        return PermissionDecision(allow=True, remember="session" if found["always"] else None)
    if found["deny"]:
        return PermissionDecision(allow=False, reason=found["reason"])
    return "stop"


def parse_reply(text: str) -> Answer | None:
    """The same, as typed at a prompt: without `%mentra`, or one letter of `CHOICES`."""
    text = text.strip()
    return parse_answer("%mentra " + _SHORT.get(text.lower(), text))


def headline(question: PermissionQuestion) -> str:
    """What the call would do, in words no model or tool has written, save the tool's name."""
    match set(question.preview.capabilities):
        case kinds if ToolCapability.PROCESS_EXEC in kinds:
            return "Run a command"
        case kinds if ToolCapability.BACKGROUND_EXEC in kinds:
            return "Run a command in the background"
        case kinds if ToolCapability.FILESYSTEM_WRITE in kinds:
            return "Write a file"
        case kinds if ToolCapability.FILESYSTEM_READ in kinds:
            return "Read a file"
    return f"Call {visible(question.tool_name)}"


def arguments(question: PermissionQuestion) -> str:
    """The effective arguments in full, each a line or a ruled block: no value can look like another argument."""
    rows = []
    for name, value in question.arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
        name, text = visible(name).replace("\n", "␊"), visible(text)
        rows.append(f"{name}:\n  │ " + text.replace("\n", "\n  │ ") if "\n" in text else f"{name}: {text}")
    return "\n".join(rows)


def subject(question: PermissionQuestion) -> str:
    """Tool and what it acts on, on one line."""
    return visible(f"{question.tool_name}: {question.subject}").replace("\n", "␊")


def question_text(question: PermissionQuestion) -> str:
    """The whole question for a screen without widgets."""
    who = visible(question.agent_name)
    why = visible(question.description).replace("\n", "␊")
    return f"{who} asks: {headline(question)} ({visible(question.tool_name)})\n{arguments(question)}\n{why}"


def ask(question: PermissionQuestion) -> Answer:
    """Ask at a terminal, and again until the answer is one. End of input is a denial; Ctrl-C raises."""
    print(question_text(question), flush=True)  # noqa: T201  # a terminal is what this is for
    while True:
        try:
            answer = parse_reply(input(f"{CHOICES}: "))
        except EOFError:
            return PermissionDecision(allow=False, by="headless", reason="nobody could be asked")
        if answer is not None:
            return answer
