"""Charts of the record, `mn.plot`: `timeline`, `cost`, `approvals` and `tools`, each drawn from a documented frame.

`mn.plot.cost()` draws, `mn.plot.cost.frame()` returns the data, and `mn.plot.cost.draw(frame)` draws such a frame, for
example after changing it. Both return an Altair chart. Colours and texts are readable on light and dark pages, and no
information is in the colour alone. Needs `pip install 'mentra-nb[plots]'`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Unpack

import pandas as pd

from mentra_nb.arguments import check_text
from mentra_nb.errors import ConfigurationError
from mentra_nb.record.read import frames, query
from mentra_nb.record.read.filters import Filters, ToolFilters, filtered

if TYPE_CHECKING:
    import altair as alt

P = ParamSpec("P")

MAX_TURNS, MAX_SPANS, MAX_BARS, MAX_SERIES, MAX_TOOLS = 30, 2000, 62, 7, 20
"""The most a chart shows: turns (the latest), spans of time, bars along an axis, models by name, tools."""

_WIDTH, _WIDEST_BAR = 560, 32  # pixels
_INK = "#7c7c7c"
_BLUE, _ORANGE, _GREEN, _RED = "#3f8fd8", "#d9730d", "#2e9e5b", "#d94a55"
_PURPLE, _TEAL, _PINK, _GRAY = "#9a6dd7", "#1f9aa8", "#cb5a9d", "#8a8a8a"
_SERIES = (_BLUE, _ORANGE, _TEAL, _PURPLE, _GREEN, _PINK, _RED, _GRAY)


class Picture(Generic[P]):
    """A chart: call it to draw, `frame` returns its data, `draw` draws other data with the same columns."""

    def __init__(self, frame: Callable[P, pd.DataFrame], draw: Callable[[Any, pd.DataFrame], Any]) -> None:
        self.frame = frame
        self._draw = draw
        update_wrapper(self, frame)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> alt.TopLevelMixin:
        """Draw the frame of these arguments. Raises `ConfigurationError` if Altair is not installed."""
        return self.draw(self.frame(*args, **kwargs))

    def draw(self, frame: pd.DataFrame) -> alt.TopLevelMixin:
        """Draw a frame with the columns of `frame`. Raises `ConfigurationError` if Altair is not installed."""
        try:
            import altair
        except ImportError as error:
            raise ConfigurationError("pictures need Altair: pip install 'mentra-nb[plots]'") from error
        drawn: alt.TopLevelMixin = self._draw(altair, _inert(frame)) if len(frame) else _nothing(altair)
        return drawn


_TAG = re.compile(r"<(?=[A-Za-z/!?])")


def _inert(frame: pd.DataFrame) -> pd.DataFrame:
    r"""Return the frame with every `<` that could begin a tag written as `\u003c`.

    Altair writes the data unescaped into a `<script>`, in each of its outputs. Commands, prompts and names of tools
    come from a model, so none of them may close that script.
    """
    texts = {
        str(name): frame[name].astype("string").str.replace(_TAG, r"\\u003c", regex=True)
        for name in frame
        if isinstance(frame[name].dtype, pd.CategoricalDtype)
        or pd.api.types.is_object_dtype(frame[name].dtype)
        or pd.api.types.is_string_dtype(frame[name].dtype)
        if frame[name].astype("string").str.contains(_TAG).any()
    }
    return frame.assign(**texts) if texts else frame


def _styled(chart: Any) -> Any:
    """Set a transparent background, and text colours with contrast on light and dark pages."""
    axis: dict[str, Any] = {f"{part}Color": _INK for part in ("label", "title", "grid", "domain", "tick")}
    axis |= {f"{part}Opacity": 0.4 for part in ("grid", "domain", "tick")}
    text = {"labelFontSize": 12, "titleFontSize": 12, "labelLimit": 340}
    return (
        chart.configure(background="transparent", font="sans-serif")
        .configure_view(stroke=None)
        .configure_axis(**axis, **text)
        .configure_legend(labelColor=_INK, titleColor=_INK, labelFontSize=12, titleFontSize=12, labelLimit=220)
        .configure_header(labelColor=_INK, titleColor=_INK, labelFontSize=12)
        .configure_title(color=_INK, subtitleColor=_INK, anchor="start", fontSize=14, subtitleFontSize=12, offset=10)
    )


def _nothing(alt: Any) -> Any:
    note = pd.DataFrame({"note": ["nothing to draw: the record has none of it"]})
    return _styled(alt.Chart(note).mark_text(color=_INK, fontSize=13).encode(text="note:N").properties(width=_WIDTH))


def _shortened(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


# ---- timeline ----------------------------------------------------------------------------------------------------

_SPANS = """
    WITH asked AS (
        SELECT run_id, epoch(ts) AS began, prompt, row_number() OVER (ORDER BY ts) AS turn FROM turns
    ), ended AS (
        SELECT run_id, epoch(max(ts)) AS ended FROM events WHERE kind = 'turn_finished' GROUP BY run_id
    ), moments AS (
        SELECT run_id, call_id, min(ts) FILTER (kind = 'permission_requested') AS asked,
            max(ts) FILTER (kind = 'permission_resolved') AS answered,
            max(ts) FILTER (kind = 'tool_authorization_finished') AS decided,
            min(ts) FILTER (kind = 'tool_execution_started') AS started,
            max(ts) FILTER (kind = 'tool_execution_finished' AND duration_ms IS NOT NULL) AS finished
        FROM events WHERE call_id IS NOT NULL GROUP BY run_id, call_id
    ), spans AS (
        SELECT run_id, 'model' AS lane, model AS what, NULL AS detail, outcome, epoch(ts) AS first,
            epoch(ts) + coalesce(seconds, 0) AS last
        FROM model_calls
        UNION ALL
        SELECT run_id, 'person', tool, subject, outcome, epoch(asked), epoch(answered)
        FROM decisions JOIN moments USING (run_id, call_id) WHERE asked IS NOT NULL
        UNION ALL
        SELECT run_id, 'tool', tool, subject, outcome, epoch(coalesce(started, decided, ts)), epoch(finished)
        FROM tool_calls JOIN moments USING (run_id, call_id)
    )
    SELECT a.turn, a.run_id, a.prompt, s.lane, s.what, s.detail, s.outcome,
        greatest(s.first - a.began, 0) AS start_s,
        greatest(coalesce(s.last, s.first) - a.began, s.first - a.began, 0) AS end_s, e.ended - a.began AS turn_s
    FROM asked a LEFT JOIN spans s USING (run_id) LEFT JOIN ended e USING (run_id)
    WHERE a.turn > (SELECT max(turn) FROM asked) - ?
    ORDER BY a.turn, start_s, s.lane LIMIT ?
