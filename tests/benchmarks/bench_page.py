"""What a long answer costs the page: `python tests/benchmarks/bench_page.py [DELTAS_A_SECOND …]`.

A real JupyterLab in a headless Chromium shows an answer of 100 kB in 5,000 deltas, with 45 headings, lists and blocks
of code. For each rate (by default 500 and 100): megabytes and messages of the iopub channel that reach the page, the
longest task of the browser and the number of tasks of 50 ms or more, and the slowest frame but one in a hundred.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from kits.lab import Lab, chromium, lab_server
from playwright.sync_api import BrowserContext, expect

DELTAS = 5_000
CHARACTERS = 20
"""Of one delta."""

SETUP = f"""
from kits.notebooks import BEGIN
exec(BEGIN)
import threading
SECTION = '''## Section {{n}}

The *quick* fox number {{n}} jumps over the lazy dog, and then it goes on with `code` and **strong** words. ''' + (
    'It runs along the hedge, under the gate and over the hill to the far side of the wood. ' * 12) + '''

- one thing of section {{n}}
- another thing, somewhat longer than the first
- a third

```python
def section_{{n}}(rows: list[int]) -> int:
    "Return the sum of the rows that are even."
    total = 0
    for row in rows:
        if row % 2 == 0:
            total += row
    return total
```

''' + 'What follows is a paragraph of plain words that says little, but says it at some length. ' * 6 + '''

'''
TEXT = ''.join(SECTION.replace('{{n}}', str(n)) for n in range(200))[:{DELTAS * CHARACTERS}]
def paced(rate):
    stream = silent('')
    def send():
        began = time.monotonic()
        for n in range({DELTAS}):
            time.sleep(max(0.0, began + n / rate - time.monotonic()))
            stream.send(ContentBlockDelta(0, TEXT[n * {CHARACTERS} : (n + 1) * {CHARACTERS}]))
        stream.send(*s.text('x').events[-3:])
        stream.finish()
    threading.Thread(target=send, daemon=True).start()
    return stream
"""
WATCH = """() => {
  window.tasks = []; window.frames_ = [];
  new PerformanceObserver(list => window.tasks.push(...list.getEntries().map(e => [e.startTime, e.duration])))
    .observe({entryTypes: ['longtask']});
  let last = performance.now();
  const frame = now => { window.frames_.push(now - last); last = now; requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
}"""


class Wire:
    """Counts the messages of the iopub channel among the frames of a page's sockets."""

    def __init__(self, page: Any) -> None:
        self.messages = self.size = 0
        page.on("websocket", lambda socket: socket.on("framereceived", self._count))

    def _count(self, frame: str | bytes) -> None:
        # The protocol v1.kernel.websocket.jupyter.org: a count of offsets, the offsets, then the name of the channel.
        if isinstance(frame, bytes):
            first, second = (int.from_bytes(frame[8 * n : 8 * n + 8], "little") for n in (1, 2))
            if frame[first:second] == b"iopub":
                self.messages += 1
                self.size += len(frame)


def measure(lab: Lab, browser: BrowserContext, rate: int) -> None:
    page = browser.new_page()
    wire = Wire(page)
    notebook = lab.open(browser, f"{SETUP}\nscript(paced({rate}))", "%%mentra\nwrite", page=page)
    notebook.run(0)
    expect(notebook.prompt(0)).to_have_text("[1]:", timeout=60_000)
    page.evaluate(WATCH)
    wire.messages = wire.size = 0
    notebook.run(1)
    expect(notebook.prompt(1)).to_have_text("[2]:", timeout=240_000)
    page.wait_for_timeout(3_000)  # what the page does after the end counts as well
    tasks = sorted((round(duration), round(start)) for start, duration in page.evaluate("window.tasks"))
    frames = sorted(page.evaluate("window.frames_"))
    print(
        f"{rate:>4} deltas/s   {wire.size / 1e6:5.2f} MB in {wire.messages:4} messages   "
        f"longest tasks {[duration for duration, _ in tasks[-3:]]} ms of {len(tasks)}   "
        f"p99 frame {frames[int(len(frames) * 0.99)]:.0f} ms   "
        f"{notebook.output(1).locator('h2').count()} headings in {notebook.output(1).locator('.mentra-text').count()} "
        "outputs",
        flush=True,
    )
    notebook.close()


def main(rates: list[int]) -> None:
    with lab_server() as lab, chromium() as browser:
        for rate in rates:
            measure(lab, browser, rate)


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [500, 100])
