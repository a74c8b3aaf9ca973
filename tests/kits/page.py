"""Build the static page that shows a turn in a browser: `python tests/kits/page.py FOLDER`. Any server can serve it.

It holds Pyodide and all packages, so that it needs no other address.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from kits.programs import pyodide  # noqa: E402

SOURCES = ROOT / "docs" / "page"
PYODIDE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "pyodide-lock.json", "python_stdlib.zip")
FOR_TESTS = (
    "IPython",
    "_pytest",
    "hypothesis",
    "jedi",
    "parso",
    "prompt_toolkit",
    "pytest",
    "bin",
    "widgetsnbextension",
)


def build(folder: Path) -> None:
    """Write the page to a folder, which may be there. Raises `FileNotFoundError` where there is no Pyodide."""
    found = pyodide()
    if found is None:
        raise FileNotFoundError("no Pyodide: run `make pyodide`")
    python, packages = found
    (folder / "pyodide").mkdir(parents=True, exist_ok=True)
    for name in PYODIDE:
        shutil.copy(python / name, folder / "pyodide" / name)
    for source in SOURCES.iterdir():
        shutil.copy(source, folder / source.name)
    with zipfile.ZipFile(folder / "packages.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for root, below in ((packages, packages), (ROOT, ROOT / "mentra_nb")):
            for file in sorted(below.rglob("*")):
                path = file.relative_to(root)
                if file.is_file() and path.parts[0] not in FOR_TESTS and "__pycache__" not in path.parts:
                    archive.write(file, str(path))


if __name__ == "__main__":
    build(Path(sys.argv[1]))
