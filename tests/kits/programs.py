"""Find the programs that tests need, Chromium and PostgreSQL, or install them from the system's packages as root.

    python tests/kits/programs.py browser|postgresql

This never fails: a test that needs a missing program says how to install it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """Return the path of the Chromium for tests, or `None`."""
    on_path = next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)
    if on_path:
        return on_path
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def postgresql() -> Path | None:
    """Return the folder of PostgreSQL's programs, of the newest version installed, or `None`."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    installed = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(installed, key=lambda path: int(path.parent.name), default=None)


def install(package: str) -> None:
    """Install a Debian package if `apt-get` is there and this is root."""
    apt = shutil.which("apt-get")
    if apt and os.geteuid() == 0:
        subprocess.run([apt, "update", "-qq"], check=False)
        subprocess.run([apt, "install", "-y", "-qq", package], check=False, stdout=subprocess.DEVNULL)


def main(what: str) -> None:
    find = {"browser": chromium, "postgresql": postgresql}[what]
    if find() is None and what == "browser":
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False, timeout=300)
    if find() is None:
        install("chromium" if what == "browser" else "postgresql")
    print(f"{what}: {find() or 'none found, and none could be installed'}")


if __name__ == "__main__":
    main(sys.argv[1])
