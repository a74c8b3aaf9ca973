"""The approval card: one permission question as a widget.

Its texts come from `asking.py`. An answer goes to a callback, which acts on it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from mentra_nb.authorization import PermissionDecision, PermissionQuestion, PermissionScope
from mentra_nb.errors import MentraError
from mentra_nb.forms import Form
from mentra_nb.notebook import asking, editing
from mentra_nb.notebook.changes import planned_changes
from mentra_nb.notebook.commands.command import Answer
from mentra_nb.notebook.wide import told
from mentra_nb.page.code_blocks import MAX_COLOURED, coloured_runs
from mentra_nb.page.escaping import cut, visible
from mentra_nb.page.render import Bundle
from mentra_nb.permission.alike import alike

MOST = 9
"""Questions that a card lists, since a key has one digit."""
MAX_ADVICE = 400
"""Characters of a reviewer's reason on a card."""
MAX_DIFF = 1_000
"""Lines of a diff on a card."""

_SCOPES = {"session": "this session", "project": "this project{}", "global": "every project"}

_WORDS = {"allow": "Allow once", "deny": "Deny", "reason": "Say to the model", "diff": "What would change"}
"""What is written on a card, by what it is for."""
_WORDS_OF_EFFECT = {"allow": "Keep", "deny": "Discard", "reason": "Say to the model", "diff": "What it changed"}

_HERE = Path(__file__).parent
_WIDGET = "application/vnd.jupyter.widget-view+json"


def _words(question: PermissionQuestion) -> dict[str, str | bool]:
    """Return what is written on a card, and whether it may say *Always…*."""
    if question.form is not None:
        form = question.form
        return {"allow": form.yes, "deny": form.no, "reason": form.say, "diff": "", "always": False}
    done = question.effect
    words = _WORDS if done is None or done.outside else _WORDS_OF_EFFECT
    return {**words, "tried": done is not None, "always": done is None or bool(asking.folders(question))}


