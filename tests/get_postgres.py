"""Find PostgreSQL's programs for the tests of the shared store, or get them from the system's packages where we may.

Never fails: the tests say what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from postgreskit import binaries


def main() -> None:
    apt = shutil.which("apt-get")
    if binaries() is None and apt and os.geteuid() == 0:
        subprocess.run([apt, "update", "-qq"], check=False)
        subprocess.run([apt, "install", "-y", "-qq", "postgresql"], check=False, stdout=subprocess.DEVNULL)
    print("postgresql:", binaries() or "none: install postgresql")


if __name__ == "__main__":
    main()
