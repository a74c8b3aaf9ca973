"""Pictures of the record, `mn.plot`: `timeline`, `cost`, `approvals` and `tools`, each drawn from a documented frame.

`mn.plot.cost()` draws, `mn.plot.cost.frame()` is what it draws, and `mn.plot.cost.draw(frame)` draws such a frame after
one has changed it. What comes back is an Altair chart, to be changed, saved or put beside others like any. Colours and
texts hold on light and on dark pages, and nothing is told by colour alone. Needs `pip install 'mentra-nb[plots]'`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec

import pandas as pd

from mentra_nb.errors import ConfigurationError
from mentra_nb.record.read import frames, query
from mentra_nb.record.read.query import One, When

if TYPE_CHECKING:
    import altair as alt

P = ParamSpec("P")

MAX_TURNS, MAX_SPANS, MAX_BARS, MAX_SERIES, MAX_TOOLS = 30, 2000, 62, 7, 20
"""A picture shows no more of each: later turns, spans of time, bars along an axis, models of their own, tools."""

_INK = "#7c7c7c"
_BLUE, _ORANGE, _GREEN, _RED = "#3f8fd8", "#d9730d", "#2e9e5b", "#d94a55"
_PURPLE, _TEAL, _PINK, _GRAY = "#9a6dd7", "#1f9aa8", "#cb5a9d", "#8a8a8a"
_SERIES = (_BLUE, _ORANGE, _TEAL, _PURPLE, _GREEN, _PINK, _RED, _GRAY)


class Picture(Generic[P]):
    """A picture: call it to draw, `frame` is its data, `draw` draws other data with the same columns."""

    def __init__(self, frame: Callable[P, pd.DataFrame], draw: Callable[[Any, pd.DataFrame], Any]) -> None:
        self.frame = frame
        self._draw = draw
        update_wrapper(self, frame)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> alt.TopLevelMixin:
        """Raises `ConfigurationError` if Altair is not there."""
        return self.draw(self.frame(*args, **kwargs))

    def draw(self, frame: pd.DataFrame) -> alt.TopLevelMixin:
        try:
            import altair
        except ImportError as error:
            raise ConfigurationError("pictures need Altair: pip install 'mentra-nb[plots]'") from error
        drawn: alt.TopLevelMixin = self._draw(altair, frame) if len(frame) else _nothing(altair)
        return drawn


def _styled(chart: Any) -> Any:
    """No background of its own; what it is written with stands out from a light page and from a dark one."""
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
    return _styled(alt.Chart(note).mark_text(color=_INK, fontSize=13).encode(text="note:N").properties(width=560))


def _shortened(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


# ---- timeline ----------------------------------------------------------------------------------------------------

_SPANS = """
    WITH asked AS (
        SELECT run_id, ts AS began, prompt, ms, row_number() OVER (ORDER BY ts) AS turn FROM turns
    ), spans AS (
        SELECT run_id, 'model' AS lane, model AS what, NULL AS detail, status, ts, seconds FROM model_calls
        UNION ALL
        SELECT run_id, 'person', tool, subject, outcome, ts, wait_s FROM decisions WHERE request_id IS NOT NULL
        UNION ALL
        SELECT e.run_id, 'tool', c.tool, c.subject, c.status, e.ts - to_milliseconds(c.ms), c.ms / 1000.0
        FROM tool_calls c JOIN events e ON e.call_id = c.call_id AND e.run_id = c.run_id
            AND e.kind = 'tool_execution_finished' WHERE c.ms IS NOT NULL
        UNION ALL
        SELECT run_id, 'tool', tool, subject, status, ts + to_milliseconds((coalesce(wait_s, 0) * 1000)::BIGINT), 0
        FROM tool_calls WHERE ms IS NULL
    )
    SELECT a.turn, a.run_id, a.prompt, s.lane, s.what, s.detail, s.status,
        greatest(epoch(s.ts) - epoch(a.began), 0) AS start_s,
        greatest(epoch(s.ts) - epoch(a.began), 0) + coalesce(s.seconds, 0) AS end_s, a.ms / 1000.0 AS turn_s
    FROM asked a LEFT JOIN spans s USING (run_id)
    WHERE a.turn > (SELECT max(turn) FROM asked) - ?
    ORDER BY a.turn, start_s, s.lane LIMIT ?
