"""Folders on network file systems are recognised and refused."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import psutil
import pytest

from mentra_nb import paths
from mentra_nb.errors import StoreError
from mentra_nb.record.read import views
from mentra_nb.record.write.journal import Journal

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="writes its own list of mounts, as Linux has it")


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of mounts for a test to add to: a local root, read in place of this machine's."""
    file = tmp_path / "proc" / "self" / "mounts"
    file.parent.mkdir(parents=True)
    file.write_text("/dev/vda / ext4 rw,discard,relatime 0 0\n")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"))
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
    mounts.unlink()
    assert paths.network_filesystem(tmp_path) is None


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
