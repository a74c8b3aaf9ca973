"""Which columns a query reads: payloads are nearly all of a record, so a question that needs none must read none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kits.records import Record

from mentra_nb.record.keep.compact import compact
from mentra_nb.record.read import query


def scans(node: dict[str, Any]) -> list[str]:
    """Return the columns of each scan of Parquet below a node of a plan."""
    here = [str(node["extra_info"]["Projections"])] if node["name"].strip() == "READ_PARQUET" else []
    return here + [scan for child in node["children"] for scan in scans(child)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("question", "most"),
    [
        ("SELECT model, sum(seconds), sum(total_tokens) FROM model_calls GROUP BY model", 0),
        ("SELECT tool, outcome, sum(seconds) FROM tool_calls GROUP BY ALL", 0),
        ("SELECT model, sum(total_tokens), sum(cost_usd) FROM usage GROUP BY model", 0),
        ("SELECT tool, outcome, count(*) FROM decisions GROUP BY ALL", 0),
        ("SELECT * FROM turns", 1),
        ("SELECT * FROM sessions", 0),
    ],
)
def test_payloads_are_read_as_seldom_as_can_be(full: Record, question: str, most: int) -> None:
    full.journal.close()
    compact(full.folder)
    with query.connection(folder=full.folder) as con:
        [(_, plan)] = con.execute(f"EXPLAIN (FORMAT json) {question}").fetchall()
    read = scans(json.loads(plan)[0])
    assert read
    assert sum("payload" in columns for columns in read) == most
