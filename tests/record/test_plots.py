"""The charts: each drawn from a documented frame, of bounded size, readable on light and dark pages."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from kits.records import SONNET, Record

import mentra_nb as mn
import mentra_nb.event.types as e
from mentra_nb.content import TokenUsage
from mentra_nb.errors import ConfigurationError
from mentra_nb.record.read import frames, plots
from mentra_nb.record.write import journal

pytestmark = pytest.mark.slow

NAMES = ("timeline", "cost", "approvals", "tools")


def texts(spec: Any) -> Iterator[str]:
    """Every text of a chart's specification but its data."""
    if isinstance(spec, dict):
        for key, value in spec.items():
            yield from texts(value if key != "datasets" else None)
    elif isinstance(spec, list):
        yield from itertools.chain.from_iterable(map(texts, spec))
    elif isinstance(spec, str):
        yield spec


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_drawn_from_a_documented_frame(full: Record, name: str) -> None:
    picture, documented = getattr(mn.plot, name), mn.columns(f"plot.{name}")
    frame = picture.frame(folder=full.folder)
    assert list(frame.columns) == list(documented.column)
    assert [str(dtype) for dtype in frame.dtypes] == list(documented.dtype)
    assert picture.draw(frame).to_dict() == picture(folder=full.folder).to_dict()
    assert picture.__doc__ == picture.frame.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_can_be_rendered(full: Record, name: str) -> None:
    vl_convert = pytest.importorskip("vl_convert")
    chart = getattr(mn.plot, name)(folder=full.folder)
    svg = vl_convert.vegalite_to_svg(chart.to_json())
    title = next(iter(texts(chart.to_dict()["title"])))
    assert title in svg
    assert "NaN" not in svg


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_picture_is_drawn_too(tmp_path: Path, name: str) -> None:
    vl_convert = pytest.importorskip("vl_convert")
    chart = getattr(mn.plot, name)(folder=tmp_path / "nothing")
    assert "nothing to draw" in vl_convert.vegalite_to_svg(chart.to_json())


def luminance(color: str) -> float:
    channels = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", "#111111"])
@pytest.mark.parametrize("name", NAMES)
def test_every_colour_holds_on_light_and_dark_pages(full: Record, name: str, page: str) -> None:
    """Three to one is what large texts and shapes need; what is written is four to one."""
    chart = getattr(mn.plot, name)(folder=full.folder).to_dict()
    assert chart["config"]["background"] == "transparent"
    colours = {text for text in texts(chart) if text.startswith("#") and len(text) == 7}
    assert colours
    assert {colour: contrast(colour, page) for colour in colours if contrast(colour, page) < 3} == {}
    assert contrast(chart["config"]["title"]["color"], page) >= 4
    inside = {text for text in texts(chart) if text == "#000"}
    assert not inside or all(contrast(colour, "#000000") > 4 for colour in plots.ANSWERS.values())


def test_the_timeline_says_what_each_second_went_into(full: Record) -> None:
    spans = mn.plot.timeline.frame("Files", folder=full.folder)
    assert list(spans.groupby("lane", observed=True).size().items()) == [("model", 2), ("person", 2), ("tool", 3)]
    assert sorted(spans.outcome[spans.lane == "tool"]) == ["denied", "error", "ok"]
    assert (spans.start_s >= 0).all()
    assert (spans.end_s >= spans.start_s).all()
    assert (spans.end_s <= spans.turn_s).all()
    with pytest.raises(ConfigurationError, match="'nobody' is not a session with a turn"):
        mn.plot.timeline.frame("nobody", folder=full.folder)


