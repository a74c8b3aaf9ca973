"""The journal: what is written for an event, and what never is."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

import mentra_nb.event.types as e
from mentra_nb.errors import ConfigurationError
from mentra_nb.event.types import runtime_event_from_json
from mentra_nb.record.keep.compact import compact
from mentra_nb.record.keep.verify import verify
from mentra_nb.record.read import views
from mentra_nb.record.write.files import sealed
from mentra_nb.record.write.journal import Journal

pytestmark = pytest.mark.slow

SECRETS = [
    "sk-proj-A1b2C3d4E5f6G7h8I9j0",
    "sk-ant-api03-AbCdEf123456789_-xyz",
    "rk_live_51AbCdEf1234567890",
    "pk_live_51AbCdEf1234567890",
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    *(f"gh{kind}_16C7e42F292c6912E7710c838347Ae178B4a" for kind in "pousr"),
    "github_pat_11ABCDEFG0123456789",
    "glpat-12345abcdeABCDE67890",
    "hf_AbCdEfGh12345678",
    *(f"xox{kind}-123456789012-abcdef" for kind in "abeoprs"),
    "npm_1a2B3c4D5e6F7g8H9i0J",
    "pypi-AgEIcHlwaS5vcmcCJDEyMzQ",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
]


def lines(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "events").glob("0*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


def text(folder: Path) -> str:
    return "".join(file.read_text("utf-8") for file in (folder / "events").glob("0*.jsonl"))


def record(journal: Journal, event: e.RuntimeEvent) -> None:
    journal.record_audit_event(event.scope(), event.kind, event.model_dump(mode="json"))


def tool_finished(**fields: Any) -> e.ToolExecutionFinished:
    given = {"tool_name": "shell", "tool_call_id": "call-1", "is_error": False, "output_preview": "ok"} | fields
    return e.ToolExecutionFinished(agent_id="agent-1", **given)


def test_a_journal_touches_no_file_until_its_first_event(folder: Path) -> None:
    journal = Journal(folder)
    journal.sync()
    journal.close()
    assert not folder.exists()


def test_the_default_folder_is_the_users_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENTRA_RECORD", str(tmp_path / "mine"))
    journal = Journal()
    journal.record_audit_event("agent-1", "run_aborted", {"reason": "x"})
    journal.close()
    assert len(lines(tmp_path / "mine")) == 1


def test_an_event_is_in_the_file_when_the_call_returns(folder: Path) -> None:
    journal = Journal(folder)
    event = tool_finished()
    record(journal, event)
    (line,) = lines(folder)
    journal.close()
    assert list(line) == ["id", "ts", "seq", "source", "v", "scope", "event_type", "payload"]
    assert (line["seq"], line["scope"], line["event_type"]) == (0, "agent-1", "tool_execution_finished")
    assert runtime_event_from_json(line["payload"]) == event


def test_every_kind_of_event_comes_back_as_it_was(folder: Path) -> None:
    journal = Journal(folder)
    event = e.TurnStarted(agent_id="a", run_id="r", model="m", prompt="déjà 🙂", session_id="s", execution_count=3)
    record(journal, event)
    journal.close()
    assert runtime_event_from_json(lines(folder)[0]["payload"]) == event


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_files_are_private(folder: Path) -> None:
    journal = Journal(folder)
    record(journal, tool_finished())
    journal.close()
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".schema"]
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE((folder / "events").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_seq_has_no_gap_and_ids_rise_whatever_thread_writes(folder: Path) -> None:
    journal = Journal(folder)

    def write() -> None:
        for _ in range(200):
            record(journal, tool_finished())

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    written = lines(folder)
    assert [line["seq"] for line in written] == list(range(800))
    assert [line["id"] for line in written] == sorted({line["id"] for line in written})
    assert journal.health().written == 800


def test_a_full_segment_is_sealed_and_the_next_event_begins_another(folder: Path) -> None:
    journal = Journal(folder, max_bytes=1000)
    for _ in range(10):
        record(journal, tool_finished())
    journal.close()
    files = sorted((folder / "events").glob("0*.jsonl"))
    assert len(files) > 2
    assert next(json.loads(line)["seq"] for line in files[1].read_text().splitlines()) == 0
    assert sum(len(file.read_text().splitlines()) for file in files) == 10


def test_a_segment_is_locked_while_its_writer_lives(folder: Path) -> None:
    journal = Journal(folder)
    record(journal, tool_finished())
    (segment,) = (folder / "events").glob("0*.jsonl")
    assert not sealed(segment)
    journal.close()
    assert sealed(segment)


def test_an_event_after_close_is_kept_in_a_new_segment(folder: Path) -> None:
    journal = Journal(folder)
    record(journal, tool_finished())
    journal.close()
    record(journal, tool_finished())
    journal.close()
    assert [line["seq"] for line in lines(folder)] == [0, 0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_its_own_segment(folder: Path) -> None:
    code = f"""
