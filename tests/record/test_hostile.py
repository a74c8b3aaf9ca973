"""The record stays readable whatever its events hold: every frame, view, report and export is read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kits.records import Record, problems

import mentra_nb.event.types as e
from mentra_nb.authorization import ToolAuthorizationPreview
from mentra_nb.errors import ConfigurationError
from mentra_nb.record import schema
from mentra_nb.record.keep.compact import compact
from mentra_nb.record.read import export, frames, plots, reports
from mentra_nb.record.write.journal import Journal
from mentra_nb.record.write.redact import capped

LONG = 9_000


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


HOSTILE: tuple[Any, ...] = (
    None, "", "x" * LONG, "\x00", "\ud800", "é" * LONG, '{"a": ', "[redacted]", "$.a", "2026-13-45", "-1",
    0, -1, 2**63 - 1, -(2**63), 2**64, 10**400, 10**5000, 1e308, float("nan"), float("inf"), True,
    [], {}, [None], ["x" * 300] * 100, {"truncated": "x" * LONG}, {"k" * LONG: 1}, {f"key {n}": n for n in range(3000)},
    deep(50), deep(300), deep(5000), {"path": "a.txt", "content": "\x00\"\\" * LONG},
)  # fmt: skip
KINDS = (*e.SEED_KINDS, *e.ADDED_KINDS)
NAMES = sorted({name for kind in KINDS for name in kind.model_fields} | {"usage", "wait_ms", "later"})
VALUES = st.one_of(
    st.sampled_from(HOSTILE),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=8,
    ),
)


pytestmark = pytest.mark.slow


def read_views(folder: Path) -> None:
    """Read every view through SQL in one export, and the frames and charts with their own SQL."""
    export.export(folder.parent / "all.duckdb", folder=folder, overwrite=True)
    frames.usage(["model", "day", "session"], folder=folder)
    for frame in (plots.timeline_frame, plots.cost_frame, reports.slowest_tools, reports.decided_calls):
        with contextlib.suppress(ConfigurationError):  # the latest session may have no turn
            frame(folder=folder)


def read_everything(folder: Path) -> None:
    """Read every frame, every view through SQL and every report, and write every export."""
    read_views(folder)
    for name in export.TABLES:
        getattr(frames, name)(folder=folder)
        frames.sql(f"SELECT * FROM {name}", folder=folder)
        export.export(folder.parent / "one.parquet", table=name, folder=folder, overwrite=True)
    frames.usage("tool", folder=folder)
    for frame in (reports.time_spent, reports.denial_reasons, plots.approvals_frame, plots.tools_frame):
        frame(folder=folder)
    export.export(folder.parent / "all", folder=folder, overwrite=True)
    export.export(folder.parent / "one.csv", folder=folder, overwrite=True)


def payloads(value: Any) -> Iterator[dict[str, Any]]:
    """Return for every kind a payload in which each field is the value, and two in which it is within a field."""
    for kind in KINDS:
        name = kind.model_fields["kind"].default
        yield {"kind": name, "run_id": "r", "tool_call_id": "c"} | {
            field: value for field in kind.model_fields if field not in ("kind", "run_id", "tool_call_id")
        }
        yield {
            "kind": name,
            "run_id": "r",
            "tool_call_id": "d",
            "preview": {"raw_input": value, "structured_input": value},
        }
        yield {"kind": name, "run_id": "r", "tool_call_id": "d", "usage": dict.fromkeys(schema.USAGE, value)}


def test_no_value_in_any_field_of_any_kind_makes_the_record_unreadable(folder: Path) -> None:
    journal = Journal(folder)
    written = 0
    for value in HOSTILE:
        for payload in payloads(value):
            journal.record_audit_event("agent", payload["kind"], payload)
            written += 1
    assert journal.health().lost == 0
    read_everything(folder)
    assert len(frames.events(folder=folder)) == written
    journal.close()
    compact(folder, grace=0)
    read_views(folder)
    assert problems(folder) == {}


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(NAMES), VALUES)), min_size=1, max_size=12
    )
)
def test_no_mixture_of_values_makes_the_record_unreadable(events: list[tuple[type[e.RuntimeEvent], Any]]) -> None:
    with TemporaryDirectory() as parent:
        folder = Path(parent, "record")
        journal = Journal(folder)
        for kind, fields in events:
            journal.record_audit_event("agent", kind.model_fields["kind"].default, {"run_id": "r", **fields})
        journal.close()
        read_views(folder)
        assert len(frames.events(folder=folder)) == len(events)
        assert problems(folder) == {}


def test_a_denied_call_with_long_arguments_keeps_its_short_fields(record: Record) -> None:
    arguments = {"path": "a.txt", "content": "x" * LONG}
    same: dict[str, Any] = {"run_id": "r1", "tool_call_id": "c1", "tool_name": "write"}
    preview = ToolAuthorizationPreview(working_directory="/", raw_input=arguments, structured_input=arguments)
    record.add(e.ToolAuthorizationStarted, **same, preview=preview)
    record.add(e.ToolAuthorizationFinished, **same, outcome="deny", decided_by="user", subject="a.txt")
    record.add(e.ToolExecutionBlocked, **same, reason="no")
    (kept,) = (json.loads(text) for text in frames.tool_calls(folder=record.folder).input)
    assert (kept["path"], kept["truncated"]) == ("a.txt", ["content"])
    assert kept["content"] == "x" * len(kept["content"])
    assert 8000 < len(json.dumps(kept)) < 8400
    found = frames.sql("SELECT input->>'path' AS path FROM tool_calls", folder=record.folder)
    assert list(found.path) == ["a.txt"]


def test_of_a_long_command_the_beginning_is_kept(record: Record) -> None:
    same: dict[str, Any] = {"run_id": "r1", "tool_call_id": "c1", "tool_name": "shell"}
    record.add(e.ToolExecutionStarted, **same, input={"command": "echo start; " + "x" * LONG, "timeout": 5})
    found = frames.sql("SELECT input->>'command' AS c, input->>'timeout' AS t FROM tool_calls", folder=record.folder)
    assert found.c[0].startswith("echo start; xxx")
    assert found.t[0] == "5"


def test_arguments_that_an_older_version_cut_are_read(record: Record) -> None:
    payload = {"run_id": "r", "tool_call_id": "c", "tool_name": "write", "preview": {"raw_input": '{"path": "a.tx'}}
    record.journal.record_audit_event("a", "tool_authorization_started", payload)
    (kept,) = frames.tool_calls(folder=record.folder).input
    assert json.loads(kept) == {"truncated": '{"path": "a.tx'}


@pytest.mark.parametrize("value", [value for value in HOSTILE if isinstance(value, dict | list | str)])
def test_what_is_cut_stays_small_and_is_not_cut_again(value: Any) -> None:
    from mentra_nb.record.write.redact import jsonable

    once = capped({"input": jsonable(value), "preview": {"raw_input": jsonable(value)}}, 4096)
    assert len(json.dumps(once["input"], ensure_ascii=False)) < 4096 + 600
    assert len(json.dumps(once["preview"], ensure_ascii=False)) < 4096 + 700
    twice = capped(capped({"input": jsonable(value)}, 8192), 4096)
    assert len(json.dumps(twice["input"], ensure_ascii=False)) < 4096 + 600
