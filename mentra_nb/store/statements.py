"""Every statement of the store, for any engine. What each says is in the file of its subject."""

from __future__ import annotations

from mentra_nb.store.agents import Agents
from mentra_nb.store.jobs import Jobs
from mentra_nb.store.leases import Leases
from mentra_nb.store.memory import Memories
from mentra_nb.store.questions import Questions
from mentra_nb.store.rules import Rules
from mentra_nb.store.runs import Runs
from mentra_nb.store.tasks import Tasks
from mentra_nb.store.teams import Teams
from mentra_nb.store.transcripts import Transcripts


class Statements(Agents, Transcripts, Runs, Leases, Rules, Questions, Tasks, Teams, Jobs, Memories):
    """A `RuntimeStore` but for how it is connected."""
