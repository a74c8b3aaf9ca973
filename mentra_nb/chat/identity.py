"""Which stored conversation a `Chat` is, before its session is opened and after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mentra_nb import paths
from mentra_nb.errors import FailedToStreamResponse
from mentra_nb.ids import new_id, short_id
from mentra_nb.runtime.session import Session
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.records import Entry, SessionRecord


def word_for(name: str | None, session_id: str) -> str:
    """Return the one word by which `%mentra resume` finds a conversation: its name, or else its short id."""
    return name if name and len(name.split()) == 1 else short_id(session_id)


def resume_command(session: Session | None) -> str:
    """Return the command that goes on with a conversation in another kernel; one without a name is the last."""
    named = session is not None and session.name != session.id
    return f"%mentra resume {word_for(session.name, session.id)}" if session and named else "%mentra resume"


class Identity:
    """The id and the project of a conversation. Rules can be made for it before there is a session."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.is_anew = False
        """Whether a person wants it not to go on with an earlier conversation."""
        self.id: str = new_id("session")
        self._opened = False
        self._project: str | None = None  # of the session, which `%cd` does not change

    @property
    def known_as(self) -> str | None:
        """The id or name by which the store finds it; `None` for a new conversation without a name."""
        return self.id if self._opened else self.name

    @property
    def is_unknown(self) -> bool:
        """Whether it is a conversation without a name that could still go on with an earlier one."""
        return self.known_as is None and not self.is_anew

    @property
    def project(self) -> str | None:
        """The project of the conversation; before it was opened, that of the current folder."""
        return self._project if self._opened else str(paths.project_root())

    @property
    def is_stored(self) -> bool:
        """Whether it is known to be a stored conversation."""
        return self._opened

    def opened(self, session: Session | SessionRecord) -> None:
        """Be the conversation of this session from now on."""
        self.id, self._project, self._opened = session.id, session.project, True

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """While inside, let a failed answer say how to go on in this conversation, if it has a name."""
        try:
            yield
        except FailedToStreamResponse as error:
            if self.name is not None:
                error.name_conversation(word_for(self.name, self.id))
            raise

    async def session_id(self, store: RuntimeStore) -> str:
        """Return the id of the conversation, also if it was stored by an earlier process and not opened in this one."""
        if self._opened or self.name is None:
            return self.id
        stored = await store.load_session(self.name, self.project)
        return stored.id if stored is not None else self.id

    async def entries(self, store: RuntimeStore) -> list[Entry]:
        """Return the stored messages, oldest first, as the next turn sends them."""
        stored = await store.load_conversation(await self.session_id(store))
        return await store.load_path(stored.agent.id, stored.agent.leaf) if stored is not None else []
