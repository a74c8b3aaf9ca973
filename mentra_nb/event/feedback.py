"""The event of what a person thought of an answer."""

from __future__ import annotations

from typing import Literal

from mentra_nb.event.facts import InTurn


class FeedbackGiven(InTurn):
    """A person said what they thought of the answer of a turn. `note` is in their own words."""

    kind: Literal["feedback_given"] = "feedback_given"
    verdict: Literal["good", "bad"]
    note: str | None = None
    session_id: str | None = None