"""
"""All times are those of the events, so that a person's span ends before that of the tool begins."""


def timeline_frame(
    session: str | None = None, *, turns: int = MAX_TURNS, folder: str | Path | None = None
) -> pd.DataFrame:
    """Return the time spans of a session: a row per response of a model, wait for a person, and run of a tool.

    Args:
        session: an id or a name, by default the latest session with a turn.
        turns: how many turns to take, the latest ones.
        folder: the record's folder.

    Raises:
        ConfigurationError: there is no such session.
    """
    check_text("mn.plot.timeline('sales')", {"session": session})
    if session is None:
        known = frames.sessions(folder=folder)
        taken = known.session_id[known.turns > 0]
        session = taken.iloc[-1] if len(taken) else ""
    with query.connection(costs=False, session=session, folder=folder) as con:
        spans = query.frame(con, _SPANS, [turns, MAX_SPANS], categories=False)
    if session and spans.empty:
        raise ConfigurationError(f"{session!r} is not a session with a turn: mn.sessions() lists them")
    return spans.astype({"lane": "category", "what": "category", "outcome": "category"})


def _draw_timeline(alt: Any, frame: pd.DataFrame) -> Any:
    frame = frame.assign(
        label=[f"{turn}  {_shortened(str(prompt), 46)}" for turn, prompt in zip(frame.turn, frame.prompt, strict=True)],
        seconds=frame.end_s - frame.start_s,
        lane=frame.lane.astype("string"),
    )
    lanes = alt.Scale(domain=["model", "person", "tool"], range=[_BLUE, _ORANGE, _GREEN])
    y = alt.Y("label:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8))
    offset = alt.YOffset("lane:N", scale=alt.Scale(domain=["model", "person", "tool"], paddingInner=0.15))
    tooltip = [
        alt.Tooltip("prompt:N", title="turn"),
        "lane:N",
        "what:N",
        "detail:N",
        "outcome:N",
        alt.Tooltip("seconds:Q", format=".2f", title="seconds"),
    ]
    base = alt.Chart(frame).encode(y=y, tooltip=tooltip)
    bars = (
        base.transform_filter("isValid(datum.lane)")
        .mark_bar(strokeWidth=1.5)  # with a stroke, so that spans without a length are visible
        .encode(
            x=alt.X("start_s:Q", title="seconds since the question", axis=alt.Axis(tickCount=8)),
            x2="end_s:Q",
            yOffset=offset,
            color=alt.Color("lane:N", scale=lanes, title=None, legend=alt.Legend(orient="top")),
            stroke=alt.Stroke("lane:N", scale=lanes, legend=None),
            fillOpacity=alt.condition("datum.outcome == 'error'", alt.value(0.1), alt.value(1)),
        )
    )
    ends = (
        base.encode(x="turn_s:Q")
        .transform_filter("isValid(datum.turn_s)")
        .mark_tick(color=_INK, thickness=2, opacity=1)
    )
    bad = (
        base.transform_filter("datum.lane == 'tool' && (datum.outcome == 'denied' || datum.outcome == 'error')")
        .mark_text(align="left", dx=5, color=_RED, fontSize=11, fontWeight="bold")
        .encode(x="end_s:Q", yOffset=offset, text=alt.Text("outcome:N"))
    )
    title = alt.TitleParams(
        "Where the time of each turn went", subtitle="a hollow bar failed; a line marks the end of a turn"
    )
    height = alt.Step(11)
    return _styled(alt.layer(bars, ends, bad).properties(width=_WIDTH, height=height, title=title))


# ---- cost --------------------------------------------------------------------------------------------------------

_COST = """
    WITH spent AS (
        SELECT date_trunc($period, day)::DATE AS period, model, count(*) AS responses,
            TRY_CAST(sum(total_tokens) AS BIGINT) AS total_tokens, sum(cost_usd) AS cost_usd, count(cost_usd) AS known
        FROM usage GROUP BY ALL
    ), ranked AS (
        SELECT model,
            row_number() OVER (ORDER BY sum(cost_usd) DESC NULLS LAST, sum(total_tokens) DESC) AS rank
        FROM spent GROUP BY model
    )
    SELECT period,
        CASE WHEN rank <= $most THEN spent.model ELSE 'other models' END AS model,
        TRY_CAST(sum(responses) AS BIGINT) AS responses,
            TRY_CAST(sum(total_tokens) AS BIGINT) AS total_tokens, sum(cost_usd) AS cost_usd,
        sum(known) / sum(responses) AS priced
    FROM spent JOIN ranked ON ranked.model IS NOT DISTINCT FROM spent.model
    GROUP BY ALL ORDER BY period, min(rank)
"""


@filtered
def cost_frame(period: Literal["day", "week", "month"] | None = None, **filters: Unpack[Filters]) -> pd.DataFrame:
    """Return what each model cost per day, week or month (UTC); by default, per the shortest of at most 62 bars."""
    with query.connection(**filters) as con:
        if period is None:
            days = con.execute("SELECT max(day) - min(day) + 1 FROM usage").fetchone()
            length = (days or (0,))[0] or 0
            period = "day" if length <= MAX_BARS else "week" if length <= 7 * MAX_BARS else "month"
        return query.frame(con, _COST, {"period": period, "most": MAX_SERIES}, categories=True)


def _draw_cost(alt: Any, frame: pd.DataFrame) -> Any:
    frame = frame.assign(model=frame.model.astype("string"), period=frame.period.dt.strftime("%Y-%m-%d"))
    models = list(dict.fromkeys(frame.model))
    color = alt.Color(
        "model:N",
        scale=alt.Scale(domain=models, range=list(_SERIES[: len(models)])),
        legend=alt.Legend(orient="top", columns=3, title=None),
    )
    x = alt.X("period:O", title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True))
    order = alt.Order("rank:Q")
    frame["rank"] = [models.index(model) for model in frame.model]
    tooltip = ["period:O", "model:N", "responses:Q", "total_tokens:Q", "cost_usd:Q"]
    tooltip.append(alt.Tooltip("priced:Q", format=".0%"))
    wide = {"size": _WIDEST_BAR} if frame.period.nunique() * 2 * _WIDEST_BAR < _WIDTH else {}
    bars = alt.Chart(frame).mark_bar(**wide).encode(x=x, color=color, order=order, tooltip=tooltip)
    known = float((frame.priced * frame.responses).sum() / max(frame.responses.sum(), 1))
    panels = [bars.encode(y=alt.Y("total_tokens:Q", title="tokens", axis=alt.Axis(tickCount=4, format="~s")))]
    title = alt.TitleParams("Tokens by model", subtitle="no price is known for any of these models")
    if frame.cost_usd.notna().any():
        panels.insert(0, bars.encode(y=alt.Y("cost_usd:Q", title="US dollars", axis=alt.Axis(tickCount=4))))
        unknown = "" if known == 1 else f"; without {1 - known:.0%} of the responses, whose price is not known"
        title = alt.TitleParams("Cost and tokens by model", subtitle=f"UTC{unknown}")
    sized = [panel.properties(width=_WIDTH, height=150) for panel in panels]
    return _styled(alt.vconcat(*sized, spacing=12, title=title))


