"""What a denial cannot judge: words that a program runs in a language of its own, and programs that are not known.

One table. A line with such a command is asked about while there is any denial; the text of it can be allowed. What the
project's own files do, such as a script or a Makefile, is not read and not asked about here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from mentra_nb.permission.programs import (
    ANY,
    GLOBAL_OPTIONS,
    HIJACKS,
    PLAIN,
    SHELLS,
    WRAPPERS,
    program,
    without_options,
    words_of,
)
from mentra_nb.permission.typical import CHECKS, READS, SCRIPTS

TABLE = r"""
env export declare typeset readonly local sudo doas systemd-run: /HIJACKS
read unset let mapfile readarray getopts wait declare typeset local export readonly: /\$\( /` /\$\{
hash: -p
enable: -f
printf test [ [[: /^(?:-v)?[A-Za-z_]\w*\[
git: --config-env --exec-path= --ext-diff --textconv --open-files-in-pager --upload-pack --receive-pack /ext::
git clone: -u -c --config --template
git fetch: --upload-pack
git pull: --upload-pack
git push: --exec
git archive: --exec
git grep: -O
git init: --template
git rebase: -i --interactive -x --exec
git config: -e --edit /(?i)^(?:alias|core|pager|diff\w*|merge\w*|filter|credential|include\w*|gpg|sequence|hook)\.
    /(?i)^(?:browser|man|url|remote|protocol)\w*\.
git difftool: *
git mergetool: *
git send-email: *
git instaweb: *
tar gtar bsdtar: --to-command --checkpoint-action --use-compress-program -I --rsh-command --rmt-command -F --info-script
    --new-volume-script /^[A-Za-z]*[IF][A-Za-z]*$
awk gawk mawk nawk: /system /[|@] -f -i -l -E --file --include --load
sed gsed: /(?:^|[;{}!\s])e(?:$|[;}\s]) /(?:^|[;{}])\s*(?:[\d$][\d,$~+]*|/[^/]*/I?)\s*!?\s*e -f --file
    /(?:^|[;{}\d$/\s])s(\S)(?:\\.|(?!\1).)*\1(?:\\.|(?!\1).)*\1[gpiImM\d]*e
rg: --pre --hostname-bin
ag ack bat delta: --pager
sort gsort: --compress-program
split gsplit: --filter
zip: -TT --unzip-command
rsync: -e --rsh --rsync-path
ssh: -o -F
scp sftp: -S -o -F -D -b
man: -P -H -C --pager --html --config-file
less more most: /^\+(?!G$) /! -k --lesskey
ed ex vi vim nvim view vimdiff emacs emacsclient nano pico: *
dc m4 expect wish tclsh: *
python python2 python3 pypy3 ipython perl ruby php lua osascript pwsh Rscript: /CODE
node nodejs deno bun: /CODE -r --require --import
make gmake: -f --file --makefile --eval /^(?:SHELL|MAKEFLAGS|MAKEFILES)=
cargo: --config
go: -exec -toolexec -vettool
gdb lldb: *
psql: /\\ /(?i)\bprogram\b -f --file
sqlite3: /(?:^|\n)\s*\.[a-z] /(?i)load_extension|edit\( -init -cmd
duckdb: /(?:^|\n)\s*\.[a-z] /(?i)\b(?:install|load)\b -init -cmd -f
mysql mariadb: /\\ /(?i)\bsystem\b
openssl: -engine -provider-path -config
run-parts start-stop-daemon scriptlive newgrp sg screen tmux mutt lftp ftp telnet: *
at batch: *
crontab: -e /^[^-] /^-$
ctags: --options
tcpdump: -z -Z
nmap: --script -sC --interactive
wget: --use-askpass -e --execute --config
gcc g++ cc clang: -wrapper -fplugin -specs
entr: *
"""
"""By program, or program and subcommand: `-x` is an option also among other letters, `--long` also if it is cut short,
`/re` an expression that is found in a word, and `*` any use of it."""

MAX_WORD = 4_000
"""Characters of a word in which signs are looked for; a longer one is not judged."""
_CODE = (
    r"\b(?:system|popen\d?|exec\w*|spawn\w*|fork|eval)\b\s*[(\"'`{]|`|%x|\bqx\b|__import__|\bunlink\b|\brm(?:tree|Sync)\b"
    r"|\bos\.(?:system|popen|exec|spawn|posix|remove|unlink|rmdir)|\bfrom\s+os\b|\bgetattr\b"
    r"|\b(?:subprocess|shutil|pty|ctypes|importlib|runpy|child_process)\b"
)
"""Code for an interpreter that may run a program, or do by itself what one would."""
_KEYS = re.compile(r"(?i)(?:user|color|advice|column|i18n|gc|log)\.|core\.(?:quotepath=|pager=(?:cat|less)?$)")
"""Settings of git that run nothing."""
_COPY = words_of("cp ln mv install")
_SYSTEM = re.compile(r"(?:/usr(?:/local)?|/opt/homebrew)?/s?bin/[^/]+")
_MORE = words_of(
    """chgrp chmod chown cmake cp curl dd df exit fd format free gunzip gzip id install isort java javac jobs kill ln
    mv ninja pandoc paste patch pip3 ps rm rmdir set shuf split tee time top tree type ulimit umask unzip xz"""
)
"""Other programs that are known by name, beside those of the tables."""


@dataclass(frozen=True)
class _Signs:
    always: bool
    short: tuple[str, ...]
    long: tuple[str, ...]
    found: tuple[re.Pattern[str], ...]


@cache
def rows() -> dict[str, tuple[str, ...]]:
    """Return the table: a program, or a program and its subcommand, and the signs of what is not judged."""
    found: dict[str, tuple[str, ...]] = {}
    for row in TABLE.replace("\n    ", " ").strip().splitlines():
        names, _, signs = row.partition(": ")
        for name in [names] if names.startswith("git ") else names.split():
            found[name] = (*found.get(name, ()), *signs.split())
    return found


@cache
def _signs(name: str) -> _Signs | None:
    signs = rows().get(name)
    if signs is None:
        return None
    named = {"/HIJACKS": f"^{HIJACKS.pattern}", "/CODE": _CODE}
    return _Signs(
        always="*" in signs,
        short=tuple(sign[1:] for sign in signs if re.match("-[^-]", sign)),
        long=tuple(sign for sign in signs if sign.startswith("--")),
        found=tuple(re.compile(named.get(sign, sign[1:]), re.DOTALL) for sign in signs if sign.startswith("/")),
    )


def is_unjudged(words: Sequence[str]) -> bool:
    """Return whether a command may run something that its words do not name in a way which is read."""
    name, rest = program(words[0]), without_options(words)[1:]
    if name in _COPY and len(words) > 1 and is_known(program(words[-1])):
        return True  # from now on that name may be another program
    if name == "git" and any(
        option == "-c" and not _KEYS.match(value) for option, value in pairwise(words[: len(words) - len(rest)])
    ):
        return True
    either = (_signs(name), _signs(f"{name} {rest[0]}") if rest else None)
    return any(signs is not None and _is_in(signs, words[1:]) for signs in either)


def _is_in(signs: _Signs, words: Sequence[str]) -> bool:
    if signs.always:
        return True
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--"):
            known = any(long.startswith(option) for long in signs.long if len(option) > len("--"))
            known = known or any(word.startswith(long) for long in signs.long if long.endswith("="))
        else:
            known = word.startswith("-") and any(short in word[1:] for short in signs.short)
        if known or (signs.found and len(word) > MAX_WORD) or any(each.search(word) for each in signs.found):
            return True
        if word.startswith(ANY) and (signs.short or signs.long):  # it may be any option
            return True
    return False


@cache
def _known() -> frozenset[str]:
    names = {name.partition(" ")[0] for name in rows()}
    return frozenset(names | {*WRAPPERS, *SHELLS, *GLOBAL_OPTIONS, *READS, *CHECKS, *SCRIPTS} | PLAIN | _MORE)


def is_known(word: str) -> bool:
    """Return whether a program is one that is known by its name, in a folder of the system if its path is given."""
    return program(word) in _known() and ("/" not in word or _SYSTEM.fullmatch(word) is not None)
