"""A shell line split into its simple commands where that is certain, and else into its words as well as it goes."""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_LINE = 65_536
"""Characters of a shell line that is taken apart; a longer one is treated as one that cannot be split."""

# A word that is a command's name and nothing else: no quotes, globs, assignments or words of the shell's own grammar.
_NAME = re.compile(r"[\w./~+:@%,-]+(?=[ \t]|$)")
_GRAMMAR = re.compile(r"if|then|elif|else|fi|for|while|until|do|done|case|esac|in|function|select|time")
_TARGET = r"""(?:[^\s'"<>;&|(){}!#$`\\]|'[^'\n\r\0]*'|"[^"$`\\\n\r\0]*")+"""
_REDIRECTION = re.compile(
    rf"""(?P<kept>'[^']*'|"[^"]*")|"""
    rf"(?:(?<![^\s;&|])\d+)?(?:(?:>>|>\||<>|[<>])[ \t]*{_TARGET}|[<>]&(?:\d+|-))(?=[\s;&|<>]|$)[ \t]*"
)
_OPERATOR = re.compile(r"[;&|()<>]+")


def simple_commands(line: str) -> list[str] | None:
    """Return the simple commands of a shell line, each as written, or `None` when it cannot be split with certainty.

    Splits at `;`, `&`, `&&`, `|` and `||` outside quotes. Substitutions, variables, escapes, redirections, groups,
    comments, line breaks, open quotes, assignments, shell keywords and names that are quoted or globbed are not
    split: what such a line runs cannot be read off it.
    """
    if len(line) > MAX_LINE:
        return None
    commands, start, quote, i = [], 0, "", 0
    while i < len(line):
        char = line[i]
        if char in "\n\r\0" or (quote != "'" and char in "$`\\"):
            return None
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "()<>{}!#":
            return None
        elif char in ";&|":
            commands.append(line[start:i].strip())
            i += line[i : i + 2] in ("&&", "||")
            start = i + 1
        i += 1
    last = line[start:].strip()
    if last or not commands:  # nothing needs to follow a closing `;` or `&`
        commands.append(last)
    return None if quote or not all(map(_is_plain, commands)) else commands


def without_redirections(line: str) -> str:
    """Return a shell line without the redirections to files and streams that are certain to be nothing else.

    Where one is left, `simple_commands` does not split the line.
    """
    return _REDIRECTION.sub(_without, line) if len(line) <= MAX_LINE else line


def _without(found: re.Match[str]) -> str:
    begins_a_word = found.start() == 0 or found.string[found.start() - 1] in " \t"
    return found["kept"] or ("" if begins_a_word else " ")


def _is_plain(command: str) -> bool:
    name = _NAME.match(command)
    return name is not None and not _GRAMMAR.fullmatch(name.group())


def why_not_split(line: str) -> str | None:
    """Return what keeps a shell line from being split, as words for a person; `None` if it can be split."""
    if simple_commands(line) is not None:
        return None
    if len(line) > MAX_LINE:
        return f"it is longer than {MAX_LINE} characters"
    signs = [sign for sign in ("$", "`", "\\", ">", "<", "(", "{", "!", "#") if sign in line]
    signs += ["a line break"] if "\n" in line or "\r" in line else []
    return f"it has {' and '.join(signs)}" if signs else "its commands cannot be told apart"


def command_words(line: str) -> list[str]:
    """Return each command of a shell line as the shell splits it into words, joined by single blanks.

    For denials only: where the line cannot be split with certainty this is the best reading of it.
    """
    return [" ".join(words) for words in commands_in(line)]


def commands_in(line: str) -> list[list[str]]:
    """Return the words of each command of a shell line, as `command_words` reads them."""
    if len(line) > MAX_LINE:
        return [line.split()]
    found: list[list[str]] = [[]]
    for text in re.split(r"[\n\r]+", line):
        for token in [*tokens(text), ";"]:
            if _OPERATOR.fullmatch(token):
                found.append([])
            else:
                found[-1].append(token)
    return [words for words in found if words]


def tokens(text: str) -> Sequence[str]:
    """Return the words of a text and the operators between them, without quotes."""
    import shlex

    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return list(lexer)
    except ValueError:  # an open quote or a trailing backslash
        return text.replace("'", "").replace('"', "").split()