# ---- approvals ---------------------------------------------------------------------------------------------------

ANSWERS = {
    "allowed by a person": _BLUE,
    "allowed by a rule": _TEAL,
    "changed nothing in the sandbox": "#5b8a5a",
    "allowed by a setting": _GRAY,
    "denied by a person": _RED,
    "denied by a rule": _ORANGE,
    "denied by policy or setting": _PINK,
    "nobody answered": _PURPLE,
    "nobody to ask": "#6f86c9",
    "stopped": "#7d8f2e",
    "arguments did not fit": "#8f7a6b",
    "pending": "#a8892c",
}
"""The ways a call can have been decided, with their colours."""

_ANSWER = """CASE WHEN outcome = 'pending' THEN 'pending' WHEN outcome = 'invalid' THEN 'arguments did not fit'
    WHEN outcome = 'allow' THEN CASE WHEN decided_by = 'user' THEN 'allowed by a person'
        WHEN decided_by = 'rule' THEN 'allowed by a rule'
        WHEN decided_by = 'sandbox' THEN 'changed nothing in the sandbox' ELSE 'allowed by a setting' END
    WHEN decided_by = 'user' THEN 'denied by a person'
    WHEN decided_by = 'rule' THEN 'denied by a rule'
    WHEN decided_by = 'cancelled' THEN 'stopped'
    WHEN decided_by = 'headless' OR outcome = 'prompt' THEN 'nobody to ask'
    WHEN decided_by = 'timeout' THEN 'nobody answered'
    ELSE 'denied by policy or setting' END"""


