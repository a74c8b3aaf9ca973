"""Random budgets of maps: whatever an answer costs, and however many requests are under way, none is crossed.

`MENTRA_FAULT_BUDGETS` is the number of budgets (default 40; 1000 in the long form).
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from kits.row_models import RowModel

import mentra_nb as mn
from mentra_nb.chat.engine import engine
from mentra_nb.content import TokenUsage
from mentra_nb.paths import record_folder

RUNS = int(os.environ.get("MENTRA_FAULT_BUDGETS", "40"))
INPUT, OUTPUT = 2.0, 10.0
"""US dollars per million tokens."""


class Costly(RowModel):
    """Each answer has another usage, within what its request allows; `used` has all of them."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance, self.used = chance, list[TokenUsage]()

    @property
    def usage(self) -> TokenUsage:
        chance = self.chance
        sent = chance.randint(1, 60)
        answered = chance.choice([chance.randint(1, 50), chance.randint(1, 8192), 8192])
        made = TokenUsage(input_tokens=sent, output_tokens=answered)
        self.used.append(made)
        return made

    @usage.setter
    def usage(self, value: TokenUsage) -> None:
        return

    def tokens(self) -> int:
        return sum((each.input_tokens or 0) + (each.output_tokens or 0) for each in self.used)

    def usd(self) -> float:
        sums = [(each.input_tokens or 0) * INPUT + (each.output_tokens or 0) * OUTPUT for each in self.used]
        return sum(sums) / 1e6


@pytest.mark.timeout(120 + RUNS)
def test_no_budget_is_ever_crossed(model: RowModel) -> None:
    folder = Path(record_folder())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prices.csv").write_text(f"provider,model,input_mtok,output_mtok\nrows,m,{INPUT},{OUTPUT}\n")
    stopped = 0
    for seed in range(RUNS):
        chance = random.Random(seed)
        costly = Costly(chance)
        engine().use(costly, "m")
        limits = {"usd": round(chance.uniform(0.05, 1.0), 4), "tokens": chance.randint(9_000, 100_000)}
        units = chance.choice([["usd"], ["tokens"], ["usd", "tokens"]])
        budget = ", ".join(f"{limits[unit]}{unit}" for unit in units)
        workers = chance.choice([1, 4, 16])
        found = mn.map("{value}", [f"{seed} {n}" for n in range(40)], budget=budget, workers=workers, progress=False)
        assert costly.usd() <= limits["usd"] or "usd" not in units, (seed, budget)
        assert costly.tokens() <= limits["tokens"] or "tokens" not in units, (seed, budget)
        assert len(costly.used) == len(costly.requests) == found.answer.notna().sum()
        stopped += found.answer.isna().any()
    assert stopped > 0
