"""Folders on network file systems, and those that others can write to, are recognised and refused."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mentra_nb import paths
from mentra_nb.errors import StoreError
from mentra_nb.record.read import views
from mentra_nb.record.write.journal import Journal
from mentra_nb.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="writes its own list of mounts, as Linux has it")


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of mounts for a test to add to: a local root, read in place of this machine's."""
    file = tmp_path / "mounts"
    file.write_text("/dev/vda / ext4 rw,discard,relatime 0 0\n")
    monkeypatch.setattr(paths, "MOUNTS", file)
    return file


def mount(mounts: Path, at: Path, kind: str) -> None:
    point = str(at).replace("\\", "\\134").replace(" ", "\\040")
    with mounts.open("a") as file:
        file.write(f"host:/export {point} {kind} rw,relatime,vers=4.2 0 0\n")


def test_a_local_folder_has_no_problem(tmp_path: Path) -> None:
    assert paths.network_filesystem(tmp_path / "not" / "there" / "yet") is None
    assert paths.folder_problem(Path("relative")) is None


@on_linux
@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.rclone", "lustre", "ceph"])
def test_a_network_file_system_is_recognised_by_its_kind(mounts: Path, tmp_path: Path, kind: str) -> None:
    share = tmp_path / "my share"
    share.mkdir()
    mount(mounts, share, kind)
    assert paths.network_filesystem(share / "a" / "b") == kind
    assert paths.network_filesystem(tmp_path / "my share 2") is None
    (tmp_path / "link").symlink_to(share)
    assert paths.network_filesystem(tmp_path / "link" / "a") == kind


@on_linux
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fuseblk", "fuse.gocryptfs"])
def test_local_file_systems_are_accepted(mounts: Path, tmp_path: Path, kind: str) -> None:
    mount(mounts, tmp_path, kind)
    assert paths.network_filesystem(tmp_path) is None


@on_linux
def test_the_last_and_nearest_mount_counts(mounts: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    mount(mounts, tmp_path, "nfs4")
    mount(mounts, tmp_path / "disk", "ext4")
    assert paths.network_filesystem(tmp_path / "disk") is None
    assert paths.network_filesystem(tmp_path) == "nfs4"
    mount(mounts, tmp_path, "ext4")
    assert paths.network_filesystem(tmp_path) is None


@on_linux
def test_without_a_list_of_mounts_every_folder_is_accepted(mounts: Path, tmp_path: Path) -> None:
    mount(mounts, tmp_path, "nfs4")
    assert paths.network_filesystem(tmp_path) == "nfs4"
    mounts.write_text("of another form\n")
    assert paths.network_filesystem(tmp_path) is None
    mounts.unlink()
    assert paths.network_filesystem(tmp_path) is None


@on_linux
def test_the_mounts_of_this_machine_are_read_as_psutil_reads_them() -> None:
    assert paths._mounts() == {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}


@on_linux
def test_a_record_on_a_network_file_system_is_refused_once_with_the_fix(
    mounts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    mount(mounts, home, "nfs4")
    journal = Journal(home / "record")
    assert caplog.records == []
    for _ in range(3):
        journal.record_audit_event("agent-1", "run_aborted", {"reason": "x"})
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "on a network file system (nfs4)" in record.getMessage()
    assert "set MENTRA_HOME to a folder on a local disk" in record.getMessage()
    health = journal.health()
    assert (health.alive, health.written, health.lost) == (False, 0, 3)
    assert "MENTRA_HOME" in (health.last_error or "")
    assert list(home.iterdir()) == []
    with pytest.raises(StoreError, match="MENTRA_HOME"):
        views.write_database(home / "record")


posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes and owners")
superuser = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="needs to act as another user")


@contextlib.contextmanager
def user(number: int) -> Iterator[None]:
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(0)


async def use(home: Path) -> None:
    """Open the store and the record in a home, as a turn does."""
    store = SqliteStore(home / "state.sqlite")
    try:
        await store.list_agents()
    finally:
        store.close()
    journal = Journal(home / "record")
    journal.record_audit_event("a", "session_started", {"session_id": "s", "title": "", "model": "m"})
    journal.close()
    assert journal.health().lost == 0


@pytest.mark.slow
@posix
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
async def test_a_home_is_private_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    home = tmp_path / "above" / "home"
    monkeypatch.setenv("MENTRA_HOME", str(home))
    before = os.umask(umask)
    try:
        await use(home)
        views.write_database(home / "record")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "above", *tmp_path.glob("above/**/*"))}
    assert len(modes) > 10
    assert {path: oct(mode) for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}


@posix
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o722])
@pytest.mark.parametrize("shared", ["home", "home/record", "home/record/events", "home/state.sqlite"])
async def test_a_home_that_others_can_write_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, shared: str
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("MENTRA_HOME", str(home))
    await use(home)
    path = tmp_path / shared
    path.chmod(mode)
    problem = paths.sharing_problem(path)
    assert problem == (
        f"other users can write to {path}; run `chmod go-w {path}`, or set MENTRA_HOME to a folder of your own"
    )
    with pytest.raises((StoreError, AssertionError)):
        await use(home)
    if path != home / "state.sqlite":
        with pytest.raises(StoreError, match="other users can write"):
            views.write_database(home / "record")
    path.chmod(0o700 if path.is_dir() else 0o600)
    await use(home)


@posix
def test_a_folder_where_others_can_only_add_files_is_accepted(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    assert paths.sharing_problem(tmp_path) is None
    assert paths.sharing_problem(tmp_path / "not there") is None


@superuser
def test_a_folder_of_another_user_is_refused_except_by_the_superuser() -> None:
    with tempfile.TemporaryDirectory() as name:  # not `tmp_path`, which is below a folder that only we may enter
        root = Path(name)
        root.chmod(0o711)
        theirs, ours = root / "theirs", root / "ours"
        for folder, owner in ((theirs, 4001), (ours, 4002)):
            folder.mkdir(mode=0o700)
            os.chown(folder, owner, -1)
        with user(4002):
            problem = paths.folder_problem(theirs)
            assert paths.folder_problem(ours) is None
            assert paths.sharing_problem(Path("/")) is None  # the superuser's
        fix = "set MENTRA_HOME to a folder of your own"
        assert problem == f"{theirs} belongs to another user, who could change it; {fix}"
        assert paths.folder_problem(theirs) is None