@filtered
def approvals_frame(**filters: Unpack[ToolFilters]) -> pd.DataFrame:
    """Return how the calls of each tool were decided, of at most 20 tools, those with most calls."""
    calls = query.view(
        "decisions",
        filters,
        costs=False,
        select=f"tool, {_ANSWER} AS answer, count(*) AS calls",
        tail="GROUP BY tool, answer ORDER BY tool, answer",
    )
    most = calls.groupby("tool", observed=True).calls.sum().sort_values(ascending=False, kind="stable").head(MAX_TOOLS)
    rank = {tool: number for number, tool in enumerate(most.index)}
    shown = calls[calls.tool.isin(most.index)].sort_values(
        "tool", key=lambda names: names.astype(object).map(rank), kind="stable"
    )
    return shown.reset_index(drop=True).astype({"answer": "category"})


def _draw_approvals(alt: Any, frame: pd.DataFrame) -> Any:
    answers = [answer for answer in ANSWERS if answer in set(frame.answer)]
    frame = frame.assign(rank=[answers.index(answer) for answer in frame.answer], tool=frame.tool.astype("string"))
    tools = list(dict.fromkeys(frame.tool))
    base = alt.Chart(frame).encode(
        y=alt.Y("tool:N", sort=tools, title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8)),
        x=alt.X("calls:Q", stack="zero", title="calls", axis=alt.Axis(tickMinStep=1)),
        order=alt.Order("rank:Q"),
        tooltip=["tool:N", "answer:N", "calls:Q"],
    )
    scale = alt.Scale(domain=answers, range=[ANSWERS[answer] for answer in answers])
    legend = alt.Legend(orient="top", columns=3, title=None)
    bars = base.mark_bar().encode(color=alt.Color("answer:N", scale=scale, legend=legend))
    total = frame.groupby("tool").calls.transform("sum")
    narrow = frame.calls < total.max() * 0.04
    inside = alt.Chart(frame.assign(number=frame.calls.astype("string").mask(narrow, "")))
    counts = inside.mark_text(color="#000", fontSize=11).encode(
        y=base.encoding.y,
        x=alt.X("calls:Q", stack="zero", bandPosition=0.5),
        order=alt.Order("rank:Q"),
        detail="answer:N",
        text="number:N",
    )
    beside = frame[narrow].assign(note=frame.calls.astype("string") + " " + frame.answer.astype("string"), total=total)
    notes = beside.groupby(["tool", "total"], observed=True).note.agg(", ".join).reset_index()
    small = alt.Chart(notes).mark_text(color=_INK, fontSize=11, align="left", dx=6)
    small = small.encode(y=base.encoding.y, x="total:Q", text="note:N")
    title = alt.TitleParams("How tool calls were decided", subtitle="calls, by who or what decided")
    parts = [bars, counts, small] if len(notes) else [bars, counts]
    return _styled(alt.layer(*parts).properties(width=_WIDTH, height=alt.Step(26), title=title))