class _Closed(logging.Filter):
    """Drops the warning that a message is for a closed card, which would be printed in the cell.

    A page asks an open card for signs of life, and hears a moment later that it is closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.comms: deque[str | None] = deque(maxlen=100)

    def filter(self, record: logging.LogRecord) -> bool:
        return not (isinstance(record.args, tuple) and record.args and record.args[0] in self.comms)


_closed = _Closed()
logging.getLogger("Comm").addFilter(_closed)


@dataclass
class Others:
    """The open questions among which a card shows one, and what is done when another is chosen, or all are allowed."""

    questions: Sequence[PermissionQuestion]
    pick: Callable[[str], None]
    """Takes the `request_id` of the question to show instead."""
    allow_all: Callable[[Sequence[str], str | None], None]
    """Takes the `request_id`s of questions that are alike, all of which the card lists in full, and a reason."""
    focus: bool = False
    """Whether the card was chosen by a person, who goes on from its list."""

    def listed(self, shown: PermissionQuestion) -> dict[str, Any]:
        """Return the list as the card draws it; empty for one question."""
        if len(self.questions) < 2:
            return {}
        whole = [each for each in self.questions[:MOST] if editing.is_short(each)]
        return {
            "rows": [
                {
                    "id": each.request_id,
                    "text": cut(asking.subject(each), editing.MAX_ROW),
                    "shown": each.request_id == shown.request_id,
                }
                for each in self.questions[:MOST]
            ],
            "more": max(0, len(self.questions) - MOST),
            "alike": [each.request_id for each in alike(shown, whole)] if shown in whole else [],
            "focus": self.focus,
        }


class ApprovalCard(anywidget.AnyWidget):
    """Shows a question and passes the first valid answer to `on_decision`, on the thread the answer arrived on.

    `on_decision` may raise `MentraError` to refuse an answer: the card shows its message and asks again. `ready` is
    set once a page has drawn the card.
    """

    _esm = _HERE / "approval.js"
    _css = _HERE / "approval.css"
    question = traitlets.Dict().tag(sync=True)
    listed = traitlets.Dict().tag(sync=True)
    """The open questions, if there are several."""
    advice = traitlets.Unicode().tag(sync=True)
    """What a reviewer says, once it has; empty until then."""

    def __init__(
        self,
        question: PermissionQuestion,
        on_decision: Callable[[Answer], None],
        *,
        scopes: Sequence[PermissionScope] = ("session",),
        project: str | None = None,
        resume: str = "%mentra resume",
        others: Others | None = None,
        on_ready: Callable[[], None] = lambda: None,
        can_stop: bool = True,
    ) -> None:
        self._asked = question
        self._others, self._project = others, project
        self._on_ready = on_ready
        self._on_decision = on_decision
        self._scopes = tuple(scopes)
        self._lock = threading.Lock()
        self._taken = False
        self.ready: threading.Event = threading.Event()
        changed = planned_changes(question)
        where = f" ({visible(project)})" if project else ""
        text = {
            "headline": asking.headline(question),
            "tool": visible(question.tool_name),
            "who": visible(question.agent_name),
            "why": visible(question.description),
            "arguments": asking.arguments(question),
            "effect": asking.effect(question, changed),
            "folded": asking.folded(question),
            "diff": asking.shown_diff(question, changed, MAX_DIFF),
            "words": _words(question),
            "folders": ", ".join(asking.folders(question)),
            "fields": _fields(question.form),
            "code": _coloured(asking.code(question)),
            "editable": [[name, text] for name, text, _ in editing.editable(question)],
            "can_stop": can_stop,
            "subject": str(question.subject),
            "resume": visible(resume),
            "scopes": [[scope, _SCOPES[scope].format(where)] for scope in self._scopes],
        }
        super().__init__(question=text, listed=others.listed(question) if others is not None else {})
        self.on_msg(self._on_message)

    def _proposals(self) -> list[dict[str, str]]:
        """Return the patterns that the card proposes to remember an allowance by; none where they cannot be told."""
        from mentra_nb.chat.engine import engine
        from mentra_nb.chat.proposals import proposals

        try:
            found = proposals(engine(), self._asked, self._project)
        except MentraError:
            return []
        told(self._asked, (each["pattern"] for each in found))
        return [{**each, "covered": visible(each["covered"])} for each in found]

    def advise(self, risk: str, reason: str) -> None:
        """Show what a reviewer says. It is text of a model."""
        self.advice = f"A reviewer says, risk {risk}: {cut(visible(reason), MAX_ADVICE)} (advice only)"

    def relist(self, questions: Sequence[PermissionQuestion]) -> None:
        """Draw the list of open questions anew."""
        if self._others is not None:
            self._others = replace(self._others, questions=questions)
            self.listed = self._others.listed(self._asked)

    def bundle(self) -> Bundle:
        """Return the card as a mimebundle, with the question as text for front ends without widgets."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {_WIDGET: view, "text/plain": asking.question_text(self._asked)}

    def close(self) -> None:
        """Remove the card from every page and close its comms."""
        layout: Any = self.layout
        _closed.comms.append(self.model_id)
        super().close()
        layout.close()

    def _on_message(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        if content.get("ready"):
            self.ready.set()
            # Seconds left, not the deadline: the page's clock may differ. A reloaded page asks again.
            self.send({"left": max(0.0, self._asked.deadline - time.time())})
            self._on_ready()
            return
        if content.get("proposals"):
            self.send({"proposals": self._proposals()})
            return
        if self._others is not None and self._chosen(self._others, content):
            return
        try:
            answer = self._answer(content)
        except MentraError as error:
            self.send({"refused": str(error)})
            return
        if answer is not None:
            self._take(lambda: self._on_decision(answer))

    def _take(self, act: Callable[[], None]) -> None:
        """Act on the first answer. If it is refused, the card asks again."""
        with self._lock:
            if self._taken:
                return
            self._taken = True
        try:
            act()
        except MentraError as error:
            self._taken = False
            self.send({"refused": str(error)})

    def _chosen(self, others: Others, content: dict[str, Any]) -> bool:
        """Act on a choice in the list of questions. Returns whether it was one."""
        match content:
            case {"pick": str(request_id)}:
                others.pick(request_id)
            case {"answer": "all", "ids": list(ids), "reason": str(reason)}:
                chosen = [each for each in self.listed.get("alike", ()) if each in ids]
                self._take(lambda: others.allow_all(chosen, reason.strip() or None))
            case _:
                return False
        return True

    def _answer(self, content: dict[str, Any]) -> Answer | None:
        """Return the answer the page sent, or `None` if it is not one in full. Raises `OperationDenied`."""
        reason = content.get("reason")
        said = reason.strip() or None if isinstance(reason, str) else None
        match content:
            case {"answer": "allow", "values": dict(values)} if self._asked.form is not None:
                return PermissionDecision(allow=True, values=values, reason=said)
            case {"answer": "allow", "arguments": dict(texts)}:
                return PermissionDecision(allow=True, arguments=editing.edited(self._asked, texts), reason=said)
            case {"answer": "allow"}:
                return PermissionDecision(allow=True, reason=said)
            case {"answer": "always", "pattern": pattern, "scope": scope} if scope in self._scopes and (
                pattern is None or (isinstance(pattern, str) and pattern.strip())
            ):
                made = PermissionDecision(allow=True, remember=scope, pattern=pattern, reason=said)
                if isinstance(named := content.get("folders"), str):
                    made = made.model_copy(update={"folders": tuple(filter(None, map(str.strip, named.split(","))))})
                return made
            case {"answer": "deny", "reason": str(reason)}:
                return PermissionDecision(allow=False, reason=said)
            case {"answer": "stop"}:
                return "stop"
        return None


def _fields(form: Form | None) -> list[dict[str, Any]]:
    """Return the fields of a form as the card draws them."""
    return [
        {
            "name": field.name,
            "title": visible(field.title) + (" (needed)" if field.required else ""),
            "about": visible(field.description),
            "kind": field.kind,
            "choices": [[value, visible(title)] for value, title in field.choices],
            "default": field.default,
        }
        for field in (form.fields if form is not None else ())
    ]


def _coloured(code: str) -> list[tuple[str, str]]:
    """Return code as pieces with a CSS colour each, in full; empty for none."""
    if not code:
        return []
    runs = coloured_runs(code, "python") if len(code) <= MAX_COLOURED else []
    if "".join(text for _, text in runs).rstrip("\n") != code.rstrip("\n"):
        runs = [("", code)]
    return [(style.removeprefix("color:"), text) for style, text in runs if text]