import os
from pathlib import Path
from mentra_nb.record.write.journal import Journal
j = Journal(Path({str(folder)!r}))
j.record_audit_event("parent", "run_aborted", {{"reason": "before"}})
pid = os.fork()
for n in range(50):
    j.record_audit_event("child" if pid == 0 else "parent", "run_aborted", {{"reason": str(n)}})
j.close()
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)
    by_source: dict[str, list[dict[str, Any]]] = {}
    for line in lines(folder):
        by_source.setdefault(line["source"], []).append(line)
    assert sorted(len(each) for each in by_source.values()) == [50, 51]
    for each in by_source.values():
        assert [line["seq"] for line in each] == list(range(len(each)))
        assert len({line["scope"] for line in each}) == 1


# ---- what goes wrong ---------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_created_loses_events_but_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "record").write_text("a file is in the way")
    journal = Journal(tmp_path / "record")
    with caplog.at_level(logging.WARNING):
        record(journal, tool_finished())
        record(journal, tool_finished())
    health = journal.health()
    assert (health.written, health.lost) == (0, 2)
    assert health.last_error
    assert len(caplog.records) == 1

    (tmp_path / "record").unlink()
    record(journal, tool_finished())
    journal.close()
    gap, event = lines(tmp_path / "record")
    assert (gap["event_type"], gap["payload"]["lost"]) == ("journal_gap", 2)
    assert (event["event_type"], event["seq"]) == ("tool_execution_finished", 1)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a file size limit")
