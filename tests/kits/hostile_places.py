"""Every place of a page where text of others is shown, each with a hostile text in it. Used in kernels."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas as pd

import mentra_nb as mn
from kits.payloads import CORPUS
from kits.stores import question
from mentra_nb.authorization import CallEffect, FileEffect, PermissionQuestion, Subject, ToolCapability
from mentra_nb.content import TokenUsage
from mentra_nb.errors import MentraError
from mentra_nb.event import screen
from mentra_nb.forms import Form, FormField
from mentra_nb.notebook.approval import ApprovalCard, Others
from mentra_nb.notebook.commands.listing import listing
from mentra_nb.notebook.frames import frame_html
from mentra_nb.notebook.view import TurnView
from mentra_nb.page.render import growing, value_html
from mentra_nb.record.empty import or_why

CALL = {"tool_call_id": "c", "tool_name": "shell"}


class Page:
    """Collects what is shown, the last state of each output."""

    def __init__(self) -> None:
        self.outputs: dict[str, dict[str, Any]] = {}

    def show(self, data: dict[str, Any], display_id: str | None = None) -> None:
        self.outputs[display_id or str(len(self.outputs))] = data

    def update(self, data: dict[str, Any], display_id: str) -> None:
        self.outputs[display_id] = data


def drawn(*events: screen.SessionEvent, **end: Any) -> str:
    """Return the HTML that a turn of these events leaves, with its folds open."""
    page = Page()
    view = TurnView(page, live=True, hz=1e9, verbose=True)
    for event in events:
        view.handle(event)
        view.tick()
    view.finish(**end)
    return "".join(data["text/html"] for data in page.outputs.values())


def text(bad: str) -> str:
    return drawn(screen.AssistantTokenDelta(delta=bad)) + growing(bad)["text/html"] + mn_reply(bad)


def mn_reply(bad: str) -> str:
    reply = mn.Reply(bad, bad, "s", "t", "end", 0.0, TokenUsage())
    return str(reply._repr_mimebundle_()["text/html"])


def thinking(bad: str) -> str:
    return drawn(screen.AssistantReasoningDelta(delta=bad))


def call(bad: str) -> str:
    """Calls whose tool, arguments, code, output and error are hostile."""
    html = ""
    for name, is_error in ((bad, True), (bad, False), ("python", False), ("shell", True)):
        named = {"tool_call_id": "c", "tool_name": name}
        html += drawn(
            screen.ToolQueued(
                **named,
                summary=bad,
                mutability="unknown",
                input_json=json.dumps({"command": bad, "code": bad, bad: bad}),
            ),
            screen.ToolStarted(**named),
            screen.ToolDecided(**named, allowed=not is_error, decided_by=bad, pattern=bad, reason=bad),
            screen.ToolCompleted(**named, summary=bad, output=bad, is_error=is_error, duration_ms=200),
        )
    return html


def progress(bad: str) -> str:
    page = Page()
    view = TurnView(page, live=True, hz=1e9)
    view.handle(screen.ToolQueued(**CALL, summary="", mutability="unknown", input_json=json.dumps({bad: [bad]})))
    view.handle(screen.ToolStarted(**CALL))
    for _ in range(2):
        view.handle(screen.ToolProgress(**CALL, progress=bad))
    view.make_room()
    return "".join(data["text/html"] for data in page.outputs.values())


def lines(bad: str) -> str:
    """Notices, tasks, retries, the reason of an ending, and the footer."""
    task = {"id": bad, "status": "in_progress", "subject": bad, "owner": bad, "blockedBy": [bad]}
    return drawn(
        screen.UserMessage(text=bad, model=bad),
        screen.TasksUpdated(tasks=(task,)),
        screen.Notice(severity="warning", message=bad),
        screen.TaskUpdated(task_id="t", kind="background_task", title=bad, status="finished", detail=bad),
        screen.TaskUpdated(task_id="u", kind="subagent", title=bad, status="failed", detail=bad),
        screen.RetryNotice(agent_id="a", attempt=1, max_attempts=2, next_delay_ms=0, error_message=bad),
        screen.QuestionAnswered(
            **CALL, request_id="r", outcome="denied", decided_by="user", rule_scope="session", reason=bad, pattern=bad
        ),
        model=bad,
        why=(bad, bad),
        usage=TokenUsage(input_tokens=1, output_tokens=1),
    )


def tables(bad: str) -> str:
    """Frames of the record, tables of subcommands, and values: as cells, as names of columns, as a reason for none."""
    frame = pd.DataFrame({"prompt": [bad, None], bad: [bad, "x"], "session_id": [bad, "y"]}, index=[bad, "z"])
    wide = pd.DataFrame({f"{bad}{n}": ["a long text of a cell"] for n in range(9)})
    table = frame_html(or_why(frame, bad)) + frame_html(or_why(frame.head(0), bad)) + frame_html(or_why(wide, bad))
    listed = listing(frame, {"prompt": bad, bad: "x", "session_id": "id"}, bad)
    values = map(value_html, (bad, {bad: bad}, frame, [bad]))
    return "".join([table, listed._repr_html_(), listing(frame.head(0), {}, bad)._repr_html_(), *values])


PLACES: dict[str, Callable[[str], str]] = {
    each.__name__: each for each in (text, thinking, call, progress, lines, tables)
}


def show(place: str, *, apart: bool = False) -> None:
    """Show all texts of the corpus in a place: in one output, or each `apart` so that none is hidden by another."""
    from IPython.display import HTML, display

    html = [PLACES[place](bad) for bad in CORPUS.values()]
    for made in html if apart else ["\n".join(html)]:
        display(HTML(made))


def plots() -> None:
    """Show the charts of the record with the corpus in their names and tooltips, drawn without a network."""
    from IPython.display import HTML, display

    bad = list(CORPUS.values())
    rows = range(len(bad))
    timeline = pd.DataFrame(
        {
            "turn": [n // 20 for n in rows],
            "run_id": bad,
            "prompt": [bad[n // 20 * 20] for n in rows],
            "lane": [("model", "person", "tool")[n % 3] for n in rows],
            "what": bad,
            "detail": bad,
            "outcome": bad,
            "start_s": [n % 20 for n in rows],
            "end_s": [n % 20 + 0.9 for n in rows],
            "turn_s": 20.0,
        }
    )
    some = bad[::8]
    one = dict.fromkeys(["p5_s", "p25_s", "median_s", "p75_s", "p95_s", "max_s"], 1.0)
    days = pd.to_datetime(["2026-01-01"] * len(some))
    used = {"responses": 1, "total_tokens": 9, "cost_usd": 0.5, "priced": 1.0}
    charts = (
        mn.plot.timeline.draw(timeline),
        mn.plot.cost.draw(pd.DataFrame({"period": days, "model": some, **used})),
        mn.plot.approvals.draw(pd.DataFrame({"tool": some, "answer": "allowed by a person", "calls": 3})),
        mn.plot.tools.draw(pd.DataFrame({"tool": some, "calls": 3, "errors": 1, **one})),
    )
    for n, chart in enumerate(charts):
        html = chart.to_html(inline=True, output_div=f"chart{n}")
        if n:  # the library is there already, and the names of the first script are taken
            script = html.rpartition('<script type="text/javascript">')[2].partition("</script>")[0]
            html = f'<div id="chart{n}"></div><script>{{{script}}}</script>'
        display(HTML(html))


def asked(number: int, some: Iterable[str]) -> PermissionQuestion:
    """Return a question with hostile texts in all that a card shows."""
    bad, *more = some
    made = question(f"request-{number}", deadline=time.time() + 900).model_copy(
        update={
            "tool_name": bad,
            "agent_name": bad,
            "description": bad,
            "subject": Subject.text(bad),
            "arguments": {bad: bad, "code": bad, **{f"{n} {each}": each for n, each in enumerate(more)}},
        }
    )
    preview = made.preview.model_copy(update={"structured_input": {"kind": "python", "warning": bad}})
    if number % 3 == 1:
        files = tuple(
            FileEffect(path=f"/w/{each}", kind="changed", about=each, diff=(f"+{each}",), protected=each)
            for each in (bad, *more)
        )
        return made.model_copy(
            update={"effect": CallEffect(digest="d", files=files, wanted=(bad,)), "preview": preview}
        )
    if number % 3 == 2:
        field = FormField(name=bad, title=bad, kind="choice", description=bad, choices=((bad, bad),), default=bad)
        plain = FormField(name="b", title=bad, kind="text", description=bad, default=bad)
        form = Form(who=bad, message=bad, fields=(field, plain), yes=bad, no=bad)
        return made.model_copy(update={"form": form, "preview": preview})
    able = made.preview.model_copy(
        update={
            "working_directory": bad,
            "capabilities": (ToolCapability.PROCESS_EXEC,),
            "structured_input": {"working_directory": bad, "command": bad},
        }
    )
    return made.model_copy(update={"preview": able})


def _in_parts(each: int) -> Iterator[list[str]]:
    all_of_them = list(CORPUS.values())
    for n in range(0, len(all_of_them), each):
        yield all_of_them[n : n + each]


def cards(each: int) -> None:
    """Show cards with the whole corpus, `each` texts on one."""
    from IPython.display import display

    questions = [asked(n, part) for n, part in enumerate(_in_parts(each))]
    for n, one in enumerate(questions):
        others = Others([one, *questions[:8]] if n > 8 else questions[:9], lambda _: None, lambda *_: None)
        card = ApprovalCard(one, lambda _: None, project=one.tool_name, resume=one.tool_name, others=others)
        card.advise(one.tool_name, one.tool_name)
        display(card.bundle(), raw=True)


class Hostile(MentraError):
    """An error that says all of the corpus."""

    def __init__(self) -> None:
        super().__init__("\n".join(CORPUS.values()))
