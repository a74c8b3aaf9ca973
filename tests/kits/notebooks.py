"""A kernel with the extension loaded, a new home folder and a scripted model: a notebook without a page."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

from kits.kernels import Cell, Kernel

BEGIN = """
import json, time
import mentra_nb as mn
from mentra_nb.chat.engine import engine
from mentra_nb.providers import scripted as s
from mentra_nb.providers.scripted import ContentBlockDelta, ContentBlockStarted, MessageStarted, TokenUsage
from mentra_nb.settings import Settings
get_ipython().run_line_magic("load_ext", "mentra_nb")
engine().chats.clear()
engine().settings = Settings(model="scripted/scripted", sandbox="off")
def script(*turns):
    global model
    model = s.ScriptedProvider(turns)
    engine().runtime.register_provider_instance(model)
def shell(command, id="call-1"):
    return s.tool_calls([s.ScriptedCall("shell", {"command": command}, id)], text="I run a command.")
def silent(text):
    stream = s.ControlledStream()
    stream.send(MessageStarted(id="m", model="scripted"), ContentBlockStarted(0, "text"), ContentBlockDelta(0, text))
    return stream
"""


class Notebook(Kernel):
    """A kernel with its home in `folder / "home"`, running in `folder / "work"`."""

    def __init__(self, folder: Path, overlay: Path | None = None, *, subshell: bool = False) -> None:
        self.home, self.work = folder / "home", folder / "work"
        self.work.mkdir(exist_ok=True)
        unset = {name: "" for name in os.environ if name.startswith("MENTRA_") or name.endswith("_API_KEY")}
        super().__init__(overlay, subshell=subshell, **{**unset, "MENTRA_HOME": str(self.home)})
        self.run(f"%cd -q {self.work}")

    def begin(self) -> None:
        """Load the extension, define the names above, and start a new conversation."""
        assert self.run(BEGIN).status == "ok"

    def script(self, *turns: str) -> None:
        """Set the model's answers, as expressions over `s` (`mentra_nb.providers.scripted`) and the names above."""
        assert self.run(f"script({', '.join(turns)})").status == "ok"

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the kernel; it must be JSON."""
        cell = self.run(f"print(json.dumps({expression}))")
        assert cell.status == "ok", cell.events
        return json.loads(cell.stdout)

    def said(self, n: int = -1) -> list[str]:
        """Return the messages of the model's `n`-th request as texts, including tool results."""
        shown: list[str] = self.value(
            f"[' '.join(getattr(b, 'text', None) or (b.display() if hasattr(b, 'display') else '') for b in m.content)"
            f" for m in model.recorded_requests[{n}].messages]"
        )
        return shown

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Return the payloads of the last turn's recorded events of a kind, each with its `ts`."""
        found: list[dict[str, Any]] = self.value(
            "[{**json.loads(row.payload), 'ts': row.ts.timestamp()} for row in mn.events().itertuples() "
            f"if row.kind == {kind!r} and row.run_id == mn.turns().run_id.iloc[-1]]"
        )
        return found

    def ask(self, question: str = "%mentra what now?", **options: Any) -> Cell:
        return self.run(question, **options)


def written(home: Path) -> dict[str, int]:
    """Count the rows of each table of the store, and the lines of the record, in a home folder."""
    counts = {"events": sum(len(file.read_bytes().splitlines()) for file in (home / "record").glob("**/*.jsonl"))}
    store = home / "state.sqlite"
    if store.is_file():
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
            tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                counts[table] = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        connection.close()
    return counts
