"""Results that are too long to be shown: a part is, the whole is kept, and the model reads on where it likes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kits.core import Bench, bench

from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.results import MAX_KEPT_BYTES, MAX_RESULT_BYTES, MAX_RESULT_LINES, shortened
from mentra_nb.content import ToolResult
from mentra_nb.event import types as e
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.tools import paging
from mentra_nb.tools.builtin.read_tool_result import END
from mentra_nb.tools.function import tool
from mentra_nb.tools.needed import READ_TOOL_RESULT as NAME
from mentra_nb.tools.paging import window
from mentra_nb.tools.post_hooks import PostExecutionContext, PostExecutionDecision
from mentra_nb.tools.tool import ToolOutput

pytestmark = pytest.mark.anyio

MANY = "\n".join(f"line {number}" for number in range(1, 10_001))
ROWS = [{"number": number, "text": "x" * 20} for number in range(3_000)]


@tool(reads_only=True)
def load(what: str = "lines") -> Any:
    """Load something large."""
    match what:
        case "rows":
            return ROWS
        case "last":
            return ToolOutput(ROWS, terminate=True, details={"rows": len(ROWS)})
        case "details":
            return ToolOutput("short", details={"rows": len(ROWS), "kind": Path("a")})
    return MANY


async def round_of(table: Bench, agent: Any, *calls: Any) -> list[ToolResult]:
    table.provider.push(tool_calls(calls), text("ok"))
    await agent.run("go")
    results: list[ToolResult] = agent.history()[-2].tool_results()
    return results


def offered(table: Bench) -> list[list[str]]:
    return [[wire.name for wire in request.tools] for request in table.provider.recorded_requests]


# ---- what is shown --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["short", {"a": 1}, "\n" * (MAX_RESULT_LINES - 1), "x" * MAX_RESULT_BYTES])
def test_sub_threshold_results_stay_byte_identical_under_paging(content: Any) -> None:
    assert shortened(content, "call-1") == (content, None)


async def test_a_long_result_is_shown_in_part_kept_whole_and_read_on_where_the_notice_says() -> None:
    async with bench(tools=[load]) as table:
        agent = await table.agent()
        [shown] = await round_of(table, agent, ("load", {}))
        kept = await table.runtime.store.load_result(agent.id, shown.tool_use_id)
        notice = next(line for line in str(shown.content).split("\n") if line.startswith("[…"))
        called = re.search(rf'{NAME}\(tool_use_id="(.*)", start_line=(\d+)\)', notice)
        assert called is not None
        [read] = await round_of(table, agent, (NAME, {"tool_use_id": called[1], "start_line": int(called[2])}))
        events = table.recorder.of(e.ToolExecutionFinished)
    assert kept == MANY
    head = str(shown.content).split("\n[…")[0].split("\n")
    assert str(read.content).split("\n")[0] == f"line {len(head) + 1}"
    assert events[0].output_preview == shown.content  # the record has what the model reads
    assert offered(table)[0] == ["load"]  # the tool is there once it is needed
    assert offered(table)[1] == offered(table)[3] == ["load", NAME]


async def test_the_rest_of_a_result_is_read_in_another_process(tmp_path: Path) -> None:
    async with bench(tools=[load], store=SqliteStore(tmp_path / "state.db")) as table:
        agent = await table.agent()
        await round_of(table, agent, ("load", {}))
        id = agent.id
    async with bench(tools=[load], store=SqliteStore(tmp_path / "state.db")) as table:
        agent = await table.runtime.resume_agent(id)
        [read] = await round_of(table, agent, (NAME, {"tool_use_id": "tool-1", "start_line": 10_000}))
        assert offered(table)[0] == ["load", NAME]
    assert read.content == f"line 10000\n{END}"


async def test_json_that_is_too_long_is_read_as_lines() -> None:
    async with bench(tools=[load]) as table:
        agent = await table.agent()
        [shown] = await round_of(table, agent, ("load", {"what": "rows"}))
        place, parts = {"start_line": 1}, []
        while place:
            [read] = await round_of(table, agent, (NAME, {"tool_use_id": shown.tool_use_id, **place}))
            body, _, trailer = str(read.content).rpartition("\n…[")
            parts.append(body)
            found = re.search(r"start_line=(\d+)", trailer)
            place = {"start_line": int(found[1])} if found else {}
    size = len(json.dumps(ROWS))
    assert str(shown.content).startswith(f"[the result is JSON of {size} bytes, over the limit of {MAX_RESULT_BYTES}")
    assert json.loads("\n".join(parts)) == ROWS
    assert len(parts) > 3


async def test_a_hidden_reader_leaves_long_results_cut() -> None:
    async with bench(tools=[load]) as table:
        agent = await table.agent(AgentConfig(hidden_tools=(NAME,)))
        [shown] = await round_of(table, agent, ("load", {}))
        assert await table.runtime.store.load_result(agent.id, shown.tool_use_id) is None
    assert "lines in all …]" in str(shown.content)
    assert offered(table) == [["load"], ["load"]]


async def test_what_a_hook_replaced_is_not_kept() -> None:
    class Without:
        async def after_execution(self, context: PostExecutionContext) -> PostExecutionDecision:
            return PostExecutionDecision("replace", str(context.content).replace("line 9999\n", ""))

    async with bench(tools=[load], post_hooks=[Without()]) as table:
        agent = await table.agent()
        [shown] = await round_of(table, agent, ("load", {}))
        kept = await table.runtime.store.load_result(agent.id, shown.tool_use_id)
    assert kept == MANY.replace("line 9999\n", "")


async def test_a_typed_answer_is_asked_for_without_the_reader() -> None:
    async with bench(tools=[load]) as table:
        agent = await table.agent()
        await round_of(table, agent, ("load", {}))
        table.provider.push(text("no call"))
        with pytest.raises(Exception, match="it answered in words"):
            await agent.run_to_output("Which?", int)
    assert len(offered(table)[-1]) == 1


def test_a_result_that_is_larger_than_what_is_kept_keeps_its_beginning_and_end() -> None:
    large = "a" * MAX_KEPT_BYTES + "\nend"
    _, kept = shortened(large, "call-1")
    assert kept is not None
    assert len(kept) <= MAX_KEPT_BYTES
    assert kept.endswith("\nend")


def test_an_id_with_braces_is_quoted_as_it_is() -> None:
    shown, _ = shortened(MANY, "call{left}{}")
    assert '(tool_use_id="call{left}{}", start_line=' in shown


# ---- reading on -----------------------------------------------------------------------------------------------


def windows(content: str) -> list[paging.Window]:
    found, place = [], (1, 1)
    while True:
        part = window(content, *place)
        found.append(part)
        if part.next is None:
            return found
        assert part.next > place
        place = part.next


def joined(parts: list[paging.Window]) -> str:
    ends = ["" if part.next and part.next[1] > 1 else "\n" for part in parts[:-1]]
    return "".join(part.text + end for part, end in zip(parts, [*ends, ""], strict=True))


@given(st.lists(st.text(alphabet="ab ä€😀", max_size=60) | st.just("long " * 30) | st.just("x" * 300), max_size=30))
def test_read_tool_result_windows_tile_the_result_and_mark_the_end(lines: list[str]) -> None:
    content = "\n".join(lines)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(paging, "PAGE_BYTES", 100)
        patched.setattr(paging, "PAGE_LINES", 7)
        parts = windows(content)
    assert joined(parts) == content
    assert all(len(part.text.encode()) <= 100 for part in parts)
    assert all(part.text.count("\n") < 7 for part in parts)


def test_a_window_fits_into_a_result() -> None:
    for content in (MANY, "ä" * 200_000, "\n" * 10_000, "word " * 50_000):
        parts = windows(content)
        assert joined(parts) == content
        assert all(shortened(f"{part.text}\n{'x' * 300}", "id")[1] is None for part in parts)


def test_a_key_is_not_cut_in_two() -> None:
    key = "sk-" + "a1B2" * 10
    content = "x " * (paging.PAGE_BYTES // 2 - 10) + key + " end" * 10
    assert sum(key in part.text for part in windows(content)) == 1
    assert all(key in part.text or "a1B2" not in part.text for part in windows(content))


@pytest.mark.parametrize(
    ("arguments", "answer", "is_error"),
    [
        ({"tool_use_id": "tool-1", "start_line": 10_001}, END, False),
        ({"tool_use_id": "tool-1", "start_line": 10_000, "start_column": 6}, f"10000\n{END}", False),
        ({"tool_use_id": "nope"}, "no result of a call 'nope' is kept; short ones are shown whole", True),
        ({"tool_use_id": "tool-1", "start_line": 0}, "Tool execution denied: invalid arguments: start_line: ", True),
    ],
)
async def test_a_place_that_is_not_there_is_the_end_and_a_call_that_is_not_there_an_error(
    arguments: dict[str, Any], answer: str, is_error: bool
) -> None:
    async with bench(tools=[load]) as table:
        agent = await table.agent()
        await round_of(table, agent, ("load", {}))
        [read] = await round_of(table, agent, (NAME, arguments))
    assert str(read.content).startswith(answer)
    assert read.is_error is is_error


# ---- details --------------------------------------------------------------------------------------------------


async def test_structured_tool_projects_content_and_hides_details_from_provider() -> None:
    async with bench(tools=[load]) as table:
        agent = await table.agent()
        [result] = await round_of(table, agent, ("load", {"what": "details"}))
        [event] = table.recorder.of(e.ToolExecutionFinished)
        sent = table.provider.recorded_requests[1].messages[-1].tool_results()
    assert (result.content, sent) == ("short", [result])
    assert event.details == {"rows": 3_000, "kind": "a"}
    assert "3000" not in result.model_dump_json()


async def test_oversized_structured_output_spills_without_losing_details_or_termination() -> None:
    @tool
    def finish() -> Any:
        return ToolOutput(ROWS, terminate=True, details={"rows": len(ROWS)})

    async with bench(tool_calls([("finish", {})]), tools=[finish]) as table:
        agent = await table.agent()
        with pytest.raises(Exception, match="without a final"):
            await agent.run("go")
        kept = await table.runtime.store.load_result(agent.id, "tool-1")
        [event] = table.recorder.of(e.ToolExecutionFinished)
        [turn] = table.recorder.of(e.TurnFinished)
    assert json.loads(kept or "") == ROWS
    assert (event.details, turn.stop_reason) == ({"rows": 3_000}, "ended_by_tool")
