"""A notebook that JupyterLab does not trust: it takes tags and styles out of outputs, and the answers stay readable."""

from __future__ import annotations

import json

import pytest
from kits.lab import Lab
from playwright.sync_api import BrowserContext, Locator, expect

pytestmark = pytest.mark.browser

SHOW = r"""
from mentra_nb.page.render import bundle
display(bundle('# About \\(x_1\\)\n\nIt is \\(\\frac{a}{b}\\) here.\n\n$$\nE = mc^2\n$$\n'), raw=True)
"""
# The text of an area that has a size on the page, without spaces.
SEEN = """area => {
  const walk = document.createTreeWalker(area, NodeFilter.SHOW_TEXT); let text = '';
  while (walk.nextNode()) {
    const range = document.createRange(); range.selectNodeContents(walk.currentNode);
    if (range.getBoundingClientRect().height > 4) text += walk.currentNode.data;
  }
  return text.replace(/[\\s¶]+/g, '');
}"""

# The size of each formula, as a fraction of that of the text around it.
SIZES = """all => all.map(math =>
  parseFloat(getComputedStyle(math).fontSize) / parseFloat(getComputedStyle(math.closest('h1, p')).fontSize))"""


def seen(area: Locator) -> str:
    expect(area).to_contain_text("here")
    return str(area.locator(".mentra-text").evaluate(SEEN))


def test_formulas_are_mathml_where_the_notebook_is_trusted_and_their_source_where_it_is_not(
    lab: Lab, browser: BrowserContext
) -> None:
    notebook = lab.open(browser, SHOW)
    notebook.run_all(wait=True)
    assert notebook.output(0).locator("math").count() == 3
    assert seen(notebook.output(0)) == "Aboutx1Itisabhere.E=mc2"
    assert notebook.output(0).locator("math").evaluate_all(SIZES) == pytest.approx([1, 1, 1], abs=0.01)
    document = notebook.saved()
    document["cells"][0]["id"] = "another"  # no longer what was signed
    notebook.close()
    notebook.path.with_name("untrusted.ipynb").write_text(json.dumps(document))
    page = browser.new_page()
    page.goto(f"{lab.url}/lab/workspaces/untrusted/tree/untrusted.ipynb")
    area = page.locator(".jp-Notebook .jp-Cell-outputArea").first
    expect(area).to_contain_text("here", timeout=60_000)
    assert area.locator("math").count() == 0
    assert seen(area) == r"Aboutx_1Itis\frac{a}{b}here.E=mc^2"
    page.close()
