"""Make the pictures of the documentation, in a real JupyterLab: `python tests/kits/pictures.py`.

The model's side is replayed from the tape of `notebooks/01_first_turn.ipynb`; everything else is real.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import nbformat  # noqa: E402

from kits.lab import chromium, lab_server  # noqa: E402

DOCS = ROOT / "docs"
NOTEBOOK = ROOT / "notebooks" / "01_first_turn.ipynb"
SOURCES = (
    '%load_ext mentra_nb\nimport mentra_nb as mn\nmn.replay("01_first_turn.replay.jsonl")  # or any model',
    next(cell.source for cell in nbformat.read(NOTEBOOK, 4).cells if cell.source.startswith("%%mentra")),
    "answer.text, answer.usage",
)
MARGIN = 6
"""Pixels around what a picture shows."""


def main() -> None:
    """Write `docs/card.png`: a cell that waits, with its approval card."""
    with lab_server() as lab, chromium(viewport={"width": 860, "height": 900}, device_scale_factor=1.5) as context:
        for name in ("sales.csv", "01_first_turn.replay.jsonl"):
            shutil.copy(ROOT / "notebooks" / name, lab.root)
        notebook = lab.open(context, *SOURCES)
        notebook.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
        notebook.run_all()
        notebook.card()
        notebook.page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 1; }")
        first, last = (notebook.cell(n).bounding_box() for n in (0, 2))
        assert first is not None
        assert last is not None
        clip = {
            "x": first["x"] - MARGIN,
            "y": first["y"] - MARGIN,
            "width": first["width"] + 2 * MARGIN,
            "height": last["y"] + last["height"] - first["y"] + 2 * MARGIN,
        }
        notebook.page.screenshot(path=DOCS / "card.png", clip=clip)
        notebook.close()


if __name__ == "__main__":
    main()
