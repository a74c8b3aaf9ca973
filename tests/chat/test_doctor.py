"""The doctor: what it finds, and that it never shows a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mentra_nb.chat.doctor import Finding, findings
from mentra_nb.chat.engine import Engine
from mentra_nb.event.bus import NullAudit
from mentra_nb.record.write.journal import Journal
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Settings
from mentra_nb.store.sqlite import SqliteStore


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    runtime = Runtime(store=SqliteStore(tmp_path / "s.sqlite"), audit=Journal(tmp_path / "record"))
    made = Engine(Settings(), runtime)
    yield made
    made.close()


def found(engine: Engine, check: str, **environ: str) -> Finding:
    [one] = [finding for finding in findings(engine, environ) if finding.check == check]
    return one


def test_the_checks_of_a_working_setup(engine: Engine) -> None:
    engine.runtime.audit.record_audit_event("agent-1", "run_aborted", {"kind": "run_aborted", "agent_id": "agent-1"})
    bad = [finding for finding in findings(engine, {"OPENAI_API_KEY": "sk-1"}) if finding.ok is False]
    assert bad == []
    assert found(engine, "record").detail.endswith(": 0 Parquet files, 1 journal, 0.0 MB")
    assert "0 conversations" in found(engine, "state store").detail


def test_keys_are_present_or_absent_and_never_shown(engine: Engine) -> None:
    said = findings(engine, {"OPENAI_API_KEY": "sk-secret"})
    assert "sk-secret" not in str(said)
    assert found(engine, "keys", OPENAI_API_KEY="sk-secret").detail == "present: OPENAI_API_KEY"
    assert (found(engine, "keys").ok, "OPENAI_API_KEY" in found(engine, "keys").fix) == (None, True)


def test_the_model_that_would_be_asked(engine: Engine) -> None:
    assert found(engine, "model").ok is None
    assert found(engine, "model", OPENAI_API_KEY="sk").detail == "openai/its newest"
    two = found(engine, "model", OPENAI_API_KEY="sk", ANTHROPIC_API_KEY="sk")
    assert (two.ok, "say which" in two.detail) == (False, True)


def test_an_unusable_store_is_reported_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "s.sqlite").write_text("this is not a database, and it is long enough to be looked at" * 20)
    made = Engine(Settings(), Runtime(store=SqliteStore(tmp_path / "s.sqlite"), audit=NullAudit()))
    store = found(made, "state store")
    made.close()
    assert (store.ok, "MENTRA_HOME" in store.fix) == (False, True)
    assert found(made, "record").ok is None


def test_what_is_wrong_with_the_record(engine: Engine, tmp_path: Path) -> None:
    engine.runtime.audit.record_audit_event("agent-1", "run_aborted", {"kind": "run_aborted", "agent_id": "agent-1"})
    (tmp_path / "record" / "events" / "notes.txt").write_text("mine")
    foreign = found(engine, "foreign files")
    assert (foreign.ok, foreign.detail) == (False, "notes.txt")


def test_another_kernel_at_work_on_the_store_is_counted(engine: Engine, tmp_path: Path) -> None:
    from mentra_nb.store.records import LeaseHolder

    engine.call(engine.runtime.store.acquire_lease, "agent:1", LeaseHolder.here("runtime-other"), 60)
    assert "1 other kernel at work" in found(engine, "state store").detail