# ---- tools -------------------------------------------------------------------------------------------------------


_QUANTILES = {"p5_s": 0.05, "p25_s": 0.25, "median_s": 0.5, "p75_s": 0.75, "p95_s": 0.95}


@filtered
def tools_frame(**filters: Unpack[ToolFilters]) -> pd.DataFrame:
    """Return how long the calls of each tool ran, in seconds, of at most 20 tools, those with most calls."""
    return query.view(
        "tool_calls",
        filters,
        costs=False,
        select="tool, count(seconds) AS calls, count(*) FILTER (outcome = 'error') AS errors, "
        + ", ".join(f"quantile_cont(seconds, {at}) AS {name}" for name, at in _QUANTILES.items())
        + ", max(seconds) AS max_s",
        tail=f"GROUP BY tool HAVING count(seconds) > 0 ORDER BY calls DESC, tool LIMIT {MAX_TOOLS}",
    )


def _draw_tools(alt: Any, frame: pd.DataFrame) -> Any:
    times = [*_QUANTILES, "max_s"]
    seconds = {name: frame[name].clip(lower=0.001) for name in times}  # the axis is logarithmic
    label = [
        f"{calls:,}, {errors:,} failed" if errors else f"{calls:,}"
        for calls, errors in zip(frame.calls, frame.errors, strict=True)
    ]
    frame = frame.assign(**seconds, tool=frame.tool.astype("string"), label=label).sort_values("median_s")
    powers = [10.0**n for n in range(-3, 6)]
    scale = alt.Scale(type="log", nice=False, domain=[frame.p5_s.min() * 0.8, frame.max_s.max() * 6])  # room for text
    x = alt.X("p5_s:Q", scale=scale, title="seconds", axis=alt.Axis(values=powers, format="~g"))
    base = alt.Chart(frame).encode(
        y=alt.Y("tool:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8)),
        tooltip=["tool:N", "label:N", *(alt.Tooltip(f"{name}:Q", format=".3~g") for name in times)],
    )
    most = base.mark_rule(color=_BLUE, strokeWidth=1.5).encode(x=x, x2="p95_s:Q")
    half = base.mark_bar(color=_BLUE, size=14).encode(x="p25_s:Q", x2="p75_s:Q")
    median = base.mark_tick(color=_ORANGE, thickness=3, size=18, opacity=1).encode(x="median_s:Q")
    longest = base.mark_point(color=_BLUE, filled=True, size=35, opacity=1).encode(x="max_s:Q")
    counts = base.mark_text(color=_INK, align="left", dx=8, fontSize=11).encode(x="max_s:Q", text="label:N")
    title = alt.TitleParams(
        "How long tools ran",
        subtitle="tick: median · bar: middle half · line: 5th to 95th of 100 · dot: longest · number of calls",
    )
    return _styled(
        alt.layer(most, half, median, longest, counts).properties(width=500, height=alt.Step(28), title=title)
    )


class Pictures:
    """The charts of the record: call one to draw it; its `frame` returns the data, and `draw` draws such data.

    Example:
        >>> mn.plot.approvals.frame(session="sales")
            tool             answer  calls
        0  shell  allowed by a rule      1
        1  shell   denied by a rule      1
        >>> chart = mn.plot.approvals(session="sales")
    """

    timeline = Picture(timeline_frame, _draw_timeline)
    cost = Picture(cost_frame, _draw_cost)
    approvals = Picture(approvals_frame, _draw_approvals)
    tools = Picture(tools_frame, _draw_tools)

    def __repr__(self) -> str:
        return "<mn.plot: timeline, cost, approvals, tools>"


plot: Pictures = Pictures()
