"""What a call does, or would do, to files, as frozen data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mentra_nb.errors import OperationDenied

FileType = Literal["file", "folder", "link", "other"]
"""`other` is a pipe, a socket or a device, which is never made, changed or deleted here."""
ChangeKind = Literal["created", "changed", "deleted"]


class Conflict(OperationDenied):
    """Files are not as they were when a change to them was prepared. Nothing was written.

    `paths` are the files in question.
    """

    def __init__(self, paths: Iterable[str], why: str = "changed since then") -> None:
        self.paths: tuple[str, ...] = tuple(paths)
        shown = ", ".join(repr(path) for path in self.paths[:5])
        more = f" and {len(self.paths) - 5} more" if len(self.paths) > 5 else ""
        super().__init__(f"{shown}{more} {why}; nothing was written")


@dataclass(frozen=True)
class FileState:
    """What is at a path."""

    type: FileType
    mode: int
    """The permission bits, `st_mode & 0o7777`; 0 for a link, which has none."""
    size: int = 0
    """Bytes of a file, or of a link's target; 0 otherwise."""
    digest: str = ""
    """SHA-256 in hex of a file's bytes, or of a link's target; empty otherwise."""

    @property
    def has_content(self) -> bool:
        """Whether it is made of bytes: a file, or a link, whose bytes are its target."""
        return self.type in ("file", "link")


@dataclass(frozen=True)
class FileChange:
    """What is at a path before and after; `None` where nothing is. At least one of the two is something."""

    path: str
    """Absolute, without `.` and `..`; none of the folders above it is a link."""
    before: FileState | None
    after: FileState | None

    @property
    def kind(self) -> ChangeKind:
        """`created`, `changed` or `deleted`."""
        if self.before is None:
            return "created"
        return "changed" if self.after is not None else "deleted"

    @property
    def state(self) -> FileState:
        """What is there afterwards, else what was there before."""
        state = self.after or self.before
        assert state is not None
        return state

    def inverted(self) -> FileChange:
        """Return the change that takes this one back.

        Example:
            >>> from mentra_nb.effect.types import FileChange, FileState
            >>> FileChange("/a", None, FileState("folder", 0o755)).inverted().kind
            'deleted'
        """
        return FileChange(self.path, self.after, self.before)


@dataclass(frozen=True)
class Want:
    """Something that a command reached for and did not get, such as `network` and `pypi.org:443`."""

    kind: str
    name: str


@dataclass(frozen=True)
class Effect:
    """All that a call does: the files it changes, and what it wanted and did not get.

    Example:
        >>> from mentra_nb.effect.types import Effect, FileChange, FileState
        >>> effect = Effect((FileChange("/a", None, FileState("folder", 0o755)),))
        >>> Effect.from_json(effect.to_json()) == effect
        True
        >>> len(effect.digest)
        64
    """

    changes: tuple[FileChange, ...] = ()
    wanted: tuple[Want, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 in hex of the effect, which binds an answer about it to exactly these changes."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return the effect as JSON in ASCII. File names that are not valid Unicode are kept."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Effect:
        """Return the effect that `to_json` wrote. Raises `ValueError` for anything else."""
        try:
            value = json.loads(text)
            wanted = tuple(Want(**each) for each in value["wanted"])
            return cls(tuple(change_from(each) for each in value["changes"]), wanted)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"this is not an effect: {error}") from error


def change_from(value: dict[str, Any]) -> FileChange:
    """Return the change that `asdict` made `value` of. Raises `TypeError`, `KeyError`."""
    before, after = (FileState(**value[name]) if value[name] else None for name in ("before", "after"))
    return FileChange(value["path"], before, after)
