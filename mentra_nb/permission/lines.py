"""A shell line as the shell reads it, by tree-sitter's grammar of bash: the words of every command in it, wherever.

Read for denials only. An allowance needs a line that `rules.simple_commands` can split, which knows much less.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from mentra_nb.permission.programs import ANY, HIJACKS

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

_ESCAPED = re.compile(r"\\(\n|.)", re.DOTALL)
_IN_STRING = re.compile(r'\\(\n|["\\$`])')
_ANSI = re.compile(r"\\(x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{1,4}|U[0-9a-fA-F]{1,8}|[0-7]{1,3}|c.|.)", re.DOTALL)
_NAMED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "v": "\v"}
_COMMANDS = ("declaration_command", "unset_command", "test_command")
_UNKNOWN = frozenset(
    ("simple_expansion", "expansion", "command_substitution", "process_substitution", "arithmetic_expansion")
)


@dataclass(frozen=True)
class ShellLine:
    """What a line would run, and what it feeds to commands as their input. `ANY` in a word is not known yet."""

    commands: tuple[tuple[str, ...], ...]
    inputs: tuple[str, ...] = ()


@cache
def _parser() -> Parser:
    import tree_sitter_bash
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_bash.language()))


@lru_cache(maxsize=256)
def parsed(line: str) -> ShellLine | None:
    """Return every command of a shell line, also those in substitutions, loops and functions; `None` if it is unclear.

    Takes time linear in the line.
    """
    line = line.replace(ANY, "$_")
    found = _parsed(line)
    if found is None or "\\\n" not in line:
        return found
    # The grammar ends a word at a line that goes on, and the shell does not.
    whole = _parsed(line.replace("\\\n", ""))
    return whole and ShellLine(found.commands + whole.commands, found.inputs + whole.inputs)


def _parsed(line: str) -> ShellLine | None:
    root = _parser().parse(line.encode(errors="surrogatepass")).root_node
    if root.has_error:
        return None
    commands: list[tuple[str, ...]] = []
    inputs: list[str] = []
    whole: set[int] = set()
    for node in _all(root):
        if node.type == "command" and node.id not in whole:
            commands.append(tuple(_words(node)))
        elif node.type in _COMMANDS:
            commands.append(tuple(_text(child) for child in node.children))
        elif node.type == "variable_assignment" and (assigned := _assigned(node)) is not None:
            commands.append(("export", assigned))
        elif node.type == "redirected_statement":
            body = node.child_by_field_name("body")
            if body is not None and body.type == "command" and (extra := _after_redirection(node)):
                commands.append((*_words(body), *extra))
                whole.add(body.id)
        elif node.type in ("heredoc_body", "herestring_redirect"):
            inputs.append(_input(node))
    return ShellLine(tuple(words for words in commands if words), tuple(inputs))


def _all(root: Node) -> Iterator[Node]:
    """Yield each node without recursion, since a line may be nested deeper than Python's stack."""
    left = [root]
    while left:
        node = left.pop()
        yield node
        left.extend(reversed(node.children))


def _words(command: Node) -> Iterator[str]:
    for child in command.children:
        if child.type == "command_name":
            yield from (_word(part) for part in child.children)
        elif child.type == "file_redirect":
            yield from _extra(child)
        elif child.type not in ("variable_assignment", "herestring_redirect", "heredoc_redirect"):
            yield _word(child)


def _assigned(node: Node) -> str | None:
    """Return an assignment as a word, if by it other programs may run: arithmetic runs a substitution in a value."""
    word = "".join(child.type if child.type == "=" else _word(child) for child in node.children)
    return word if HIJACKS.match(word) or "$(" in word or "`" in word else None


def _after_redirection(statement: Node) -> list[str]:
    """Return the words that follow a redirection and belong to the command: `rm > out x` removes x."""
    return [word for child in statement.children if child.type == "file_redirect" for word in _extra(child)]


def _extra(redirection: Node) -> list[str]:
    return [_word(node) for node in redirection.children_by_field_name("destination")[1:]]


def _word(node: Node) -> str:
    """Return a word as a program gets it, with `ANY` for what the shell puts in when the line runs."""
    match node.type:
        case "raw_string":
            return _text(node)[1:-1]
        case "string":
            return _IN_STRING.sub(_plain, _joined(node, strings=True)[1:-1])
        case "ansi_c_string":
            return _ANSI.sub(_decoded, _text(node)[2:-1])
        case "translated_string" | "concatenation":
            return _joined(node).removeprefix("$" if node.type == "translated_string" else "")
        case "brace_expression":
            return ANY
        case kind if kind in _UNKNOWN:
            return ANY
    return _ESCAPED.sub(_plain, _text(node))


def _plain(match: re.Match[str]) -> str:
    return "" if match[1] == "\n" else match[1]


def _decoded(match: re.Match[str]) -> str:
    sign = match[1]
    if sign[0] in "xuU" and len(sign) > 1:
        code = int(sign[1:], 16)
        return chr(code) if code < 0x110000 else ""
    if sign[0] in "01234567":
        return chr(int(sign, 8) & 0xFF)
    return _NAMED.get(sign, sign)


def _joined(node: Node, *, strings: bool = False) -> str:
    """Return the parts of a word and what stands between them, which the grammar leaves out in strings."""
    source, at, pieces = node.text or b"", 0, list[str]()
    for child in node.children:
        begin = child.start_byte - node.start_byte
        pieces.append(source[at:begin].decode(errors="replace"))
        as_it_is = strings and child.type not in _UNKNOWN
        pieces.append(_text(child) if as_it_is else _word(child))
        at = child.end_byte - node.start_byte
    return "".join(pieces) + source[at:].decode(errors="replace")


def _input(node: Node) -> str:
    if node.type == "heredoc_body":
        return _text(node)
    return "".join(_word(child) for child in node.named_children)


def _text(node: Node) -> str:
    return (node.text or b"").decode(errors="replace")
