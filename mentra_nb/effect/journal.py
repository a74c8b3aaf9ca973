"""The undo journal: what calls did to files, one entry a call, with what was there before.

    effects/pending/<entry>/          a call that is being applied; `<entry>.lock` beside it is held by its process
    effects/done/<turn>/<entry>/      what can be undone
    effects/conflicts/<entry>/        what could not be taken back, as somebody had changed the files meanwhile

An entry has `entry.json`, the before-images in `images`, and `staged` once all new content is on disk. It is written,
and synced to disk, before anything in the workspace is changed, and moved to `done` as a whole, so that after a kill
`recover` finds out by looking whether to finish it or to take it back. One of changes that
were made already has `made`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import portalocker

from mentra_nb.effect.apply import Contents, Move, clean, is_made, make, moves, stage, sync, take_back
from mentra_nb.effect.handles import copied, parent, state, sync_together, syncs_together
from mentra_nb.effect.types import Conflict, FileChange, FileState, change_from
from mentra_nb.ids import new_id
from mentra_nb.paths import home, make_private
from mentra_nb.words import counted

log: logging.Logger = logging.getLogger(__name__)

MAX_BYTES = 1 << 30
"""Bytes of before-images that are kept; of more, those of the oldest turns are dropped."""
MANY = 64
"""Changes of one call above which files are written to disk all at once, where the system can."""
PRUNE_EVERY = 64
"""Entries, on average, after which the bound is looked at."""
_NAME = re.compile(r"[\w.-]{1,200}", re.ASCII)


@dataclass(frozen=True)
class JournalEntry:
    """What one call did to files."""

    id: str
    turn: str
    """The turn's `run_id`."""
    call: str
    """The call's id."""
    changes: tuple[FileChange, ...]
    tool: str = ""
    undoes: str | None = None
    """The turn that was undone, if this was an undo."""
    at: float = 0.0
    """Unix seconds."""


@dataclass(frozen=True)
class Recovered:
    """What became of a call that was interrupted while it was applied.

    `paths` are the files that could not be taken back since somebody had changed them.
    """

    entry: JournalEntry
    outcome: Literal["finished", "taken_back", "conflict"]
    paths: tuple[str, ...] = ()


