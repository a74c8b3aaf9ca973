"""The budgets in force, for a person: a table of them; and the limits of a turn with one of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mentra_nb import paths
from mentra_nb.agent.limits import RunOptions
from mentra_nb.amounts import Period, amounts, in_units
from mentra_nb.chat.chat import Chat
from mentra_nb.chat.engine import engine

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("period", "limit", "spent", "reserved", "left", "unit", "key")
WHY_EMPTY = "No budget is set. To set one: %config Mentra.budget_day = '2usd'"


def limits_of(chat: Chat, budget: str | None, *, plan: bool = False, without_tools: bool = False) -> RunOptions | None:
    """Return the limits of a turn in `chat` with this budget, plan, or without tools; `None`: the conversation's."""
    if budget is None and not plan and not without_tools:
        return None
    own = chat.limits or RunOptions()
    limits = replace(own, plan=plan or own.plan, without_tools=without_tools or own.without_tools)
    return limits if budget is None else replace(limits, budgets={**limits.budgets, "turn": budget})


def budgets() -> pd.DataFrame:
    """Return the budgets that are set, a row for each period and unit, and what of them is used.

    Counting begins with the first turn for which a budget is set. What a kernel that was killed had reserved counts as
    spent.

    Columns: period (`turn`: the last one of the notebook's conversation, `session`, `day`, `project`, `month`); limit,
    spent, reserved, left (float, in the unit); unit (`usd`, `tokens`, `calls`, `minutes`); key (str, which turn,
    session, day, project or month).

    Example:
        >>> len(mn.budgets())
        0
    """
    import pandas as pd

    from mentra_nb.budget.meter import key_now
    from mentra_nb.chat.api import conversation
    from mentra_nb.record.empty import or_why
    from mentra_nb.store.records import LeaseHolder

    used, chat = engine(), conversation()
    keys: dict[Period, str] = {"turn": "", "session": chat.id, "project": str(paths.project_root())}
    store, set_here = used.runtime.store, used.budgets(chat.limits or RunOptions())

    async def rows() -> list[tuple[Any, ...]]:
        if set_here:
            await store.settle_left_behind(LeaseHolder.here(used.runtime.id))
        if "turn" in set_here and (stored := await store.load_conversation(keys["session"])) is not None:
            last = await store.latest_run(stored.agent.id)
            keys["turn"] = last.id if last is not None else ""
        found = []
        for period, text in set_here.items():
            for unit, parts in amounts(text):
                key = key_now(period, keys, store.whose)
                count = await store.count_budget(period, key, unit)
                limit = parts + count.extra
                left = max(limit - count.spent - count.reserved, 0)
                numbers = (in_units(unit, each) for each in (limit, count.spent, count.reserved, left))
                found.append((period, *numbers, unit, key))
        return found

    frame = pd.DataFrame(used.call(rows), columns=list(COLUMNS))
    frame = frame.astype(dict.fromkeys(("limit", "spent", "reserved", "left"), float))
    return or_why(frame, WHY_EMPTY)
