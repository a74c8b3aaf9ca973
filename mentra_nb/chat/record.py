"""Questions of the record that need more than the record: the stored conversation, or the matcher of rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import TypeAdapter

from mentra_nb.audit.columns import described
from mentra_nb.audit.query import One, When
from mentra_nb.audit.questions import decided_calls
from mentra_nb.authorization import PermissionRule
from mentra_nb.chat.api import conversation
from mentra_nb.chat.engine import engine
from mentra_nb.content import ContentBlock
from mentra_nb.control.rules import find_rule
from mentra_nb.errors import ConfigurationError
from mentra_nb.session.permissions import AskMode
from mentra_nb.store.base import Entry, SessionRecord
from mentra_nb.tools.shell import ShellTool

Verdict = Literal["allow", "ask", "deny", "unknown"]
Rules = Iterable[PermissionRule | str] | pd.DataFrame

_PARTS = TypeAdapter(tuple[ContentBlock, ...])

# ---- what was said -----------------------------------------------------------------------------------------------


@described
def messages(session: str | None = None) -> pd.DataFrame:
    """The messages of a session, by id or name, as its next turn would see them; without one, of this notebook's own.

    They come from the state store, where conversations are kept whole, and not from the record.

    Raises:
        ConfigurationError: there is no such session.
    """
    last = conversation().last
    wanted = session or (last.session if last is not None else None)
    if wanted is None:
        raise ConfigurationError("this notebook has asked nothing yet: name a session, mn.sessions() lists them")
    store = engine().runtime.store

    async def read() -> tuple[SessionRecord, list[Entry]]:
        found = await store.load_session(wanted)
        agent = await store.load_agent(found.agent_id) if found is not None else None
        if found is None or agent is None:
            raise ConfigurationError(f"there is no session {wanted!r}: mn.sessions() lists them")
        return found, await store.load_path(agent.id, agent.leaf)

    of, entries = engine().call(read)
    rows = [
        {
            "ts": entry.created_at,
            "session_id": of.id,
            "run_id": entry.run_id,
            "entry_id": entry.id,
            "role": str(entry.message.role),
            "kind": entry.kind,
            "text": entry.message.text(),
            "parts": _PARTS.dump_json(entry.message.content).decode(),
        }
        for entry in entries
    ]
    names = ["ts", "session_id", "run_id", "entry_id", "role", "kind", "text", "parts"]
    texts = dict.fromkeys(names[1:], "string") | {"role": "category", "kind": "category"}
    frame = pd.DataFrame(rows, columns=names).astype(texts)
    return frame.assign(ts=pd.to_datetime(frame.ts.astype("float64"), unit="s", utc=True).dt.as_unit("us"))


# ---- what rules would have decided --------------------------------------------------------------------------------


@described
def backtest(
    rules: Rules,
    *,
    ask: AskMode = "changes",
    session: One = None,
    tool: One = None,
    since: When = None,
    until: When = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """What these rules would have decided about the calls on record: a row per call, then and now side by side.

    `rules` are texts such as `"allow shell git status*"` and `"deny write /etc/*"`, rules, or a frame like that of
    `mn.rules()`, whatever their scope; they are matched as live ones are, shell lines command by command. `ask` is the
    setting for what no rule covers. What the runtime, the policy or the application refused stays refused. The
    verdict is `unknown` where it depends on a text that the record did not keep, cut, or holds without its secrets.

        mn.backtest(["allow shell git *"]).value_counts(["decision", "verdict"])

    Raises:
        ConfigurationError: a text that is no rule.
    """
    known = _rules(rules)
    calls = decided_calls(session=session, tool=tool, since=since, until=until, folder=folder)
    unasked = set(calls.tool[(calls.decision == "allow") & (calls.decided_by == "setting")])
    find = cache(lambda *call: _find(known, *call))

    def judge(call: Any) -> tuple[Verdict, str | None, str]:
        refused = call.decided_by if call.decision == "deny" else None
        if refused in ("runtime", "policy"):
            return "deny", None, f"refused by the {refused}"
        shell = call.shell or call.tool == ShellTool.spec.provider.name
        rule, certain = find(call.tool, call.subject if call.whole else None, shell)
        if refused == "authorizer" and not (rule is not None and certain and not rule.allow):
            return "deny", None, "refused by the application"
        if rule is not None and certain:
            return ("allow" if rule.allow else "deny"), _text(rule), "rule"
        if not certain:
            return "unknown", None, "its text was not kept whole"
        if call.decided_by == "authorizer":
            return ("allow" if call.decision == "allow" else "ask"), None, "decided by the application"
        if ask == "changes" and (call.reads_only or call.tool in unasked):
            return "allow", None, "no rule, and the tool runs unasked"
        return ("deny" if ask == "rules" else "ask"), None, "no rule"

    judged = pd.DataFrame([judge(call) for call in calls.itertuples()], columns=["verdict", "rule", "why"])
    judged = judged.astype({"verdict": "category", "rule": "string", "why": "string"})
    return pd.concat([calls.drop(columns=["whole", "reads_only", "shell"]), judged], axis=1)


def _find(rules: Sequence[PermissionRule], tool: str, subject: str | None, shell: bool) -> tuple[Any, bool]:
    """The rule that decides a call, if any, and whether that is certain without its subject."""
    if subject is not None:
        return find_rule(rules, tool, subject, shell=shell), True
    own = [rule for rule in rules if rule.tool == tool]
    denying = [rule for rule in own if not rule.allow]
    always = next((rule for rule in denying or own if set(rule.pattern) == {"*"}), None)
    return always, not own or (always is not None and not (always.allow and shell))


def _rules(given: Rules) -> list[PermissionRule]:
    if isinstance(given, pd.DataFrame):
        rows = zip(given["tool"], given["pattern"], given["allow"], strict=True)
        given = [_rule(str(tool), str(pattern), bool(allow)) for tool, pattern, allow in rows]
    return [_parsed(each) if isinstance(each, str) else each for each in given]


def _parsed(line: str) -> PermissionRule:
    match line.split(None, 2):
        case ["allow" | "deny" as verb, tool, *rest]:
            return _rule(tool, rest[0] if rest else "*", verb == "allow")
    raise ConfigurationError(f"{line!r} is no rule: write it as 'allow shell git status*' or 'deny write *'")


def _rule(tool: str, pattern: str, allow: bool) -> PermissionRule:
    return PermissionRule(id="", tool=tool, pattern=pattern, allow=allow)


def _text(rule: PermissionRule) -> str:
    return f"{'allow' if rule.allow else 'deny'} {rule.tool} {rule.pattern}"