class Journal:
    """The undo journal in a folder. Safe with several processes; each method may be called from any thread.

    Args:
        folder: Default: `effects` in the home.
        max_bytes: Of before-images that are kept.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.folder: Path = folder or home() / "effects"
        self.max_bytes = max_bytes

    # ---- applying ----------------------------------------------------------------------------------------------------

    def apply(
        self,
        changes: Sequence[FileChange],
        contents: Contents,
        *,
        turn: str,
        call: str,
        tool: str = "",
        undoes: str | None = None,
    ) -> JournalEntry:
        """Make all these changes, or none of them, and return the entry by which they can be undone.

        Args:
            changes: At most one for a path. Folders that are to be made are changes as well.
            contents: Gives the new bytes of each file, or the target of each link; they must have the digest that
                the change says.
            turn: The turn's `run_id`.
            call: The call's id.

        Raises:
            Conflict: A file is not what its change says it was; then nothing was written.
            OSError: The system refused; then nothing was written.
        """
        if not _NAME.fullmatch(turn):
            raise ValueError(f"{turn!r} cannot be the name of a turn")
        entry = JournalEntry(new_id("effect"), turn, call, tuple(changes), tool, undoes, time.time())
        steps = moves(entry.changes, entry.id)
        one_by_one = len(entry.changes) <= MANY or not syncs_together()
        with self._pending(entry.id) as folder:
            assert folder is not None
            try:
                _write_entry(entry, folder, one_by_one=one_by_one)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            try:
                _stage_all(steps, contents, one_by_one=one_by_one)
                _write(folder / "staged", b"")
            except BaseException:
                _clean_all(steps)
                shutil.rmtree(folder, ignore_errors=True)
                raise
            self._make_all(entry, steps, folder)
            sync(entry.changes)
            _clean_all(steps)
            self._move(folder, self.folder / "done" / turn)
        self._prune_sometimes(entry)
        return entry

    def enter(
        self, changes: Sequence[FileChange], images: Mapping[str, Path], *, turn: str, call: str, tool: str = ""
    ) -> JournalEntry:
        """Enter changes that were made already, so that they can be undone.

        Args:
            images: Path → a file with what was there before, for each change of a file or link; they are moved.

        Raises:
            OSError: The system refused; then they cannot be undone.
        """
        entry = JournalEntry(new_id("effect"), turn, call, tuple(changes), tool, None, time.time())
        with self._pending(entry.id) as folder:
            assert folder is not None
            (folder / "images").mkdir(parents=True, mode=0o700)
            for number, change in enumerate(entry.changes):
                if change.before is not None and change.before.has_content:
                    shutil.move(images[change.path], folder / "images" / str(number))
            _write(folder / "made", b"")
            _write_facts(entry, folder)
            self._move(folder, self.folder / "done" / turn)
        self._prune_sometimes(entry)
        return entry

    def _make_all(self, entry: JournalEntry, steps: Sequence[Move], folder: Path) -> None:
        """Make the moves; if one fails, take back those before it, and raise."""
        for done, move in enumerate(steps):
            try:
                make(move)
            except BaseException as error:
                begun = done + (move.kind in ("take", "swap"))
                left = self._take_all_back(entry, steps[:begun], folder)
                _clean_all(steps[begun:])
                self._close(folder, keep=bool(left))
                if left and isinstance(error, Conflict):
                    raise Conflict(left, "changed while files were written, and were left so") from error
                raise

    def _take_all_back(self, entry: JournalEntry, steps: Sequence[Move], folder: Path) -> list[str]:
        """Take moves back, the last one first, and return the files for which that was not possible."""
        images, left = _images(entry, folder), []
        for move in reversed(steps):
            try:
                if not take_back(move, images):
                    left.append(move.change.path)
            except OSError:
                log.exception("%s could not be restored", move.change.path)
                left.append(move.change.path)
        sync(entry.changes)
        return left

    @contextmanager
    def _pending(self, id: str, *, wait: bool = True) -> Iterator[Path | None]:
        """Hold the lock of a pending entry and give its folder; `None` if another process holds it and `wait` is off.

        Raises `OSError`.
        """
        pending = self.folder / "pending"
        make_private(pending)
        lock = pending / f"{id}.lock"
        flags = portalocker.LockFlags.EXCLUSIVE
        with lock.open("ab") as file:
            try:
                portalocker.lock(file, flags if wait else flags | portalocker.LockFlags.NON_BLOCKING)
            except portalocker.LockException:
                yield None
                return
            try:
                yield pending / id
            finally:
                lock.unlink(missing_ok=True)

    def _close(self, folder: Path, *, keep: bool) -> None:
        """End an entry that was taken back: delete it, or keep it with its before-images."""
        if keep:
            self._move(folder, self.folder / "conflicts")
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def _move(self, folder: Path, to: Path) -> None:
        make_private(to)
        folder.replace(to / folder.name)
        for each in (to, folder.parent):
            _sync_folder(each)

    # ---- after a kill ------------------------------------------------------------------------------------------------

    def recover(self) -> list[Recovered]:
        """Finish or take back what a killed process was applying, and return what became of it.

        What a living process is applying is left alone.
        """
        found = []
        pending = self.folder / "pending"
        for name in sorted(each.name for each in _folders(pending)):
            with self._pending(name, wait=False) as folder:
                if folder is not None and folder.is_dir() and (one := self._recovered(folder)):
                    found.append(one)
        self.prune()
        return found

    def _recovered(self, folder: Path) -> Recovered | None:
        entry = _read_entry(folder)
        if entry is None:  # nothing had been changed yet
            shutil.rmtree(folder, ignore_errors=True)
            return None
        if (folder / "made").exists():
            self._move(folder, self.folder / "done" / entry.turn)
            return Recovered(entry, "finished")
        steps = moves(entry.changes, entry.id)
        if not (folder / "staged").exists():
            _clean_all(steps)
            self._close(folder, keep=False)
            return Recovered(entry, "taken_back")
        if all(map(is_made, steps)):
            sync(entry.changes)
            _clean_all(steps)
            self._move(folder, self.folder / "done" / entry.turn)
            return Recovered(entry, "finished")
        left = self._take_all_back(entry, steps, folder)
        self._close(folder, keep=bool(left))
        return Recovered(entry, "conflict" if left else "taken_back", tuple(left))

    # ---- reading -----------------------------------------------------------------------------------------------------

    def entries(self, turn: str) -> list[JournalEntry]:
        """Return what the calls of a turn did, oldest first."""
        if not _NAME.fullmatch(turn):
            return []
        found = [_read_entry(folder) for folder in _folders(self.folder / "done" / turn)]
        return sorted((each for each in found if each is not None), key=lambda entry: entry.id)

    def turns(self) -> list[str]:
        """Return the turns that have entries, the one with the latest entry first."""
        newest = {}
        for folder in _folders(self.folder / "done"):
            newest[folder.name] = max((each.name for each in _folders(folder)), default="")
        return sorted((turn for turn, id in newest.items() if id), key=newest.__getitem__, reverse=True)

    def image(self, entry: JournalEntry, path: str) -> BinaryIO:
        """Open what was at a path before a call: a file's bytes, or a link's target. Raises `OSError`, `KeyError`."""
        return _images(entry, self.folder / "done" / entry.turn / entry.id)(path)

    def forget(self, turn: str) -> None:
        """Delete the entries of a turn, which cannot be undone any more."""
        if _NAME.fullmatch(turn):
            shutil.rmtree(self.folder / "done" / turn, ignore_errors=True)

    def _prune_sometimes(self, entry: JournalEntry) -> None:
        """Drop old turns after one in `PRUNE_EVERY` entries, as measuring them takes a while."""
        if int(entry.id[-4:], 16) % PRUNE_EVERY == 0:
            try:
                dropped = self.prune()
            except OSError:  # another process does the same
                log.debug("old entries of the undo journal could not be dropped", exc_info=True)
            else:
                if dropped:
                    log.warning("undo no longer reaches back to %s: no room", counted(len(dropped), "earlier turn"))

    def prune(self) -> list[str]:
        """Drop the oldest turns while the before-images are over the bound, and return those turns."""
        sizes = {turn: _bytes_in(self.folder / "done" / turn) for turn in self.turns()}
        total, dropped = sum(sizes.values()), []
        for turn in reversed(list(sizes)[1:]):
            if total <= self.max_bytes:
                break
            shutil.rmtree(self.folder / "done" / turn, ignore_errors=True)
            total -= sizes[turn]
            dropped.append(turn)
        return dropped


def _stage_all(steps: Sequence[Move], contents: Contents, *, one_by_one: bool) -> None:
    for move in steps:
        stage(move, contents, lasting=one_by_one)
    if not one_by_one:
        sync_together({os.path.dirname(move.stage) for move in steps})  # noqa: PTH120


def _clean_all(steps: Sequence[Move]) -> None:
    for move in steps:
        try:
            clean(move)
        except OSError:
            log.exception("%s could not be deleted", move.stage)


def _images(entry: JournalEntry, folder: Path) -> Contents:
    """Return how to open the before-images of an entry, by path."""
    numbers = {change.path: number for number, change in enumerate(entry.changes)}
    return lambda path: (folder / "images" / str(numbers[path])).open("rb")


def _write_entry(entry: JournalEntry, folder: Path, *, one_by_one: bool) -> None:
    """Write an entry with its before-images to disk. Raises `Conflict` if a file is not what its change says."""
    (folder / "images").mkdir(parents=True, mode=0o700)
    wrong = [
        change.path
        for number, change in enumerate(entry.changes)
        if _imaged(change, folder / "images" / str(number), lasting=one_by_one) != change.before
    ]
    if wrong:
        raise Conflict(wrong)
    if not one_by_one:
        sync_together([str(folder.resolve() / "images")])
    _sync_folder(folder / "images")
    _write_facts(entry, folder)


def _write_facts(entry: JournalEntry, folder: Path) -> None:
    """Write `entry.json` as a whole, and its folder, to disk."""
    text = json.dumps(asdict(entry), separators=(",", ":"))
    _write(folder / "entry.tmp", text.encode())
    (folder / "entry.tmp").replace(folder / "entry.json")
    _sync_folder(folder)
    _sync_folder(folder.parent)


def _imaged(change: FileChange, image: Path, *, lasting: bool) -> FileState | None:
    """Write what is at the path of a change to its before-image, to disk if `lasting`, and return its state."""
    if change.before is None or not change.before.has_content:
        return state(change.path)
    try:
        with parent(change.path) as (above, name):
            if change.before.type == "link":
                source: BinaryIO = BytesIO(above.target(name))
            else:
                source = above.open(name)
            with source, image.open("xb") as file:
                found = copied(source, file)
                file.flush()
                if lasting:
                    os.fsync(file.fileno())
    except FileExistsError:
        raise
    except OSError as error:
        now = state(change.path)
        if now == change.before:
            raise error
        return now
    return found if change.before.type == "file" else FileState("link", 0, found.size, found.digest)


def _read_entry(folder: Path) -> JournalEntry | None:
    """Return the entry in a folder; `None` if it was not written to its end."""
    try:
        value: dict[str, Any] = json.loads((folder / "entry.json").read_bytes())
        return JournalEntry(**{**value, "changes": tuple(change_from(each) for each in value["changes"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(file: Path, raw: bytes) -> None:
    with file.open("xb") as opened:
        opened.write(raw)
        opened.flush()
        os.fsync(opened.fileno())


def _sync_folder(path: Path) -> None:
    with parent(str(path.resolve() / "x")) as (folder, _):
        folder.sync()


def _folders(path: Path) -> list[Path]:
    try:
        return [each for each in path.iterdir() if each.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _bytes_in(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
