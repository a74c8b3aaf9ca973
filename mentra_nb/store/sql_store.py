"""Every statement of the store, for any engine. What each says is in the file of its subject."""

from __future__ import annotations

from mentra_nb.store.tables.agents import Agents
from mentra_nb.store.tables.jobs import Jobs
from mentra_nb.store.tables.leases import Leases
from mentra_nb.store.tables.memories import Memories
from mentra_nb.store.tables.questions import Questions
from mentra_nb.store.tables.rules import Rules
from mentra_nb.store.tables.runs import Runs
from mentra_nb.store.tables.tasks import Tasks
from mentra_nb.store.tables.teams import Teams
from mentra_nb.store.tables.transcripts import Transcripts


class Statements(Agents, Transcripts, Runs, Leases, Rules, Questions, Tasks, Teams, Jobs, Memories):
    """A `RuntimeStore` but for how it is connected."""
