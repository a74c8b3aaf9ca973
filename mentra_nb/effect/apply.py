"""Changes to files as a series of moves, each of which can be taken back by looking at what is there.

New content waits in a staged file in a folder that stays. It takes the place of the old one in one step that keeps the
old one under the staged name, where it is compared with what was expected: what somebody wrote a moment before is
noticed afterwards and put back, so nothing is lost between a comparison and a write.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO, Literal

from mentra_nb.effect.handles import JUST_MADE, copied, exchange, move_to_free, parent, replace, state
from mentra_nb.effect.types import Conflict, FileChange, FileState

Contents = Callable[[str], BinaryIO]
"""Give, for a path, the bytes of the new file, or the target of the new link, open for reading."""
MoveKind = Literal["take", "rmdir", "mkdir", "put", "swap", "chmod"]
_OTHERWISE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR)
"""Errors that mean that something else is there than expected."""
SUFFIX = ".mentra-tmp"


@dataclass(frozen=True)
class Move:
    """One step. `take` moves a file to the staged name, `put` moves the staged one to its place, `swap` does both."""

    kind: MoveKind
    change: FileChange
    stage: str = ""


def moves(changes: Sequence[FileChange], name: str) -> list[Move]:
    """Return the moves that make these changes, in order. `name` is part of the names of staged files.

    Raises `Conflict` for a change that cannot be made: of a pipe, socket or device, or without a difference.
    """
    wrong = [each.path for each in changes if not _can_be_made(each)]
    if wrong:
        raise Conflict(wrong, "cannot be changed: not a file, folder or link, or no change")
    unstable = {each.path for each in changes if "folder" in _types(each) and len(_types(each)) > 1}
    gone, new, other = [], [], []
    for number, change in enumerate(changes):
        before, after = change.before, change.after
        stage = _stage(change.path, unstable, f".{name}-{number}{SUFFIX}")
        if before and after and (before.type == "folder") == (after.type == "folder"):
            other.append(Move("chmod" if before.type == "folder" else "swap", change, stage))
            continue
        if before is not None:
            gone.append(Move("rmdir" if before.type == "folder" else "take", change, stage))
        if after is not None:
            new.append(Move("mkdir" if after.type == "folder" else "put", change, stage))
    gone.sort(key=lambda move: PurePath(move.change.path).parts, reverse=True)
    new.sort(key=lambda move: PurePath(move.change.path).parts)
    return [*gone, *new, *other]


def _can_be_made(change: FileChange) -> bool:
    return change.before != change.after and "other" not in _types(change)


def _types(change: FileChange) -> set[str]:
    """Return what is there before and after, links being files."""
    kinds = (each.type if each else "nothing" for each in (change.before, change.after))
    return {"file" if kind == "link" else kind for kind in kinds}


def _stage(path: str, unstable: set[str], name: str) -> str:
    """Return where the content of a change waits: in the nearest folder above that is there before and afterwards."""
    above = PurePath(path).parent
    while str(above) in unstable:
        above = above.parent
    return str(above / name)


# ---- forwards --------------------------------------------------------------------------------------------------------


def stage(move: Move, contents: Contents, *, lasting: bool = True) -> None:
    """Write the new content of a move to its staged name, and to disk if it is to be `lasting` by itself.

    Raises `OSError`, `Conflict`.
    """
    after = move.change.after
    if move.kind not in ("put", "swap") or after is None:
        return
    with contents(move.change.path) as source, parent(move.stage) as (folder, name):
        if after.type == "link":
            folder.link(name, source.read())
        else:
            with folder.create(name, after.mode) as file:
                copied(source, file)
                file.flush()
                if lasting:
                    os.fsync(file.fileno())
        if folder.state(name) != after:
            raise Conflict([move.change.path], "would get another content than was decided about")


def make(move: Move) -> None:
    """Make a move. Raises `Conflict` when something else is there than expected, also after the move, and `OSError`."""
    try:
        if not _moved(move):
            raise Conflict([move.change.path])
    except OSError as error:
        if error.errno in _OTHERWISE:
            raise Conflict([move.change.path]) from error
        raise


def _moved(move: Move) -> bool:
    """Make a move and return whether what it replaced was what was expected."""
    before, after = move.change.before, move.change.after
    with parent(move.change.path) as place:
        folder, name = place
        if move.kind == "rmdir":
            folder.remove_folder(name)
            return True
        if move.kind == "mkdir" and after is not None:
            folder.make_folder(name, after.mode)
            return True
        if move.kind == "chmod" and after is not None:
            if folder.state(name) != before:
                return False
            folder.set_folder_mode(name, after.mode)
            return True
        with parent(move.stage) as staged:
            if move.kind == "put":
                move_to_free(staged, place)
                return True
            if move.kind == "take":
                move_to_free(place, staged)
            elif not exchange(staged, place):
                if folder.state(name) != before:
                    return False
                replace(staged, place)
                return True
            return staged[0].state(staged[1]) == before


def sync(changes: Sequence[FileChange]) -> None:
    """Write the folders that these changes are in to disk."""
    for above in {os.path.dirname(change.path) for change in changes}:  # noqa: PTH120
        try:
            with parent(os.path.join(above, "x")) as (folder, _):  # noqa: PTH118
                folder.sync()
        except OSError:  # it was deleted by these very changes
            continue


# ---- as observed -----------------------------------------------------------------------------------------------------


def clean(move: Move) -> None:
    """Delete the staged files of a move, if there are any. Raises `OSError`."""
    for path in (move.stage, _restored(move).stage):
        found = state(path)
        if found is not None and found.has_content:
            with parent(path) as (folder, name):
                folder.remove(name)


def is_made(move: Move) -> bool:
    """Return whether a move was made and nothing else than expected was found: what is there says so."""
    if state(move.change.path) != move.change.after:
        return False
    return move.kind in ("rmdir", "mkdir", "chmod") or state(move.stage) in (None, move.change.before)


def take_back(move: Move, image: Contents) -> bool:
    """Take a move back, whether it was made or not. Returns `False` if somebody changed the file since then.

    `image` gives the content that was there before. Raises `OSError`.
    """
    here = state(move.change.path)
    try:
        if move.kind in ("rmdir", "mkdir", "chmod"):
            return _take_back_folder(move, here)
        waits = state(move.stage)
        if move.kind == "put":
            return _take_back_put(move, here, waits)
        source = move.stage
        if waits is None and here == (None if move.kind == "take" else move.change.after):
            restored = _restored(move)
            clean(restored)
            stage(restored, image)
            source, waits = restored.stage, move.change.before
        return _take_back_old(move, here, waits, source)
    finally:
        clean(move)


def _restored(move: Move) -> Move:
    """Return the move that puts what was there before back from its image. Its staged file may be half written."""
    kind: MoveKind = "put" if move.kind == "take" else "swap"
    return Move(kind, move.change.inverted(), f"{move.stage.removesuffix(SUFFIX)}-back{SUFFIX}")


def _take_back_old(move: Move, here: FileState | None, waits: FileState | None, source: str) -> bool:
    """Put the old file, which is at `source`, back in its place, unless somebody changed what is there."""
    before, after = move.change.before, move.change.after
    if move.kind == "take":
        if waits is not None and here is None:
            _between(move_to_free, source, move.change.path)
            return True
        return waits is None
    if waits == after:  # the move was not made
        return True
    if waits is not None and here == after and not _between(exchange, source, move.change.path):
        _between(replace, source, move.change.path)
    return here in (before, after)


def _take_back_folder(move: Move, here: FileState | None) -> bool:
    before, after = move.change.before, move.change.after
    if move.kind == "mkdir" and here is None:
        return True
    with parent(move.change.path) as (folder, name):
        if move.kind == "mkdir" and here is not None and here.type == "folder":
            try:
                folder.remove_folder(name)
            except OSError as error:
                if error.errno not in _OTHERWISE:
                    raise
                return False
        elif move.kind == "rmdir" and here is None and before is not None:
            folder.make_folder(name, before.mode)
        elif before is not None and here == (after if move.kind == "chmod" else JUST_MADE):
            folder.set_folder_mode(name, before.mode)
        else:
            return here == before
    return True


def _take_back_put(move: Move, here: FileState | None, waits: FileState | None) -> bool:
    after = move.change.after
    if waits is not None or here is None:
        return True
    if here != after:  # a folder that was to be replaced is still there, or is there again
        before = move.change.before
        return before is not None and here in (before, JUST_MADE if before.type == "folder" else before)
    _between(move_to_free, move.change.path, move.stage)
    if state(move.stage) == after:
        return True
    _between(move_to_free, move.stage, move.change.path)
    return False


def _between(how: Callable[..., bool | None], source: str, to: str) -> bool | None:
    with parent(source) as one, parent(to) as other:
        return how(one, other)