def test_a_person_decides_from_the_question_to_the_answer_before_the_tool_begins(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the other events say about how long it took."""
    clock = itertools.count(1_800_000_000.0)
    monkeypatch.setattr(journal, "time", SimpleNamespace(time=lambda: next(clock), monotonic=lambda: 0.0))
    record.turn("r1")  # at 0
    record.call("c1", "r1", asked=True)  # at 1 considered, 2 asked, 3 answered, 4 decided, 5 begun, 6 done
    record.call("c2", "r1", "deny", asked=True)  # from 7 on
    record.call("c3", "r1", None, asked=True)  # asked at 13 and never answered
    record.end("r1", duration_ms=13_900)
    spans = mn.plot.timeline.frame(folder=record.folder)
    rows = [(row.lane, row.outcome, row.start_s, row.end_s) for row in spans.itertuples()]
    assert rows == [
        ("person", "allow", 2, 3),
        ("tool", "ok", 5, 6),
        ("person", "deny", 8, 9),
        ("tool", "denied", 10, 10),
        ("tool", "pending", 12, 12),
        ("person", "pending", 13, 13),
    ]
    assert set(spans.turn_s) == {14}


def test_the_timeline_skips_a_session_without_a_turn(record: Record) -> None:
    record.two_sessions()
    record.add(e.SessionStarted, session_id="s3", title="empty", model="m")
    assert set(mn.plot.timeline.frame(folder=record.folder).run_id) == {"s2-r1", "s2-r2"}
    with pytest.raises(ConfigurationError, match="'s3' is not a session with a turn"):
        mn.plot.timeline.frame("s3", folder=record.folder)


def test_sessions_without_a_turn_give_an_empty_timeline(record: Record) -> None:
    record.add(e.SessionStarted, session_id="s3", title="empty", model="m")
    assert len(mn.plot.timeline.frame(folder=record.folder)) == 0


def test_the_timeline_is_of_the_latest_session_and_its_last_turns(record: Record) -> None:
    record.two_sessions()
    assert set(mn.plot.timeline.frame(folder=record.folder).run_id) == {"s2-r1", "s2-r2"}
    assert set(mn.plot.timeline.frame("s1", turns=1, folder=record.folder).turn) == {2}


def test_pictures_stay_small_over_a_large_record(record: Record) -> None:
    usage = TokenUsage(input_tokens=1000, output_tokens=10)
    for n in range(60):
        record.turn(f"r{n}", "s1")
        record.response(f"q{n}", f"r{n}", usage, of=(("openai", f"model-{n}")))
        for k in range(20):
            record.call(f"c{n}-{k}", f"r{n}", tool=f"tool-{(n + k) % 30}")
    frames = {name: getattr(mn.plot, name).frame(folder=record.folder) for name in NAMES}
    assert frames["timeline"].turn.nunique() == plots.MAX_TURNS
    assert frames["cost"].model.nunique() == plots.MAX_SERIES + 1
    assert frames["cost"].total_tokens.sum() == 60 * 1010
    assert frames["approvals"].tool.nunique() == frames["tools"].tool.nunique() == plots.MAX_TOOLS
    for name, frame in frames.items():
        assert len(frame) <= plots.MAX_SPANS
        assert len(json.dumps(getattr(mn.plot, name).draw(frame).to_dict())) < 500_000


def test_costs_are_by_day_week_or_month(full: Record) -> None:
    by_month = mn.plot.cost.frame("month", folder=full.folder)
    assert by_month.period[0].date() == date.today().replace(day=1)
    daily = mn.plot.cost.frame(folder=full.folder)
    assert daily.period[0].date() == pd.Timestamp.now("UTC").date()
    assert daily.cost_usd[0] == pytest.approx(frames.usage("model", folder=full.folder).cost_usd[0])
    assert daily.model[0] == "/".join(SONNET)


def bars(svg: str) -> list[tuple[float, float]]:
    """The left and right edge of each bar of a picture."""
    found = re.findall(r'aria-roledescription="bar" d="M(-?[\d.]+),-?[\d.]+h(-?[\d.]+)', svg)
    return [(float(left), float(left) + float(width)) for left, width in found]


def test_one_day_is_a_narrow_bar(full: Record) -> None:
    vl_convert = pytest.importorskip("vl_convert")
    widths = [
        right - left for left, right in bars(vl_convert.vegalite_to_svg(mn.plot.cost(folder=full.folder).to_json()))
    ]
    assert widths
    assert max(widths) <= 40


def test_a_small_part_of_a_bar_has_its_number_beside_the_bar(record: Record) -> None:
    vl_convert = pytest.importorskip("vl_convert")
    for n in range(60):
        record.call(f"c{n}", "r1", "allow", asked=False)
    record.call("c-denied", "r1", "deny", asked=True)
    svg = vl_convert.vegalite_to_svg(mn.plot.approvals(folder=record.folder).to_json())
    assert ">60</text>" in svg
    assert ">1 denied by a person</text>" in svg
    assert ">1</text>" not in svg


def test_an_unknown_price_is_not_drawn_as_zero(record: Record) -> None:
    record.response("q1", "r1", TokenUsage(input_tokens=10), of=("lab", "qwen3"))
    chart = mn.plot.cost(folder=record.folder).to_dict()
    assert "no price is known" in chart["title"]["subtitle"]
    assert len(chart["vconcat"]) == 1
    record.response("q2", "r1", TokenUsage(input_tokens=10))
    chart = mn.plot.cost(folder=record.folder).to_dict()
    assert "without 50% of the responses, whose price is not known" in chart["title"]["subtitle"]
    assert len(chart["vconcat"]) == 2


@pytest.mark.parametrize(
    ("outcome", "by", "answer"),
    [
        ("allow", "user", "allowed by a person"),
        ("allow", "rule:1", "allowed by a rule"),
        ("allow", "setting", "allowed by a setting"),
        ("allow", "sandbox", "changed nothing in the sandbox"),
        ("deny", "user", "denied by a person"),
        ("deny", "rule:1", "denied by a rule"),
        ("deny", "policy", "denied by policy or setting"),
        ("deny", "timeout", "nobody answered"),
        ("deny", "headless", "nobody to ask"),
        ("deny", "cancelled", "stopped"),
        ("prompt", "authorizer", "nobody to ask"),
    ],
)
def test_each_kind_of_decider_has_its_own_label(record: Record, outcome: str, by: str, answer: str) -> None:
    same = {"run_id": "r", "tool_call_id": "c", "tool_name": "shell"}
    record.add(e.ToolAuthorizationFinished, **same, outcome=outcome, decided_by=by)
    (row,) = mn.plot.approvals.frame(folder=record.folder).itertuples()
    assert (row.tool, row.answer, row.calls) == ("shell", answer, 1)
    assert answer in plots.ANSWERS


def test_without_altair_the_error_names_the_extra(full: Record) -> None:
    program = f"""
import sys
sys.modules["altair"] = None
from pathlib import Path
import mentra_nb as mn
print(len(mn.plot.tools.frame(folder=Path({str(full.folder)!r}))))
try:
    mn.plot.tools(folder=Path({str(full.folder)!r}))
except Exception as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "1\npictures need Altair: pip install 'mentra-nb[plots]'\n", done.stderr


def test_altair_is_loaded_by_drawing_only() -> None:
    program = "import sys; import mentra_nb as mn; mn.plot.cost; print('altair' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "False\n", done.stderr


HOSTILE = "ls</script><script>window.P_x=1</script><!-- <SCRIPT>"


@pytest.mark.parametrize("name", NAMES)
def test_no_text_of_a_picture_can_end_the_script_it_is_written_into(full: Record, name: str) -> None:
    """Whatever Altair makes of the chart: its display or its file."""
    picture = getattr(mn.plot, name)
    frame = picture.frame(folder=full.folder)
    texts = [column for column in frame if not pd.api.types.is_numeric_dtype(frame[column].dtype)]
    texts = [column for column in texts if not pd.api.types.is_datetime64_any_dtype(frame[column].dtype)]
    hostile = frame.assign(**{column: HOSTILE for column in texts if column not in ("lane", "answer", "outcome")})
    chart = picture.draw(hostile)
    shown = chart._repr_mimebundle_()
    for html in (chart.to_html(), (shown[0] if isinstance(shown, tuple) else shown)["text/html"]):
        assert "P_x" in html
        assert "<script>window" not in html
        assert "ls</script" not in html
        assert "<!-- " not in html
    assert r"ls\u003c/script>\u003cscript>" in json.loads(chart.to_json())["datasets"].__str__().replace("\\\\", "\\")
