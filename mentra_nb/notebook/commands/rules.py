"""`tools`, `skills` and `rules`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.notebook.commands.command import Context, Words, say

if TYPE_CHECKING:
    import pandas as pd


def tools(context: Context, _words: Words) -> pd.DataFrame:
    """Return the table of tools."""
    import pandas as pd

    from mentra_nb.chat.engine import engine
    from mentra_nb.notebook.commands.listing import listing
    from mentra_nb.tools.profile import allows

    profile, own = engine().settings.tool_profile, context.conversation().tools()
    rows = [
        {
            "tool": spec.name,
            "offered": spec in own or allows(profile, spec.name),
            "reads_only": spec.reads_only,
            "asks": spec.asks and not spec.reads_only,
            "description": spec.description,
        }
        for spec in (*engine().runtime.tools(), *own)
    ]
    frame = pd.DataFrame(rows, columns=["tool", "offered", "reads_only", "asks", "description"])
    shown = {"tool": "tool"} | ({"offered": "offered"} if profile else {})
    shown |= {"asks": "asks", "reads_only": "reads only", "description": "what it does"}
    return listing(frame, shown, "There are no tools: -t NAME offers a function of this notebook.")


def skills(_context: Context, _words: Words) -> pd.DataFrame:
    """Return the table of skills."""
    import pandas as pd

    from mentra_nb import paths
    from mentra_nb.chat.engine import engine
    from mentra_nb.notebook.commands.listing import listing

    columns = ["skill", "description", "allowed_tools", "path"]
    rows = [(s.name, s.description, s.allowed_tools, str(s.path)) for s in engine().runtime.skills()]
    shown = {"skill": "skill", "description": "what it is for", "allowed_tools": "asks for", "path": "file"}
    where = paths.config_file().parent / "skills"
    return listing(
        pd.DataFrame(rows, columns=columns),
        shown,
        f"There are no skills: put one, a folder with a SKILL.md, into {where}, or name folders in the setting skills.",
    )


def rules(_context: Context, words: Words) -> pd.DataFrame | None:
    """Return the table of rules, or revoke one, or suggest or accept rules."""
    from mentra_nb.chat import api

    if words["revoke"] is not None:
        gone = api.revoke(words["id"] or "")
        say(f"Revoked: {'allow' if gone.allow else 'deny'} {gone.tool} {gone.pattern}")
        return None
    if words["suggest"] is not None:
        return _suggestions()
    if words["accept"] is not None:
        _accept(words["accept"])
        return None
    from mentra_nb.notebook.commands.listing import listing

    found = api.rules()
    frame = found.assign(
        n=range(1, len(found) + 1),
        answer=["allow" if allow else "deny" for allow in found.allow],
        inside=["\n".join(folders or ()) for folders in found.folders],
    )
    shown = {"n": "", "answer": "answer", "tool": "tool", "pattern": "pattern", "scope": "scope"}
    shown |= {"inside": "keeps what it changes in"} if frame.inside.any() else {}
    shown |= {"breadth": "broad"} if frame.breadth.notna().any() else {}
    shown |= {"times_used": "used", "created_at": "made (UTC)", "reason": "reason", "id": "id"}
    return listing(frame, shown, getattr(found, "why", ""))


_MOST = 25
"""Suggestions that are shown."""
_suggested: list[pd.DataFrame] = []
"""The table of suggestions that was shown last, to which numbers refer."""


def _suggestions() -> pd.DataFrame:
    """Return the table of rules that the user's own answers suggest."""
    from mentra_nb.chat.suggest import suggest_rules
    from mentra_nb.notebook.commands.listing import listing

    found = suggest_rules()
    _suggested[:] = [found]
    frame = found.assign(n=range(1, len(found) + 1))
    shown = {"n": "", "tool": "tool", "pattern": "pattern", "scope": "scope"}
    shown |= {"inside": "keeps what it changes in", "saves_per_week": "saves a week", "also_covers": "also covers"}
    shown |= {"backtest": "on record"}
    if len(found):
        more = f" The first {_MOST} of {len(found)}; mn.suggest_rules() has all." if len(found) > _MOST else ""
        say(f"Accept one with %mentra rules accept N; nothing is remembered unasked.{more}")
    return listing(frame.head(_MOST), shown, getattr(found, "why", ""))


def _accept(number: str) -> None:
    from mentra_nb.chat.suggest import accept
    from mentra_nb.errors import OperationDenied

    rows = list(_suggested[0].itertuples()) if _suggested else []
    if not 0 < int(number) <= len(rows):
        raise OperationDenied(f"there is no suggestion {number}: %mentra rules suggest lists them")
    made = accept(rows[int(number) - 1])
    say(f"Allowed: {made.tool} {made.pattern} (for the {made.scope}; %mentra rules revoke takes it back)")
