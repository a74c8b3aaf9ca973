"""Hostile text in a trusted JupyterLab page: it runs elsewhere, and not in pictures and frames of ours."""

from __future__ import annotations

from dataclasses import dataclass

import nbformat
import pytest
from kits.lab import Lab
from kits.payloads import LEAK, PAYLOADS
from nbconvert import HTMLExporter
from playwright.sync_api import BrowserContext

pytestmark = pytest.mark.browser

UNSAFE = (
    "from kits.payloads import PAYLOADS\ndisplay({{'text/markdown': PAYLOADS[{name!r}], 'text/plain': ''}}, raw=True)"
)
MARKS = "() => Object.keys(window).filter(name => name.startsWith('P_')).sort()"
CLICK_ALL = """area => {
  for (const link of area.querySelectorAll('a')) if (!/^(https?|mailto):/.test(link.href)) link.click();
  for (const button of area.querySelectorAll('button')) if (!button.closest('form')) button.click();
}"""


@dataclass
class Seen:
    ran: set[str]
    fetched: set[str]
    cells_added: int
    live: int
    formulas: int
    errors: int


def show(lab: Lab, browser: BrowserContext, source: str) -> Seen:
    """Show each payload in one cell, click everything in it, and return what happened."""
    page, fetched = browser.new_page(), set[str]()

    def refuse(route: object, request: object) -> None:
        fetched.add(request.url)  # type: ignore[attr-defined]
        route.abort()  # type: ignore[attr-defined]

    page.route(f"{LEAK}/**", refuse)
    page.on("dialog", lambda dialog: dialog.dismiss())
    notebook = lab.open(browser, *(source.format(name=name) for name in PAYLOADS), "print('LAST')", page=page)
    notebook.run_all(wait=True)
    notebook.output(len(PAYLOADS)).get_by_text("LAST").wait_for()
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    for n in range(len(PAYLOADS)):
        notebook.output(n).evaluate(CLICK_ALL)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)  # for code that would run late, of which there is no sign to wait for
    seen = Seen(
        ran=set(page.evaluate(MARKS)),
        fetched=fetched,
        cells_added=page.locator(".jp-Notebook .jp-Cell").count() - cells,
        live=page.locator(".jp-OutputArea").locator("img, script, iframe, button, form, video, input").count(),
        formulas=page.locator(".jp-OutputArea").locator("mjx-container, .MathJax, .jp-RenderedMermaid").count(),
        errors=page.locator('.jp-OutputArea [data-mime-type="application/vnd.jupyter.error"]').count(),
    )
    notebook.close()
    return seen


@pytest.fixture(scope="module")
def unsafe(lab: Lab, browser: BrowserContext) -> Seen:
    return show(lab, browser, UNSAFE)


def test_the_payloads_do_fire_where_nothing_stops_them(unsafe: Seen) -> None:
    assert {"P_script", "P_imgonerror", "P_info"} <= unsafe.ran
    assert any("md.png" in url for url in unsafe.fetched)
    assert unsafe.cells_added
    assert unsafe.live
    assert unsafe.formulas
    assert unsafe.errors == 0


BEGIN = "from kits.notebooks import BEGIN\nexec(BEGIN)\n"
HOSTILE = "ls</script><script>window.P_picture=1</script><img src=nope onerror='window.P_frame=1'> $x^2$"


def test_pictures_and_frames_of_hostile_calls_run_nothing(lab: Lab, browser: BrowserContext) -> None:
    """A model's command, a tool it invents and a prompt, drawn and tabled on the page and in its export to HTML."""
    sources = [
        f"{BEGIN}H = {HOSTILE!r}\nmn.deny('shell')\n"
        "script(shell(H), s.tool_calls([s.ScriptedCall(H, {'x': H}, 'c2')]), s.text('done'))\n"
        "get_ipython().run_line_magic('mentra', '-- ' + H)",
        *(f"mn.plot.{name}()" for name in ("timeline", "cost", "approvals", "tools")),
        "mn.turns()[['prompt']]",
        "mn.tool_calls()[['tool', 'input']].head(5)",
        "mn.messages()",
        "print('LAST')",
    ]
    page = browser.new_page()
    notebook = lab.open(browser, *sources, page=page)
    notebook.run_all(wait=True)
    notebook.output(len(sources) - 1).get_by_text("LAST").wait_for()
    page.wait_for_timeout(1000)  # for code that would run late, of which there is no sign to wait for
    errors = page.locator('.jp-OutputArea [data-mime-type="application/vnd.jupyter.error"]')
    assert errors.count() == 0, errors.first.inner_text()
    assert page.evaluate(MARKS) == []
    frames = page.locator(".jp-OutputArea table.dataframe")
    assert frames.count() == 3
    assert page.locator(".jp-OutputArea").locator("mjx-container, .MathJax").count() == 0
    document = notebook.saved()
    notebook.close()
    assert "P_picture" in str(document["cells"][1]["outputs"])

    exported, _ = HTMLExporter().from_notebook_node(nbformat.reads(notebook.path.read_text(), 4))
    page = browser.new_page()
    page.route("**/*", lambda route: route.abort())
    page.set_content(exported, wait_until="load")
    page.wait_for_timeout(1000)
    assert page.evaluate(MARKS) == []
    page.close()
