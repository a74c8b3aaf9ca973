"""The tables of the store in one class, for any SQL engine."""

from __future__ import annotations

from mentra_nb.store.tables.agents import AgentTable
from mentra_nb.store.tables.budgets import BudgetTable
from mentra_nb.store.tables.jobs import JobTable
from mentra_nb.store.tables.leases import LeaseTable
from mentra_nb.store.tables.memories import MemoryTable
from mentra_nb.store.tables.questions import QuestionTable
from mentra_nb.store.tables.row_answers import RowAnswerTable
from mentra_nb.store.tables.rules import RuleTable
from mentra_nb.store.tables.runs import RunTable
from mentra_nb.store.tables.sessions import SessionTable
from mentra_nb.store.tables.tasks import TaskTable
from mentra_nb.store.tables.teams import TeamTable
from mentra_nb.store.tables.transcripts import TranscriptTable


class SqlStore(
    AgentTable,
    SessionTable,
    TranscriptTable,
    RunTable,
    LeaseTable,
    RuleTable,
    QuestionTable,
    TaskTable,
    TeamTable,
    JobTable,
    MemoryTable,
    BudgetTable,
    RowAnswerTable,
):
    """Every operation of `RuntimeStore`. A subclass adds the connection to its engine."""

    @property
    def whose(self) -> str:
        """Nobody in particular: it is the store of one person."""
        return ""
