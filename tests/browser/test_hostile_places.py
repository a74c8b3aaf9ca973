"""The whole hostile corpus in every place of a page, in both front ends and exported: text, and nothing but text.

`MENTRA_HOSTILE=apart` is the long form: each text in each place is an output of its own, and cards have three each.
"""

from __future__ import annotations

import os

import nbformat
import pytest
from kits.hostile_places import PLACES
from kits.lab import Lab, Notebook
from kits.payloads import CORPUS, LEAK
from nbconvert import HTMLExporter
from playwright.sync_api import BrowserContext, Page, expect

pytestmark = pytest.mark.browser

APART = os.environ.get("MENTRA_HOSTILE") == "apart"
BEGIN = "from kits.notebooks import BEGIN\nexec(BEGIN)\nfrom kits import hostile_places as places\n"
LIVE = (
    "some = list(places.CORPUS.values())\nmn.deny('shell')\n"
    "script(s.tool_calls([s.ScriptedCall(bad, {bad: bad}, f'c{n}') for n, bad in enumerate(some[::16])]),"
    "       s.tool_calls([s.ScriptedCall('shell', {'command': bad}, f'd{n}') for n, bad in enumerate(some[8::16])]),"
    "       s.stream_text(bad + '\\n\\n' for bad in some))"
)
CARDS = 3 if APART else 64
"""Hostile texts on one card."""
MARKS = "() => Object.keys(window).filter(name => name.startsWith('P_')).sort()"
OPEN_ALL = """() => { document.querySelectorAll('.jp-OutputArea details').forEach(each => { each.open = true; }); }"""
CLICK_ALL = """() => {
  for (const area of document.querySelectorAll('.jp-OutputArea-output')) {
    for (const link of area.querySelectorAll('a')) if (!/^(https?|mailto):/.test(link.href)) link.click();
    if (!area.querySelector('.mentra-card')) for (const button of area.querySelectorAll('button')) button.click();
  }
}"""
# Of outputs apart from cards, whose own buttons and fields are there, and from pictures.
LIVE_ELEMENTS = """() => [...document.querySelectorAll('.jp-OutputArea-output')]
  .filter(area => !area.querySelector('.mentra-card'))
  .flatMap(area => [...area.querySelectorAll(
    'img, script, iframe, button, form, video, audio, input, svg, object, embed, math a, link, meta, base, ' +
    'mjx-container, .MathJax, .jp-RenderedMermaid, [onerror], [onload], [onclick], [style*="url("]')])
  .map(found => found.outerHTML.slice(0, 200))"""
# Points at each mark of each chart. Returns the texts of the tooltips, and the names of the elements in them.
TOOLTIPS = """() => {
  const texts = new Set(), names = new Set();
  const marks = ['rect', 'symbol'].map(kind => `.vega-embed svg.marks .mark-${kind} path`).join();
  for (const mark of document.querySelectorAll(marks)) {
    const { left, top } = mark.getBoundingClientRect();
    const at = { clientX: left + 1, clientY: top + 1, bubbles: true };
    mark.dispatchEvent(new PointerEvent('pointermove', at));
    mark.dispatchEvent(new MouseEvent('mousemove', at));
    const shown = document.querySelector('#vg-tooltip-element.visible');
    if (shown === null) continue;
    for (const value of shown.querySelectorAll('td.value')) texts.add(value.textContent);
    for (const each of shown.querySelectorAll('*')) names.add(each.tagName);
  }
  return [[...texts], [...names].sort()];
}"""
CARD_ELEMENTS = """() => [...document.querySelectorAll('.mentra-card')].flatMap(card => [...card.querySelectorAll(
  'a, img, script, iframe, video, audio, svg, object, embed, link, meta, style, [onerror], [onload], [onclick]')])
  .map(found => found.outerHTML.slice(0, 200))"""


def watched(page: Page) -> list[str]:
    """Return what the page asks for that no page of ours needs; nothing of it is sent."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "nope" in request.url else None)
    page.on("dialog", lambda dialog: dialog.dismiss())

    def refuse(route: object, request: object) -> None:
        asked.append(request.url)  # type: ignore[attr-defined]
        route.abort()  # type: ignore[attr-defined]

    page.route(f"{LEAK}/**", refuse)
    return asked


def unfold_cards(notebook: Notebook) -> None:
    """Open what the cards fold: the patterns of *Always…* and the fields of *Change…*."""
    for name in ("Always…", "Change…"):
        for button in notebook.page.locator(".mentra-card").get_by_role("button", name=name, exact=True).all():
            button.click()


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_hostile_text_is_text_in_every_place(lab: Lab, browser: BrowserContext, app: str) -> None:
    page = browser.new_page()
    asked = watched(page)
    shown = [f"places.show({place!r}, apart={APART})" for place in PLACES]
    sources = [BEGIN + LIVE, "%%mentra -v\nbe hostile", *shown, f"places.cards({CARDS})"]
    sources += ["print(*places.CORPUS.values(), sep='\\n')", "print('LAST')", "raise places.Hostile"]
    notebook = lab.open(browser, *sources, app=app, page=page)
    notebook.run_all(wait=True)
    last = len(sources) - 2
    notebook.output(last).get_by_text("LAST").wait_for()
    expect(notebook.output(last + 1)).to_contain_text("window.P_script=1")
    expect(notebook.output(1)).to_contain_text("<script>window.P_script=1</script>")
    count = -(-len(CORPUS) // CARDS)
    expect(page.locator(".mentra-card")).to_have_count(count)
    page.evaluate(OPEN_ALL)
    unfold_cards(notebook)
    page.evaluate(CLICK_ALL)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)  # for code that would run late, of which there is no sign to wait for
    assert page.evaluate(MARKS) == []
    assert asked == []
    assert page.evaluate(LIVE_ELEMENTS) == []
    assert page.evaluate(CARD_ELEMENTS) == []
    assert page.locator(".jp-Notebook .jp-Cell").count() == len(sources)
    errors = page.locator('.jp-OutputArea [data-mime-type="application/vnd.jupyter.error"]')
    assert errors.count() <= 1, errors.first.inner_text()
    notebook.saved()
    notebook.close()

    exported, _ = HTMLExporter().from_notebook_node(nbformat.reads(notebook.path.read_text(), 4))
    assert "P_more9" in exported
    page = browser.new_page()
    asked = watched(page)
    page.route("http://**", lambda route: route.abort())
    page.route("https://**", lambda route: route.abort())
    page.set_content(exported, wait_until="load")
    page.evaluate(CLICK_ALL)
    page.wait_for_timeout(1000)
    assert page.evaluate(MARKS) == []
    assert [url for url in asked if "leak.invalid" in url or "nope" in url] == []
    page.close()


@pytest.mark.parametrize("app", ["lab", "notebook"] if APART else ["lab"])
def test_hostile_text_is_text_in_the_charts_of_the_record_and_their_tooltips(
    lab: Lab, browser: BrowserContext, app: str
) -> None:
    page = browser.new_page()
    asked = watched(page)
    notebook = lab.open(browser, "from kits import hostile_places as places\nplaces.plots()", app=app, page=page)
    notebook.run_all(wait=True)
    expect(page.locator(".vega-embed svg.marks")).to_have_count(4, timeout=60_000)
    texts, names = page.evaluate(TOOLTIPS)
    assert len(texts) > len(CORPUS)  # all of it, and what is not hostile
    assert names == ["TABLE", "TBODY", "TD", "TR"]
    page.wait_for_load_state("networkidle")
    assert page.evaluate(MARKS) == []
    assert asked == []
    notebook.close()
