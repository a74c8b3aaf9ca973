"""The folders and files of a user: state store, record, project root."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

from mentra_nb.arguments import check_path

_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "afs", "afpfs", "webdav", "davfs", "ncpfs"),
    *("ceph", "glusterfs", "lustre", "beegfs", "gpfs"),
    *("sshfs", "rclone", "s3fs", "gcsfuse", "goofys", "juicefs", "blobfuse", "blobfuse2", "smbnetfs", "curlftpfs"),
}

MOUNTS = Path("/proc/self/mounts")
"""The mounts of a Linux machine: a line each, in which spaces and the like are octal numbers."""
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")


def home() -> Path:
    """Return `MENTRA_HOME`, else the platform's data folder for `mentra`."""
    if named := os.environ.get("MENTRA_HOME"):
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_data_path("mentra", appauthor=False)


def config_file() -> Path:
    """Return `MENTRA_CONFIG`, else `config.toml` in the platform's settings folder for `mentra`."""
    if named := os.environ.get("MENTRA_CONFIG"):
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_config_path("mentra", appauthor=False) / "config.toml"


def state_file() -> Path:
    """Return `MENTRA_STATE`, else `state.sqlite` in the home."""
    return Path(os.environ.get("MENTRA_STATE") or home() / "state.sqlite").expanduser()


def record_folder(folder: str | Path | None = None) -> Path:
    """Return the folder of the event segments and `record.duckdb`: the one given, `MENTRA_RECORD`, or `record` in home.

    If `MENTRA_RECORD` names a lake, events wait in `record` in the home until they are shipped.
    """
    if folder is not None:
        check_path("mn.turns(folder='record')", folder)
    named = folder or (None if record_lake() else os.environ.get("MENTRA_RECORD"))
    return Path(named or home() / "record").expanduser()


def own_places() -> tuple[Path, ...]:
    """Return the files and folders of mentra: the home, the settings, the store with its log, and the record."""
    state = state_file()
    store = (state.with_name(f"{state.name}{end}") for end in ("", "-wal", "-shm"))
    return (home(), config_file(), *store, record_folder())


def record_lake() -> str | None:
    """Return `MENTRA_RECORD` if it is a `ducklake:…` address, to which segments are shipped, else `None`."""
    named = os.environ.get("MENTRA_RECORD", "")
    return named if named.startswith("ducklake:") else None


def project_root(start: Path | None = None) -> Path:
    """Return the nearest folder with `.git` or `mentra.toml`, at or above `start`; `start` itself if there is none.

    Args:
        start: Default: the working directory.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / ".git").exists() or (folder / "mentra.toml").exists():
            return folder
    return here


def folder_problem(folder: Path) -> str | None:
    """Return why the store and the record refuse this folder and what to do, in one sentence; `None` if it will do."""
    kind = network_filesystem(folder)
    if kind is not None:
        return (
            f"{folder} is on a network file system ({kind}), where file locks cannot be relied upon; "
            "set MENTRA_HOME to a folder on a local disk"
        )
    above = (home(),) if folder.absolute().is_relative_to(home().absolute()) else ()
    return next(filter(None, map(sharing_problem, (*above, folder))), None)


def sharing_problem(path: Path) -> str | None:
    """Return why another user could change what is at this path, and what to do, in one sentence; `None` if none could.

    What belongs to the superuser is accepted, and so is everything where the superuser works, as in a container. A
    folder with the sticky bit, such as `/tmp`, lets others add files, but not change or replace ours.
    """
    if sys.platform in ("win32", "emscripten"):
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    if os.geteuid() != 0 and found.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to another user, who could change it; set MENTRA_HOME to a folder of your own"
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        import shlex

        return (
            f"other users can write to {path}; run `chmod go-w {shlex.quote(str(path))}`, "
            "or set MENTRA_HOME to a folder of your own"
        )
    return None


def make_private(folder: Path) -> None:
    """Create a folder, and those above it that are missing, so that only the user can enter them."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def has_entries(folder: Path) -> bool:
    """Return whether a folder is there and not empty."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def network_filesystem(folder: Path) -> str | None:
    """Return the kind of network file system this folder is, or would be, on; `None` if it is local or unknown."""
    folder = folder.absolute()
    folder = next(path for path in (folder, *folder.parents) if path.exists() or path == path.parent).resolve()
    if sys.platform == "win32":
        import ctypes

        remote = folder.drive.startswith("\\\\") or ctypes.windll.kernel32.GetDriveTypeW(folder.anchor) == 4
        return "network drive" if remote else None
    try:
        kinds = _mounts()
    except (OSError, ValueError):
        return None
    point = max((path for path in kinds if folder.is_relative_to(path)), key=lambda path: len(path.parts), default=None)
    kind = kinds[point] if point else ""
    return kind if kind.removeprefix("fuse.") in _NETWORK else None


def _mounts() -> dict[Path, str]:
    """Return the kind of file system at each mount point; of several on one point, the last counts.

    Raises:
        OSError, ValueError: The list of mounts cannot be read.
    """
    if sys.platform == "linux":  # psutil reads the same list, but loading it takes longer than the rest of a check
        lines = [line.split(b" ") for line in MOUNTS.read_bytes().splitlines()]
        return {Path(os.fsdecode(_OCTAL.sub(_byte, point))): os.fsdecode(kind) for _, point, kind, *_ in lines}
    if sys.platform == "emscripten":
        return {}  # the files of a browser are its own
    import psutil

    try:
        return {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    except psutil.Error as error:
        raise OSError(str(error)) from error


def _byte(octal: re.Match[bytes]) -> bytes:
    return bytes([int(octal[1], 8)])
