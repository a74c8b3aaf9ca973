"""Fixtures of the record's tests: a folder for a record, and records with sessions in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kits.records import Record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a record that does not exist yet."""
    return tmp_path / "record"


@pytest.fixture
def record(folder: Path) -> Iterator[Record]:
    """An empty record, closed after the test."""
    found = Record(folder)
    yield found
    found.journal.close()


@pytest.fixture
def full(record: Record) -> Record:
    """A record of one session."""
    return record.one_session()


@pytest.fixture
def two(record: Record) -> Record:
    """A record of two sessions."""
    return record.two_sessions()
