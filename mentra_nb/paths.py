"""Where things are kept: one folder per user, the project as a key. Nothing is created here."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """`MENTRA_HOME`, else the platform's data folder for `mentra`."""
    return Path(os.environ.get("MENTRA_HOME") or platformdirs.user_data_path("mentra", appauthor=False)).expanduser()


def state_file() -> Path:
    """`MENTRA_STATE`, else `state.sqlite` in the home."""
    return Path(os.environ.get("MENTRA_STATE") or home() / "state.sqlite").expanduser()


def record_folder() -> Path:
    """`MENTRA_RECORD`, else `record` in the home: the event segments and `record.duckdb`."""
    return Path(os.environ.get("MENTRA_RECORD") or home() / "record").expanduser()


def project_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` (default: here) with `.git` or `mentra.toml`, else `start` itself."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / ".git").exists() or (folder / "mentra.toml").exists():
            return folder
    return here
