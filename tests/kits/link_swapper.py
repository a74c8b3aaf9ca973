"""A process that swaps links with what they replace, as fast as it can, until it is killed.

As a program, `link_swapper.py FOLDER OUTSIDE`: in FOLDER it makes `d` a folder, then a link to OUTSIDE, then a folder
again, and `f` a file, then a link to `OUTSIDE/private`, and so on, each by renaming.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path


def main(folder: Path, outside: Path) -> None:
    """Swap forever."""
    for name, target in (("d", outside), ("f", outside / "private")):
        (folder / f".{name}.link").symlink_to(target)
    os.write(1, b"ready\n")
    while True:
        for name in ("d", "f"):
            real, link, here = (str(folder / each) for each in (f".{name}.real", f".{name}.link", name))
            with suppress(OSError):
                os.rename(here, real)  # noqa: PTH104
                os.rename(link, here)  # noqa: PTH104
                os.rename(here, link)  # noqa: PTH104
                os.rename(real, here)  # noqa: PTH104


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
