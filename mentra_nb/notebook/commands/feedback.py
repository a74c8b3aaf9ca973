"""`good` and `bad`: what a person thought of the last answer."""

from __future__ import annotations

from mentra_nb.notebook.commands.cells import last_answer
from mentra_nb.notebook.commands.command import Context, Words, say

NOTE = r"""(?: (?:because (?P<reason>\S.*)|["'](?P<note>[^"']+)["']))?"""
"""A note about an answer: only after `because` or in quotes, so that `bad gateway, why?` is a question."""


def good(context: Context, words: Words) -> None:
    """Record that the last answer was good."""
    _give(context, words, good=True)


def bad(context: Context, words: Words) -> None:
    """Record that the last answer was bad."""
    _give(context, words, good=False)


def _give(context: Context, words: Words, *, good: bool) -> None:
    from mentra_nb.chat.feedback import give
    from mentra_nb.ids import short_id

    reply = last_answer(context)
    give(reply, "good" if good else "bad", words["reason"] or words["note"])
    said = "good" if good else "bad"
    say(f"Kept in the record: the answer of turn {short_id(reply.turn_id)} was {said}. mn.feedback() lists all.")
