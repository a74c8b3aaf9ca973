"""Backtests of rules: how they would have decided the calls on record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Literal, Unpack

import pandas as pd

from mentra_nb.authorization import PermissionRule, Subject
from mentra_nb.errors import ConfigurationError
from mentra_nb.permission.asking import AskMode
from mentra_nb.permission.rules import find_rule
from mentra_nb.record.empty import or_why
from mentra_nb.record.read.columns import described, documented
from mentra_nb.record.read.filters import ToolFilters, filtered
from mentra_nb.record.read.reports import decided_calls
from mentra_nb.tools.builtin.shell import ShellTool

Verdict = Literal["allow", "ask", "deny", "unknown", "invalid"]
_INVALID: tuple[Verdict, str | None, str] = ("invalid", None, "its arguments do not fit")
_COLUMNS = [name for name, *_ in documented()["backtest"]]


Rules = Iterable[PermissionRule | str] | pd.DataFrame


@described
@filtered
def backtest(rules: Rules, *, ask: AskMode = "changes", **filters: Unpack[ToolFilters]) -> pd.DataFrame:
    """Return what these rules would have decided about the calls on record, beside what was decided: a row per call.

    `rules` are texts such as `"allow shell git status*"` and `"deny write /etc/*"`, rules, or a frame like that of
    `mn.rules()`, whatever their scope; they are matched as live ones are, shell lines command by command. `ask` is the
    setting for calls that no rule covers. Calls refused by the runtime, the policy or the application stay refused;
    what a command changed in the sandbox is not judged again. The verdict is `unknown` where it depends on a text that
    the record cut, redacted or did not keep.

        mn.backtest(["allow shell git *"]).value_counts(["decision", "verdict"])

    Raises:
        ConfigurationError: a text is not a rule.

    Example:
        >>> mn.backtest(["deny shell echo *"], session="sales")[["subject", "decision", "verdict"]]
              subject decision verdict
        0  echo clean    allow    deny
        1    git push     deny     ask
    """
    known = _rules(rules)
    calls = decided_calls(**filters)
    unasked = set(calls.tool[(calls.decision == "allow") & (calls.decided_by == "setting")])
    find = cache(lambda *call: _find(known, *call))

    def judge(call: Any) -> tuple[Verdict, str | None, str]:
        refused = call.decided_by if call.decision == "deny" else None
        if call.decision == "invalid" or refused in ("runtime", "policy"):
            return ("deny", None, f"refused by the {refused}") if refused else _INVALID
        shell = call.shell or call.tool == ShellTool.spec.name
        rule, certain = find(call.tool, call.subject if call.whole else None, shell)
        if refused == "authorizer" and not (rule is not None and certain and not rule.allow):
            return "deny", None, "refused by the application"
        if rule is not None and certain:
            return ("allow" if rule.allow else "deny"), _text(rule), "rule"
        if not certain:
            return "unknown", None, "its text was not kept whole"
        if call.decided_by == "authorizer":
            return ("allow" if call.decision == "allow" else "ask"), None, "decided by the application"
        if ask == "changes" and (why := _unasked(call, unasked)):
            return "allow", None, f"no rule, and {why}"
        return ("deny" if ask == "rules" else "ask"), None, "no rule"

    judged = pd.DataFrame([judge(call) for call in calls.itertuples()], columns=["verdict", "rule", "why"])
    judged = judged.astype({"verdict": "category", "rule": "string", "why": "string"})
    return or_why(pd.concat([calls, judged], axis=1)[_COLUMNS], "No call was recorded that these rules could judge.")


def _unasked(call: Any, tools: set[str]) -> str:
    """Return why a call that no rule covers runs unasked; empty if it is asked about."""
    if call.decided_by == "sandbox" and call.decision == "allow":
        return "it changed nothing in the sandbox"
    return "the tool runs unasked" if call.reads_only or call.tool in tools else ""


def _find(rules: Sequence[PermissionRule], tool: str, subject: str | None, shell: bool) -> tuple[Any, bool]:
    """Return the rule that decides a call, if any, and whether that is certain without its subject."""
    if subject is not None:
        return find_rule(rules, tool, Subject.shell(subject) if shell else Subject.text(subject)), True
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
    raise ConfigurationError(f"{line!r} is not a rule: write it as 'allow shell git status*' or 'deny write *'")


def _rule(tool: str, pattern: str, allow: bool) -> PermissionRule:
    return PermissionRule(id="", tool=tool, pattern=pattern, allow=allow)


def _text(rule: PermissionRule) -> str:
    return f"{'allow' if rule.allow else 'deny'} {rule.tool} {rule.pattern}"
