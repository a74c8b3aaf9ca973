"""The doctor: what it finds, and that it never shows a key."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mentra_nb.chat import catalog
from mentra_nb.chat.doctor import Finding, findings
from mentra_nb.chat.engine import Engine
from mentra_nb.chat.models import custom
from mentra_nb.event.bus import NullAudit
from mentra_nb.record.write.journal import Journal
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Endpoint, Settings
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
    assert found(engine, "record's chain").detail == "0 sealed segments"
    assert "0 conversations" in found(engine, "state store").detail


def test_keys_are_present_or_absent_and_never_shown(engine: Engine) -> None:
    said = findings(engine, {"OPENAI_API_KEY": "sk-secret"})
    assert "sk-secret" not in str(said)
    assert found(engine, "keys", OPENAI_API_KEY="sk-secret").detail == "present: OPENAI_API_KEY"
    assert (found(engine, "keys").ok, "OPENAI_API_KEY" in found(engine, "keys").fix) == (None, True)


def test_the_model_that_would_be_asked(engine: Engine) -> None:
    assert found(engine, "model").ok is None
    assert found(engine, "model", OPENAI_API_KEY="sk").detail == "openai/its newest: not asked"
    two = found(engine, "model", OPENAI_API_KEY="sk", ANTHROPIC_API_KEY="sk")
    assert (two.ok, "say which" in two.detail) == (False, True)


def test_a_model_on_this_machine_is_asked_and_one_elsewhere_is_not(engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        engine.use(custom("mine", Endpoint(base_url=f"http://127.0.0.1:{port}/v1")), "m")
        began = time.monotonic()
        hanging = found(engine, "model")
        assert time.monotonic() - began < 5
    closed = found(engine, "model")
    engine.use(custom("theirs", Endpoint(base_url="http://192.0.2.1/v1")), "m")
    elsewhere = found(engine, "model")
    for down in (hanging, closed):
        assert (down.ok, down.detail) == (False, "mine/m: its server does not answer")
        assert down.fix == "start the server, or take another model: %mentra models"
    assert (elsewhere.ok, elsewhere.detail) == (True, "theirs/m: not asked")


@pytest.mark.parametrize("status", [200, 404])
def test_a_server_that_answers_in_any_way_runs(engine: Engine, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "PROBE_SECONDS", 30.0)  # this machine may be busy

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"data": []}'
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        engine.use(custom("mine", Endpoint(base_url=f"http://127.0.0.1:{server.server_port}/v1")), "m")
        model = found(engine, "model")
        server.shutdown()
        serving.join()
    assert (model.ok, model.detail) == (True, "mine/m: its server answers")


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


def test_that_no_wildcard_covers_a_line_of_cmd_is_said(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "rules for shell" not in {each.check for each in findings(engine)}
    monkeypatch.setattr("mentra_nb.permission.rules.IN_CMD", True)
    assert "no wildcard covers a line of cmd" in found(engine, "rules for shell").detail