"""


def timeline_frame(session: str | None = None, *, turns: int = MAX_TURNS, folder: Path | None = None) -> pd.DataFrame:
    """What a session's time went into: a row per answer of a model, wait for a person, and run of a tool.

    `session` is an id or a name, by default the latest session; of one with more, the last `turns` are taken.

    Raises:
        ConfigurationError: there is no such session.
    """
    if session is None:
        known = frames.sessions(folder=folder).session_id.dropna()
        session = known.iloc[-1] if len(known) else ""
    with query.connection(folder, costs=False, session=session) as con:
        spans = query.frame(con, _SPANS, [turns, MAX_SPANS], categories=False)
    if session and spans.empty:
        raise ConfigurationError(f"{session!r} is no session with a turn: mn.sessions() lists them")
    return spans.astype({"lane": "category", "what": "category", "status": "category"})


def _draw_timeline(alt: Any, frame: pd.DataFrame) -> Any:
    frame = frame.assign(
        label=[f"{turn}  {_shortened(str(prompt), 46)}" for turn, prompt in zip(frame.turn, frame.prompt, strict=True)],
        seconds=frame.end_s - frame.start_s,
        lane=frame.lane.astype("string"),
    )
    lanes = alt.Scale(domain=["model", "person", "tool"], range=[_BLUE, _ORANGE, _GREEN])
    y = alt.Y("label:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8))
    offset = alt.YOffset("lane:N", scale=alt.Scale(domain=["model", "person", "tool"], paddingInner=0.15))
    told = [
        alt.Tooltip("prompt:N", title="turn"),
        "lane:N",
        "what:N",
        "detail:N",
        "status:N",
        alt.Tooltip("seconds:Q", format=".2f", title="seconds"),
    ]
    base = alt.Chart(frame).encode(y=y, tooltip=told)
    bars = (
        base.transform_filter("isValid(datum.lane)")
        .mark_bar(strokeWidth=1.5)  # a stroke, for what took no time shows too
        .encode(
            x=alt.X("start_s:Q", title="seconds since the question", axis=alt.Axis(tickCount=8)),
            x2="end_s:Q",
            yOffset=offset,
            color=alt.Color("lane:N", scale=lanes, title=None, legend=alt.Legend(orient="top")),
            stroke=alt.Stroke("lane:N", scale=lanes, legend=None),
            fillOpacity=alt.condition("datum.status == 'error'", alt.value(0.1), alt.value(1)),
        )
    )
    ends = (
        base.encode(x="turn_s:Q")
        .transform_filter("isValid(datum.turn_s)")
        .mark_tick(color=_INK, thickness=2, opacity=1)
    )
    bad = (
        base.transform_filter("datum.lane == 'tool' && (datum.status == 'denied' || datum.status == 'error')")
        .mark_text(align="left", dx=5, color=_RED, fontSize=11, fontWeight="bold")
        .encode(x="end_s:Q", yOffset=offset, text=alt.Text("status:N"))
    )
    title = alt.TitleParams(
        "Where the time of each turn went", subtitle="a hollow bar failed; a line marks the end of a turn"
    )
    height = alt.Step(11)
    return _styled(alt.layer(bars, ends, bad).properties(width=560, height=height, title=title))


# ---- cost --------------------------------------------------------------------------------------------------------

_COST = """
    WITH spent AS (
        SELECT date_trunc($period, day)::DATE AS period, provider, model, count(*) AS responses,
            sum(tokens)::BIGINT AS tokens, sum(cost_usd) AS cost_usd, count(cost_usd) AS known
        FROM usage GROUP BY ALL
    ), ranked AS (
        SELECT provider, model, row_number() OVER (ORDER BY sum(cost_usd) DESC NULLS LAST, sum(tokens) DESC) AS rank
        FROM spent GROUP BY provider, model
    )
    SELECT period,
        CASE WHEN rank <= $most THEN concat_ws('/', spent.provider, spent.model) ELSE 'other models' END AS model,
        sum(responses)::BIGINT AS responses, sum(tokens)::BIGINT AS tokens, sum(cost_usd) AS cost_usd,
        sum(known) / sum(responses) AS priced
    FROM spent JOIN ranked ON ranked.provider IS NOT DISTINCT FROM spent.provider
        AND ranked.model IS NOT DISTINCT FROM spent.model
    GROUP BY ALL ORDER BY period, min(rank)
