"""Where things are kept: one folder per user, the project as a key. Nothing is created here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import platformdirs

MOUNTS = Path("/proc/self/mountinfo")
"""What Linux has mounted where."""

_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "afs", "afpfs", "webdav", "davfs", "ncpfs"),
    *("ceph", "glusterfs", "lustre", "beegfs", "gpfs"),
    *("sshfs", "rclone", "s3fs", "gcsfuse", "goofys", "juicefs", "blobfuse", "blobfuse2", "smbnetfs", "curlftpfs"),
}
_MOUNT_OF_MACOS = re.compile(r"^.* on (?P<at>/.*) \((?P<kind>\w+)", re.MULTILINE)


def home() -> Path:
    """`MENTRA_HOME`, else the platform's data folder for `mentra`."""
    return Path(os.environ.get("MENTRA_HOME") or platformdirs.user_data_path("mentra", appauthor=False)).expanduser()


def state_file() -> Path:
    """`MENTRA_STATE`, else `state.sqlite` in the home."""
    return Path(os.environ.get("MENTRA_STATE") or home() / "state.sqlite").expanduser()


def record_folder() -> Path:
    """`MENTRA_RECORD`, else `record` in the home: the event segments and `record.duckdb`.

    If it names a lake, events wait in `record` in the home until they are shipped.
    """
    named = None if record_lake() else os.environ.get("MENTRA_RECORD")
    return Path(named or home() / "record").expanduser()


def record_lake() -> str | None:
    """`MENTRA_RECORD` if it is not a folder but a `ducklake:…`: where segments are shipped to."""
    named = os.environ.get("MENTRA_RECORD", "")
    return named if named.startswith("ducklake:") else None


def project_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` (default: here) with `.git` or `mentra.toml`, else `start` itself."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / ".git").exists() or (folder / "mentra.toml").exists():
            return folder
    return here


def problem_with(folder: Path) -> str | None:
    """Why nothing may be kept in this folder and what to do about it, in one sentence; `None` if all is well."""
    kind = network_filesystem(folder)
    if kind is None:
        return None
    return (
        f"{folder} is on a network file system ({kind}), where file locks cannot be relied upon; "
        "set MENTRA_HOME to a folder on a local disk"
    )


def network_filesystem(folder: Path) -> str | None:
    """The kind of network file system this folder is, or would be, on; `None` if it is local or cannot be told."""
    folder = folder.absolute()
    folder = next(path for path in (folder, *folder.parents) if path.exists() or path == path.parent).resolve()
    if sys.platform == "win32":
        import ctypes

        remote = folder.drive.startswith("\\\\") or ctypes.windll.kernel32.GetDriveTypeW(folder.anchor) == 4
        return "network drive" if remote else None
    try:
        mounts = _mounts()
    except (OSError, subprocess.SubprocessError):
        return None
    at = max((path for path in mounts if folder.is_relative_to(path)), key=lambda path: len(path.parts), default=None)
    kind = mounts[at] if at else ""
    return kind if kind.removeprefix("fuse.") in _NETWORK else None


def _mounts() -> dict[Path, str]:
    """The kind of file system at each mount point; what was mounted last over a point is what is seen."""
    if sys.platform == "darwin":
        told = subprocess.run(["/sbin/mount"], capture_output=True, text=True, timeout=5, check=True).stdout
        return {Path(found["at"]): found["kind"] for found in _MOUNT_OF_MACOS.finditer(told)}
    mounts = {}
    for line in MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        at = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split(" ")[4])
        mounts[Path(at)] = after.split(" ")[0]
    return mounts