def test_a_full_disk_gives_a_gap_and_no_exception(folder: Path) -> None:
    code = f"""
import resource
from pathlib import Path
from mentra_nb.record.write.journal import Journal
j = Journal(Path({str(folder)!r}))
put = lambda n: j.record_audit_event("a", "run_aborted", {{"reason": str(n) * 100}})
put(0)
(file,) = (Path({str(folder)!r}) / "events").glob("0*.jsonl")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 50, hard))
put(1); put(2); put(3)
assert (j.health().written, j.health().lost) == (1, 3), j.health()
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
put(4)
j.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be written") == 1
    (file,) = (folder / "events").glob("0*.jsonl")
    good = []
    for line in file.read_bytes().splitlines():
        try:
            good.append(json.loads(line))
        except ValueError:
            assert line.endswith(b"~")
    assert [line["seq"] for line in good] == [0, 1, 2]
    assert [line["event_type"] for line in good] == ["run_aborted", "journal_gap", "run_aborted"]
    assert good[1]["payload"]["lost"] == 3
    report = verify(folder).iloc[0]
    assert (report.events, report.missing, report.bad_lines, report.lost) == (3, 0, 1, 3)


@pytest.mark.parametrize("odd", [float("nan"), {1: 2, (1, 2): 3}, object(), "\ud800 alone", b"\xff", [float("inf")]])
def test_values_that_are_not_json_are_kept_as_text(folder: Path, odd: Any) -> None:
    journal = Journal(folder)
    journal.record_audit_event("a", "tool_execution_started", {"tool_name": "t", "input": {"x": odd}})
    journal.close()
    assert journal.health().lost == 0
    assert lines(folder)[0]["payload"]["tool_name"] == "t"
    assert verify(folder).bad_lines.sum() == 0


# ---- what is not written -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_any_text_is_not_in_the_file(folder: Path, secret: str) -> None:
    journal = Journal(folder)
    record(journal, tool_finished(output_preview=f"first {secret} last", is_error=True, error=f"bad key: {secret}"))
    record(journal, e.TurnStarted(agent_id="a", model="m", prompt=f"use\n{secret}"))
    journal.record_audit_event("a", "tool_execution_started", {"input": {"deep": [{"x": secret}]}})
    journal.close()
    assert secret not in text(folder)
    assert text(folder).count("[redacted]") >= 4
    assert "first " in text(folder)
    assert " last" in text(folder)


@pytest.mark.parametrize(
    "key",
    [
        *("authorization", "Authorization", "api_key", "apikey", "x-api-key", "apiKey", "token", "access_token"),
        *("accessToken", "password", "db_password", "client_secret", "secret", "cookie", "Set-Cookie", "private_key"),
        "credentials",
    ],
)
def test_a_value_under_a_secret_name_is_not_in_the_file(folder: Path, key: str) -> None:
    journal = Journal(folder)
    journal.record_audit_event("a", "tool_execution_started", {"input": {"headers": {key: "correct horse"}}})
    journal.record_audit_event("a", "tool_execution_started", {"input": {key: ["correct horse"]}})
    nested = json.dumps({"a": 1, key: "correct-horse"})
    record(journal, tool_finished(output_preview=nested))
    journal.close()
    assert "correct horse" not in text(folder)
    assert "correct-horse" not in text(folder)


def test_token_counts_are_not_redacted(folder: Path) -> None:
    journal = Journal(folder)
    usage = {"input_tokens": 11, "output_tokens": 12, "password": "gone"}
    journal.record_audit_event("a", "model_response_finished", {"usage": usage, "token": "gone too"})
    journal.close()
    payload = lines(folder)[0]["payload"]
    assert payload["usage"] == {"input_tokens": 11, "output_tokens": 12, "password": "[redacted]"}
    assert payload["token"] == "[redacted]"


def test_long_texts_are_cut_at_8_kib(folder: Path) -> None:
    journal = Journal(folder)
    record(journal, tool_finished(output_preview="é" * 20_000, error="x" * 20_000))
    record(journal, e.TurnStarted(agent_id="a", model="m", prompt="p" * 20_000))
    record(journal, e.ToolExecutionStarted(agent_id="a", tool_name="t", tool_call_id="c", input={"text": "i" * 20_000}))
    journal.close()
    finished, turn, started = (line["payload"] for line in lines(folder))
    assert len(finished["output_preview"].encode()) == 8192
    assert finished["output_truncated"] is True
    assert len(finished["error"]) == len(turn["prompt"]) == 8192
    assert len(json.dumps(started["input"])) < 8400
    for payload in (finished, turn, started):
        assert runtime_event_from_json(payload)


def test_a_secret_at_the_cut_leaves_no_part(folder: Path) -> None:
    journal = Journal(folder)
    record(journal, tool_finished(output_preview="x" * 8175 + " " + SECRETS[0] + " " + "y" * 20_000))
    journal.close()
    assert SECRETS[0][:8] not in text(folder)


def test_texts_can_be_kept_whole(folder: Path) -> None:
    journal = Journal(folder, log_text="full")
    record(journal, tool_finished(output_preview="x" * 50_000 + " " + SECRETS[0]))
    journal.close()
    assert lines(folder)[0]["payload"]["output_preview"] == "x" * 50_000 + " [redacted]"
    assert "output_truncated" not in lines(folder)[0]["payload"]


def test_texts_can_be_left_out(folder: Path) -> None:
    journal = Journal(folder, log_text="none")
    record(journal, tool_finished(output_preview="BODY"))
    record(journal, e.TurnStarted(agent_id="a", model="m", prompt="BODY"))
    record(journal, e.ToolExecutionStarted(agent_id="a", tool_name="t", tool_call_id="c", input={"text": "BODY"}))
    finished = {"tool_name": "t", "tool_call_id": "c", "outcome": "allow", "subject": "BODY"}
    record(journal, e.ToolAuthorizationFinished(agent_id="a", **finished))
    journal.close()
    assert "BODY" not in text(folder)
    assert [runtime_event_from_json(line["payload"]).kind for line in lines(folder)][1] == "turn_started"


def everything_on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("log_text", "kept"), [("none", 0), ("preview", 1), ("full", 4)])
def test_no_file_holds_more_text_than_is_asked_for(folder: Path, log_text: Any, kept: int) -> None:
    journal = Journal(folder, log_text=log_text)
    parts = "".join(f"part{n}-" + "." * 5000 for n in range(4))  # of 5 kB each
    record(journal, tool_finished(output_preview=parts))
    record(journal, e.TurnStarted(agent_id="a", model="m", prompt=parts))
    record(journal, e.ToolExecutionStarted(agent_id="a", tool_name="t", tool_call_id="c", input={"text": parts}))
    journal.close()
    text = everything_on_disk(folder)
    assert [text.count(f"part{n}-".encode()) for n in range(4)] == [3 if kept > (n > 1) * 3 else 0 for n in range(4)]
    views.write_database(folder)
    assert compact(folder, grace=0) == 1
    compact(folder, grace=0)
    with duckdb.connect() as con:
        kept_in = con.execute(f"SELECT string_agg(payload, '') FROM '{folder}/events/0*.parquet'").fetchone()
    assert kept_in
    assert [kept_in[0].count(f"part{n}-") for n in range(4)] == [3 if kept > (n > 1) * 3 else 0 for n in range(4)]
    assert log_text != "none" or b"part" not in everything_on_disk(folder)


def test_matches_of_custom_expressions_are_not_in_any_file(folder: Path) -> None:
    journal = Journal(folder, redact=[r"PAT-\d{4}", r'"quoted"', r"two\nlines"])
    text = 'patient PAT-1234, "quoted", two\nlines, PAT-12'
    record(journal, tool_finished(output_preview=text))
    record(journal, e.TurnStarted(agent_id="a", model="m", prompt="x" * 9000 + text))
    journal.record_audit_event("a", "tool_execution_started", {"input": {"deep": [{"x": text}]}})
    journal.redact = ["later"]
    record(journal, tool_finished(output_preview="sooner or later PAT-1234"))
    journal.close()
    kept = [line["payload"] for line in lines(folder)]
    assert kept[0]["output_preview"] == "patient [redacted], [redacted], [redacted], PAT-12"
    assert kept[2]["input"] == {"deep": [{"x": kept[0]["output_preview"]}]}
    assert kept[3]["output_preview"] == "sooner or [redacted] PAT-1234"
    assert everything_on_disk(folder).count(b"PAT-1234") == 1
    with pytest.raises(ConfigurationError, match="not a regular expression"):
        journal.redact = ["("]
    assert journal.redact == ("later",)


def test_an_expression_that_matches_empty_text_hides_only_what_it_finds(folder: Path) -> None:
    journal = Journal(folder, redact=["x*", r"\b", ""])
    record(journal, tool_finished(output_preview="one xx two"))
    journal.close()
    assert [line["payload"]["output_preview"] for line in lines(folder)] == ["one [redacted] two"]


def test_an_expression_that_is_nested_too_deep_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a regular expression"):
        Journal(folder, redact=["(" * 5000 + ")" * 5000])


@pytest.mark.parametrize("expressions", [["(a|aa)+$", r"PAT-\d{4}"], [r"PAT-\d{4}", "(a|aa)+$"]])
def test_an_expression_that_takes_too_long_withholds_the_text_and_nothing_else(
    folder: Path, caplog: pytest.LogCaptureFixture, expressions: list[str]
) -> None:
    journal = Journal(folder, redact=expressions)
    began = time.monotonic()
    for _ in range(4):
        record(journal, tool_finished(output_preview="PAT-1234 " + "a" * 5000 + "!"))
    record(journal, tool_finished(output_preview="PAT-1234 is well"))
    journal.close()
    assert time.monotonic() - began < 10
    kept = [line["payload"]["output_preview"] for line in lines(folder)]
    assert kept == ["[withheld: an expression of the setting redact took too long]"] * 4 + ["[redacted] is well"]
    assert "PAT-1234" not in text(folder)
    assert [each.message for each in caplog.records] == [
        "redact: '(a|aa)+$' takes over 0.05 s, so the record withholds the text; simplify it"
    ]


def test_an_event_of_many_slow_texts_takes_no_longer_than_one(folder: Path) -> None:
    journal = Journal(folder, log_text="full", redact=["(a|aa)+$"])
    began = time.monotonic()
    texts = [f"{n}{'a' * 4000}!" for n in range(200)]
    journal.record_audit_event("a", "tool_execution_started", {"input": {"texts": texts}, "error": "none"})
    journal.close()
    assert time.monotonic() - began < 5
    assert "aaaa" not in text(folder)


def test_importing_the_journal_loads_no_query_engine() -> None:
    heavy = "{'duckdb', 'pandas', 'genai_prices'}"
    code = f"import sys, mentra_nb.record.write.journal; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_an_unclosed_journal_does_not_keep_the_interpreter_alive(folder: Path) -> None:
    code = f"""
from pathlib import Path
from mentra_nb.record.write.journal import Journal
Journal(Path({str(folder)!r})).record_audit_event("a", "run_aborted", {{"reason": "x"}})
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    assert len(lines(folder)) == 1