"""


def cost_frame(
    period: Literal["day", "week", "month"] | None = None,
    *,
    session: One = None,
    since: When = None,
    until: When = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """What each model cost in each day, week or month (UTC). Without `period`, the finest that makes up to 62 bars."""
    with query.connection(folder, session=session, since=since, until=until) as con:
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
    told = ["period:O", "model:N", "responses:Q", "tokens:Q", "cost_usd:Q", alt.Tooltip("priced:Q", format=".0%")]
    bars = alt.Chart(frame).mark_bar().encode(x=x, color=color, order=order, tooltip=told)
    known = float((frame.priced * frame.responses).sum() / max(frame.responses.sum(), 1))
    panels = [bars.encode(y=alt.Y("tokens:Q", title="tokens", axis=alt.Axis(tickCount=4, format="~s")))]
    title = alt.TitleParams("Tokens by model", subtitle="no price is known for any of these models")
    if frame.cost_usd.notna().any():
        panels.insert(0, bars.encode(y=alt.Y("cost_usd:Q", title="US dollars", axis=alt.Axis(tickCount=4))))
        unknown = "" if known == 1 else f"; of {1 - known:.0%} of the responses the price is not known, and not in it"
        title = alt.TitleParams("Cost and tokens by model", subtitle=f"UTC{unknown}")
    sized = [panel.properties(width=560, height=150) for panel in panels]
    return _styled(alt.vconcat(*sized, spacing=12, title=title))


# ---- approvals ---------------------------------------------------------------------------------------------------

ANSWERS = {
    "allowed by a person": _BLUE,
    "allowed by a rule": _TEAL,
    "allowed by a setting": _GRAY,
    "denied by a person": _RED,
    "denied by a rule": _ORANGE,
    "denied by policy or setting": _PINK,
    "nobody answered": _PURPLE,
    "pending": "#a8892c",
}
"""How a call can have been decided, with its colour."""

_ANSWER = """CASE WHEN outcome = 'pending' THEN 'pending'
    WHEN outcome = 'allow' THEN CASE WHEN decided_by = 'user' THEN 'allowed by a person'
        WHEN decided_by LIKE 'rule:%' THEN 'allowed by a rule' ELSE 'allowed by a setting' END
    WHEN decided_by = 'user' THEN 'denied by a person'
    WHEN decided_by LIKE 'rule:%' THEN 'denied by a rule'
    WHEN decided_by IN ('timeout', 'headless', 'cancelled') OR outcome = 'prompt' THEN 'nobody answered'
    ELSE 'denied by policy or setting' END"""


def approvals_frame(
    *,
    session: One = None,
    tool: One = None,
    since: When = None,
    until: When = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """How the calls of each tool were decided; of more than 20 tools, the most called ones."""
    calls = query.view(
        "decisions",
        folder=folder,
        session=session,
        since=since,
        until=until,
        tool=tool,
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
    wide = frame.groupby("tool").calls.sum().max() * 0.04
    counts = base.transform_filter(alt.datum.calls >= float(wide)).mark_text(color="#000", fontSize=11)
    counts = counts.encode(x=alt.X("calls:Q", stack="zero", bandPosition=0.5), text="calls:Q")
    title = alt.TitleParams("How tool calls were decided", subtitle="calls, by who or what decided")
    return _styled(alt.layer(bars, counts).properties(width=560, height=alt.Step(26), title=title))


# ---- tools -------------------------------------------------------------------------------------------------------


def tools_frame(
    *,
    session: One = None,
    tool: One = None,
    since: When = None,
    until: When = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """How long the calls of each tool ran, in milliseconds; of more than 20 tools, the most called ones."""
    quantiles = {"p5_ms": 0.05, "p25_ms": 0.25, "median_ms": 0.5, "p75_ms": 0.75, "p95_ms": 0.95}
    return query.view(
        "tool_calls",
        folder=folder,
        session=session,
        since=since,
        until=until,
        tool=tool,
        costs=False,
        select="tool, count(ms) AS calls, count(*) FILTER (status = 'error') AS errors, "
        + ", ".join(f"quantile_cont(ms, {at}) AS {name}" for name, at in quantiles.items())
        + ", max(ms)::BIGINT AS max_ms",
        tail=f"GROUP BY tool HAVING count(ms) > 0 ORDER BY calls DESC, tool LIMIT {MAX_TOOLS}",
    )


def _draw_tools(alt: Any, frame: pd.DataFrame) -> Any:
    times = ["p5_ms", "p25_ms", "median_ms", "p75_ms", "p95_ms", "max_ms"]
    seconds = {name: frame[name].astype("float64").clip(lower=1) / 1000 for name in times}  # the axis is logarithmic
    said = [
        f"{calls:,}, {errors:,} failed" if errors else f"{calls:,}"
        for calls, errors in zip(frame.calls, frame.errors, strict=True)
    ]
    frame = frame.assign(**seconds, tool=frame.tool.astype("string"), said=said).sort_values("median_ms")
    powers = [10.0**n for n in range(-3, 6)]
    scale = alt.Scale(type="log", nice=False, domain=[frame.p5_ms.min() * 0.8, frame.max_ms.max() * 6])  # room for text
    x = alt.X("p5_ms:Q", scale=scale, title="seconds", axis=alt.Axis(values=powers, format="~g"))
    base = alt.Chart(frame).encode(
        y=alt.Y("tool:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8)),
        tooltip=["tool:N", "said:N", *(alt.Tooltip(f"{name}:Q", format=".3~g") for name in times)],
    )
    most = base.mark_rule(color=_BLUE, strokeWidth=1.5).encode(x=x, x2="p95_ms:Q")
    half = base.mark_bar(color=_BLUE, size=14).encode(x="p25_ms:Q", x2="p75_ms:Q")
    median = base.mark_tick(color=_ORANGE, thickness=3, size=18, opacity=1).encode(x="median_ms:Q")
    longest = base.mark_point(color=_BLUE, filled=True, size=35, opacity=1).encode(x="max_ms:Q")
    counts = base.mark_text(color=_INK, align="left", dx=8, fontSize=11).encode(x="max_ms:Q", text="said:N")
    title = alt.TitleParams(
        "How long tools ran",
        subtitle="tick: median · bar: middle half · line: 5th to 95th of 100 · dot: longest · number of calls",
    )
    return _styled(
        alt.layer(most, half, median, longest, counts).properties(width=500, height=alt.Step(28), title=title)
    )


class Pictures:
    """The pictures of the record: call one to draw it; its `frame` is the data, and `draw` draws data of that form."""

    timeline = Picture(timeline_frame, _draw_timeline)
    cost = Picture(cost_frame, _draw_cost)
    approvals = Picture(approvals_frame, _draw_approvals)
    tools = Picture(tools_frame, _draw_tools)


plot: Pictures = Pictures()
