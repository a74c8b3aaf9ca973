"""How long a notebook of 50 long turns takes to open: `python tests/benchmarks/bench_open.py [TIMES]`.

A real JupyterLab in a headless Chromium opens two saved notebooks, in turn: 50 turns with their calls as the view saves
them, and the same text as 50 Markdown cells. The time is from the address to the end of the notebook being on the page,
without a trusted kernel. Medians in seconds, and how many times as long the turns take.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import nbformat
from kits.hostile_places import Page
from kits.lab import Lab, chromium, lab_server
from nbformat import v4
from playwright.sync_api import BrowserContext, expect

from mentra_nb.event import screen
from mentra_nb.notebook.view import TurnView

TURNS = 50
PARAGRAPH = "It runs along the *hedge*, under the gate and over the hill to the far side of `the_wood`. " * 6
SECTION = f"""## Section {{n}}

{PARAGRAPH}

| month | amount |
|---|---:|
| 2026-02 | 1200 |
| 2026-03 | 2400 |

```python
def total(amounts: list[float]) -> float:
    return sum(amount for amount in amounts if amount > {{n}})
```

"""
TEXT = "".join(SECTION.replace("{n}", str(n)) for n in range(8))
COMMAND = "for f in *.csv; do wc -l $f; done"
OUTPUT = "".join(f"{n:6} sales-{n}.csv\n" for n in range(60))
LAST = "That was the last of turn {n}."
AT_END = """async () => {
  const shell = window.jupyterapp.shell, widget = shell.currentWidget;
  await widget.context.ready; await widget.revealed;
  await widget.content.scrollToItem(widget.content.widgets.length - 1, 'end');
}"""


def turn(number: int) -> list[nbformat.NotebookNode]:
    """Return the outputs that a long turn with three calls leaves."""
    page = Page()
    view = TurnView(page, live=True, hz=1e9)
    for each in range(3):
        call = {"tool_call_id": f"c{each}", "tool_name": "shell"}
        view.handle(
            screen.ToolQueued(**call, summary="", mutability="unknown", input_json=json.dumps({"command": COMMAND}))
        )
        view.handle(screen.ToolStarted(**call))
        view.handle(screen.ToolCompleted(**call, summary="", output=OUTPUT, is_error=False, duration_ms=200))
    for text in (TEXT, LAST.format(n=number)):
        view.handle(screen.AssistantTokenDelta(delta=text))
    view.finish(model="m", seconds=3.0)
    return [v4.new_output("display_data", data=data) for data in page.outputs.values()]


def notebooks() -> dict[str, nbformat.NotebookNode]:
    calls = f"```\n{COMMAND}\n{OUTPUT}```\n\n" * 3
    turns = [v4.new_code_cell("%%mentra\ngo on", outputs=turn(n), execution_count=n + 1) for n in range(TURNS)]
    cells = [v4.new_markdown_cell(calls + TEXT + LAST.format(n=n)) for n in range(TURNS)]
    return {"turns": v4.new_notebook(cells=turns), "markdown": v4.new_notebook(cells=cells)}


def seconds(lab: Lab, browser: BrowserContext, name: str, number: int) -> float:
    """Return how long a notebook takes to open, in a workspace of its own."""
    page = browser.new_page()
    began = time.perf_counter()
    page.goto(f"{lab.url}/lab/workspaces/{name}{number}/tree/{name}.ipynb")
    page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.context?.isReady", timeout=120_000)
    page.evaluate(AT_END)
    expect(page.get_by_text(LAST.format(n=TURNS - 1))).to_be_visible(timeout=120_000)
    took = time.perf_counter() - began
    page.close()
    return took


def main(times: int = 5) -> None:
    with lab_server() as lab, chromium() as browser:
        made = notebooks()
        for name, notebook in made.items():
            nbformat.write(notebook, lab.root / f"{name}.ipynb")
            seconds(lab, browser, name, -1)  # what the browser keeps of the page is there from then on
        found = {name: [] for name in made}
        for number in range(times):
            for name, taken in found.items():
                taken.append(seconds(lab, browser, name, number))
        size = {name: (lab.root / f"{name}.ipynb").stat().st_size for name in made}
    for name, taken in found.items():
        spread = f"{min(taken):.2f} to {max(taken):.2f} s"
        print(f"{name:9} {statistics.median(taken):6.2f} s   {size[name] / 1e6:.1f} MB   {spread}")
    print(f"{statistics.median(found['turns']) / statistics.median(found['markdown']):.2f} times as long")


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
