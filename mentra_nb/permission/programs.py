"""Programs that run what they are given: how the command within their words is found. Data and its reading only.

One row a program. A program that is missing here is judged by whether the words of a denial occur behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ANY = "\0"
"""In a word: text that is known only when the line runs. A shell line has no NUL itself."""

ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")

HIJACKS = re.compile(
    r"(?:PATH|BASH_ENV|ENV|LD_\w+|DYLD_\w+|PROMPT_COMMAND|PS[0-4]|SHELL|SHELLOPTS|BASH_FUNC_.*|IFS|CDPATH"
    r"|\w*(?:PAGER|EDITOR|VISUAL|BROWSER)|LESSOPEN|LESSCLOSE|GIT_(?:SSH|CONFIG|EXEC|ASKPASS|PROXY|EXTERNAL)\w*"
    r"|SSH_ASKPASS|SUDO_ASKPASS|PYTHON(?:STARTUP|HOME|BREAKPOINT)|PERL5(?:OPT|LIB|DB)|RUBYOPT|NODE_OPTIONS)\+?="
)
"""A variable by which another program runs than the line names, and the `=` behind it."""


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


@dataclass(frozen=True)
class Line:
    """A text that a program gives to a shell."""

    text: str


@dataclass(frozen=True)
class Wrapper:
    """How a program is given the command that it runs."""

    values: frozenset[str] = frozenset()
    """Options that take a value: letters, and long names."""
    lines: frozenset[str] = frozenset()
    """Those of them whose value is a line for a shell."""
    skip: int = 0
    """Words between the options and the command."""
    assigns: bool = False
    """Whether `NAME=value` may stand before the command."""
    joined: bool = False
    """Whether the words of the command are joined to a line for a shell."""
    more: bool = False
    """Whether words are added that are not on the line."""
    only: frozenset[str] = frozenset()
    """Subcommands one of which must come first; none for a program that has no subcommands."""
    prints: frozenset[str] = frozenset()
    """Options with which it only says what it would run."""


def _wrapper(
    values: str = "", lines: str = "", skip: int = 0, only: str = "", prints: str = "", **flags: bool
) -> Wrapper:
    return Wrapper(
        words_of(f"{values} {lines}"), words_of(lines), skip, only=words_of(only), prints=words_of(prints), **flags
    )


_SUDO = "u g p C r t T U D R h user group prompt chdir chroot role type host other-user close-from command-timeout"
_CONTAINER = (
    "e u w v p m h l a env user workdir env-file volume publish name network entrypoint platform mount memory cpus"
)

WRAPPERS: dict[str, Wrapper] = {
    "!": _wrapper(),
    "coproc": _wrapper(),
    "env": _wrapper("u C a unset chdir argv0", "S split-string", assigns=True),
    "command": _wrapper(prints="v V"),
    "builtin": _wrapper(),
    "exec": _wrapper("a"),
    "eval": _wrapper(joined=True),
    "trap": _wrapper(joined=True),
    "nohup": _wrapper(),
    "setsid": _wrapper(),
    "time": _wrapper("f o format output"),
    "timeout": _wrapper("k s kill-after signal", skip=1),
    "gtimeout": _wrapper("k s kill-after signal", skip=1),
    "nice": _wrapper("n adjustment"),
    "ionice": _wrapper("c n p P u class classdata"),
    "chrt": _wrapper("T P D", skip=1),
    "taskset": _wrapper("p", skip=1),
    "stdbuf": _wrapper("i o e input output error"),
    "unbuffer": _wrapper(),
    "sudo": _wrapper(_SUDO, assigns=True),
    "doas": _wrapper("u C a"),
    "pkexec": _wrapper("user"),
    "su": _wrapper("s g G w shell group supp-group", "c command"),
    "runuser": _wrapper("u s g G w user shell group supp-group", "c command"),
    "setpriv": _wrapper("reuid regid groups inh-caps ambient-caps bounding-set securebits pdeathsig"),
    "chroot": _wrapper("userspec groups", skip=1),
    "unshare": _wrapper("R w S G root wd setuid setgid map-user map-group propagation"),
    "nsenter": _wrapper("t S G target setuid setgid"),
    "flock": _wrapper("w E timeout wait conflict-exit-code", "c command", skip=1),
    "watch": _wrapper("n q interval equexit", joined=True),
    "script": _wrapper("I O B T m log-in log-out log-io log-timing", "c command"),
    "strace": _wrapper("e o p s a b E I O P S u X trace output attach user"),
    "ltrace": _wrapper("e o p s a n u x A D F l w"),
    "valgrind": _wrapper(),
    "perf": _wrapper("e o p F a", only="stat record trace"),
    "gdb": _wrapper("ex x"),
    "xargs": _wrapper("I n P L s d E a i max-args max-procs max-lines max-chars delimiter arg-file replace", more=True),
    "parallel": _wrapper("j n N L P S I a jobs max-args arg-file sshlogin joblog delay", joined=True, more=True),
    "entr": _wrapper(),
    "rlwrap": _wrapper("a f H s"),
    "fakeroot": _wrapper("l s i b lib faked"),
    "proot": _wrapper("r b w rootfs bind cwd"),
    "numactl": _wrapper("i m N C l interleave membind cpunodebind physcpubind"),
    "systemd-run": _wrapper("u p E M H t unit property setenv slice description uid gid working-directory"),
    "systemd-inhibit": _wrapper("what who why mode"),
    "dbus-run-session": _wrapper("config-file"),
    "xvfb-run": _wrapper("n s e f p server-num server-args error-file auth-file"),
    "busybox": _wrapper(),
    "toybox": _wrapper(),
    "direnv": _wrapper(only="exec", skip=1),
    "ssh": _wrapper("B b c D E e F I i J L l m O o p Q R S W w", skip=1, joined=True),
    "npx": _wrapper("p package", "c call"),
    "bunx": _wrapper("p package"),
    "pnpx": _wrapper("p package"),
    "uvx": _wrapper("p from with python index"),
    "uv": _wrapper("p with python project directory extra group env-file", only="run"),
    "pipx": _wrapper("spec python", only="run"),
    "poetry": _wrapper("C directory project", only="run"),
    "pipenv": _wrapper(only="run"),
    "pdm": _wrapper("p project", only="run"),
    "hatch": _wrapper("e env", only="run", joined=True),
    "conda": _wrapper("n p name prefix cwd", only="run"),
    "mamba": _wrapper("n p name prefix cwd", only="run"),
    "micromamba": _wrapper("n p name prefix cwd", only="run"),
    "bundle": _wrapper(only="exec"),
    "npm": _wrapper("w workspace prefix", "c call", only="exec x"),
    "docker": _wrapper(_CONTAINER, only="exec run", skip=1),
    "podman": _wrapper(_CONTAINER, only="exec run", skip=1),
    "kubectl": _wrapper("n c namespace container context kubeconfig", only="exec", skip=1),
}
"""Programs that run the command in their words."""

FEEDS = words_of("xargs parallel find fd fdfind")
"""Those that add words to a command that are not on the line, most of them names of files."""

SHELLS = words_of("sh bash dash zsh ksh mksh ash rbash fish")
"""Programs that take a line with `-c`, or a script from their input."""

GLOBAL_OPTIONS: dict[str, frozenset[str]] = {
    "git": words_of(
        "C c git-dir work-tree namespace exec-path super-prefix config-env attr-source list-cmds shallow-file"
    ),
    "docker": words_of("H c l host context log-level config tlscacert tlscert tlskey"),
    "podman": words_of("c url connection identity log-level root runroot storage-driver"),
    "kubectl": words_of("n s namespace context cluster kubeconfig server user token as as-group request-timeout v"),
    "helm": words_of("n namespace kube-context kubeconfig registry-config repository-config repository-cache"),
    "npm": words_of("w C prefix workspace registry userconfig loglevel cache"),
    "yarn": words_of("cwd registry"),
    "pnpm": words_of("C F filter dir registry loglevel"),
    "pip": words_of("cert proxy timeout retries log python exists-action trusted-host client-cert cache-dir"),
    "apt-get": words_of("o c t option config-file target-release"),
    "apt": words_of("o c t option config-file target-release"),
    "systemctl": words_of("H M t n o s p type state property host machine lines output signal kill-whom root"),
    "cargo": words_of("C Z config color"),
    "gh": words_of("R repo hostname"),
    "aws": words_of("profile region output endpoint-url query ca-bundle"),
    "gcloud": words_of("project account configuration verbosity format"),
    "conda": words_of("n p name prefix"),
}
"""The options with a value, letters and long names, that may stand between a program and its subcommand."""

SAME_OPTIONS: dict[str, str] = {"recursive": "r", "R": "r", "force": "f", "delete": "d", "all": "a", "in-place": "i"}
"""Long options and letters that mean a letter in most programs."""

PLAIN = words_of(
    """echo printf cat ls head tail wc grep egrep fgrep cut tr uniq diff cmp comm stat file du df pwd cd date basename
    dirname realpath readlink seq true false test sleep whoami id uname nl sha256sum md5sum mkdir touch"""
)
"""Programs that run nothing that is in their words."""

PLAIN_GIT = words_of("add branch commit diff log ls-files merge-base rev-parse show stash status tag blame describe")
"""Subcommands of git that run nothing that is in their words."""


def program(word: str) -> str:
    """Return the name of a program without its path."""
    return word.rpartition("/")[2]


def is_plain(words: Sequence[str]) -> bool:
    """Return whether what a command runs is its own program alone, whatever its words say."""
    if words and words[0] == "git":
        return len(words) > 1 and words[1] in PLAIN_GIT
    return bool(words) and words[0] in PLAIN


def runs_known(words: Sequence[str]) -> bool:
    """Return whether it is known of a program what it runs by its words, so that `within` yields all of it."""
    name = program(words[0]) if words else ""
    return name in WRAPPERS or name in SHELLS or name in ("find", "fd", "fdfind", "git") or is_plain(words)


def within(words: Sequence[str]) -> Iterator[list[str] | Line]:
    """Yield what a command runs by its words: other commands as words, and lines for a shell. One step deep."""
    name = program(words[0]) if words else ""
    if name in SHELLS:
        yield from _shell(words)
    elif name in ("find", "fd", "fdfind"):
        yield from _found(words)
    elif name == "git":
        yield from _git(words)
    elif name == "alias":
        yield from (Line(f"{word.partition('=')[2]} {ANY}") for word in words[1:] if "=" in word)
    elif (how := WRAPPERS.get(name)) is not None:
        yield from _wrapped(how, words)


def without_options(words: Sequence[str]) -> list[str]:
    """Return a command without the options between its program and its subcommand, as far as they are known."""
    known = GLOBAL_OPTIONS.get(program(words[0])) if words else None
    if known is None:
        return list(words)
    at, _ = _options(words, 1, known)
    return [words[0], *words[at:]]


def reads_commands(words: Sequence[str]) -> bool:
    """Return whether a command takes what it runs from its input or from a place that the line does not show."""
    name = program(words[0]) if words else ""
    if name in SHELLS:
        at, given = _options(words, 1, words_of("o O rcfile init-file"))
        return "c" not in given and (at >= len(words) or "s" in given or words[at] in ("-", "/dev/stdin"))
    if name in (".", "source"):
        return words[1:2] == ["/dev/stdin"]
    return name in ("at", "batch") or (name == "parallel" and len(words) == 1)


def _options(
    words: Sequence[str], at: int, values: frozenset[str], assigns: bool = False
) -> tuple[int, dict[str, str]]:
    """Return where the options from `at` on end, and what is given with each; empty for one without a value."""
    given: dict[str, str] = {}
    while at < len(words):
        word = words[at]
        if word == "--":
            return at + 1, given
        if word.startswith("--"):
            name, has_value, value = word[2:].partition("=")
            takes_next = name in values and not has_value
        elif len(word) > 1 and word.startswith("-"):
            name, value, takes_next = _letters(word[1:], values, given)
        elif word == "-" or (assigns and ASSIGNMENT.match(word)):
            at += 1
            continue
        else:
            break
        at += 1
        if takes_next and at < len(words):
            value, at = words[at], at + 1
        given[name] = value
    return at, given


def _letters(letters: str, values: frozenset[str], given: dict[str, str]) -> tuple[str, str, bool]:
    if letters in values and len(letters) > 1:  # a long name with one dash
        return letters, "", True
    for n, letter in enumerate(letters):
        if letter in values:
            return letter, letters[n + 1 :], n + 1 == len(letters)
        given[letter] = ""
    return letters[-1], "", False


def _wrapped(how: Wrapper, words: Sequence[str]) -> Iterator[list[str] | Line]:
    at, given = _options(words, 1, how.values, how.assigns)
    if how.only:
        if at >= len(words) or words[at] not in how.only:
            return
        at, more = _options(words, at + 1, how.values, how.assigns)
        given |= more
    if how.prints & given.keys():
        return
    if how.lines:  # `su NAME -c LINE`
        given |= _options(words, at + 1, how.values)[1]
    yield from (Line(value) for name, value in given.items() if name in how.lines)
    left = list(words[at + how.skip :])
    while left and (left[0] == "--" or (how.assigns and ASSIGNMENT.match(left[0]))):
        del left[0]
    if left[:1] == ["-c"] and "c" in how.lines:  # `flock FILE -c LINE`
        yield Line(" ".join(left[1:2]))
        return
    if how.more and (mark := given.get("I") or given.get("replace") or given.get("i") or "{}"):
        left = [word.replace(mark, ANY) for word in left]
        left = left[: left.index(":::")] if ":::" in left else left
    rest = [*left, ANY] if how.more and left else left
    if rest:
        yield rest
    if rest and how.joined:
        yield Line(" ".join(rest))


def _shell(words: Sequence[str]) -> Iterator[Line]:
    at, given = _options(words, 1, words_of("o O rcfile init-file"))
    if "c" in given and at < len(words):
        yield Line(words[at])
    elif any(word.startswith("+") for word in words[1:]) and "c" in given:
        yield from map(Line, words[1:])


_EXEC = words_of("-exec -execdir -ok -okdir -x -X --exec --exec-batch")


def _found(words: Sequence[str]) -> Iterator[list[str]]:
    starts = [at + 1 for at, word in enumerate(words) if word in _EXEC]
    for start in starts:
        end = next((at for at in range(start, len(words)) if words[at] in (";", "+")), len(words))
        command = [word.replace("{}", ANY) for word in words[start:end]]
        if command:
            yield command if program(words[0]) == "find" or ANY in "".join(command) else [*command, ANY]


def _git(words: Sequence[str]) -> Iterator[list[str] | Line]:
    for at, word in enumerate(words[:-1]):
        key, _, value = words[at + 1].partition("=")
        if word == "-c" and key.lower().startswith("alias.") and not value.startswith("!"):
            yield ["git", *value.split(), ANY]
        elif word == "-c" and value:
            yield Line(f"{value.removeprefix('!')} {ANY}")
    match without_options(words)[1:]:
        case ["submodule", "foreach", *rest]:
            yield Line(" ".join(word for word in rest if not word.startswith("-")))
        case ["bisect", "run", *rest] if rest:
            yield list(rest)
        case ["rebase" | "filter-branch" | "difftool" | "mergetool", *rest]:
            yield from map(Line, _values(rest, words_of("-x --exec --tree-filter --index-filter --extcmd")))


def _values(words: Sequence[str], names: frozenset[str]) -> Iterator[str]:
    for at, word in enumerate(words):
        name, has_value, value = word.partition("=")
        if name in names and (has_value or at + 1 < len(words)):
            yield value if has_value else words[at + 1]
