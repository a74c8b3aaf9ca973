"""`tools`, `skills` and `rules`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.notebook.commands import suggested
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
        return suggested.suggestions()
    if words["accept"] is not None:
        suggested.accept_number(words["accept"])
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
