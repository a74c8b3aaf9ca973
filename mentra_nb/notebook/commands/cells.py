"""`code`, `fix` and `cells`: code of an answer or of a turn goes into a new cell, which nothing here runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mentra_nb.errors import OperationDenied
from mentra_nb.notebook import kernel
from mentra_nb.notebook.commands.command import Context, Words, say

if TYPE_CHECKING:
    from mentra_nb.chat.reply import Reply

PYTHON = ("", "python", "py", "python3", "py3", "ipython", "ipython3", "pycon")
"""The names of languages whose blocks are taken for Python."""
_SHELL = {"bash": "bash", "sh": "sh", "shell": "bash", "zsh": "bash"}
"""Language → the magic that a cell of it begins with."""


def code(context: Context, words: Words) -> None:
    """Put the Python of the last answer into a new cell, or its block of that number."""
    reply = last_answer(context)
    if words["number"] is None:
        put_code(reply)
        return
    number, blocks = int(words["number"]), _blocks(reply)
    if number > len(blocks):
        there = "1 block" if len(blocks) == 1 else f"{len(blocks)} blocks"
        raise OperationDenied(f"the last answer has {there if blocks else 'no block'} of code")
    _put(reply, [blocks[number - 1]])


def put_code(reply: Reply) -> None:
    """Put the Python of an answer into a new cell; where it has none, its only block, or say so."""
    blocks = _blocks(reply)
    found = [block for block in blocks if block[0] in PYTHON] or (blocks if len(blocks) == 1 else [])
    if found:
        _put(reply, found)
    else:
        others = ", ".join(f"{n} is {language}" for n, (language, _) in enumerate(blocks, 1))
        say(f"The answer has no Python; {others}: %mentra code N" if others else "The answer has no code.")


def _put(reply: Reply, blocks: list[tuple[str, str]]) -> None:
    language, text = blocks[0][0], "\n\n".join(code.strip("\n") for _, code in blocks)
    magic = _SHELL.get(language) if not text.startswith("%%") else None
    put(reply, f"%%{magic}\n{text}" if magic else text, f"{language or 'code'} of the answer")
    if magic is None and language not in PYTHON:
        say(f"It is {language}, not Python.")


def _blocks(reply: Reply) -> list[tuple[str, str]]:
    from mentra_nb.chat.reply import blocks_of

    return blocks_of(reply)


def put(reply: Reply, text: str, what: str) -> None:
    """Put code of a reply into a new cell, say so, and have an undo of its turn say that the cell stays."""
    from IPython import get_ipython

    from mentra_nb.chat.undo import put_in
    from mentra_nb.notebook.new_cell import put_below

    done, line = put_below(get_ipython(), text, what)
    if done and kernel.screen() == "page":
        put_in[reply.turn_id] = put_in.get(reply.turn_id, 0) + 1
    say(line)


def fix(context: Context, _words: Words) -> None:
    """Have the last error explained, and put the corrected cell into a new one."""
    from mentra_nb.notebook.last_error import question

    turn = context.conversation().start(question(), waits=True, origin=kernel.running_cell())
    put_code(context.show(turn))


def cells(context: Context, _words: Words) -> None:
    """Put what the last turn ran into a new cell, as Python that needs no agent."""
    from mentra_nb.ids import short_id
    from mentra_nb.notebook.as_code import as_code

    reply = last_answer(context)
    made = as_code(reply.tools)
    if not made.text:
        raise OperationDenied("the last turn ran no code and no command, and changed no file")
    head = f"# What the agent did in its turn {short_id(reply.turn_id)}, in order"
    put(reply, "\n\n".join([head, *made.imports, made.text]), "code of the turn")
    for line in made.notes:
        say(line)


def last_answer(context: Context) -> Reply:
    """Return the last reply in this notebook."""
    from mentra_nb.chat.reply import Reply

    found: Any = context.namespace.get("_mentra")
    reply = found if isinstance(found, Reply) else context.conversation().last
    if reply is None:
        raise OperationDenied("there is no answer yet in this notebook")
    return reply
