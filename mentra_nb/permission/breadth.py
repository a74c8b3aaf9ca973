"""How much an allowance covers beyond what it looks like: programs and options that run others, or write files.

The rows of `unjudged.py` count as well. A pattern is broad where it overlaps a row. An exact pattern is never broad: it
covers what it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache

from mentra_nb.permission import unjudged
from mentra_nb.permission.patterns import WILD, has_wildcard, overlap
from mentra_nb.permission.programs import SHELLS, WRAPPERS, program

MAX_NAMED = 3
"""Programs and options that are named; the others are counted."""

_RUNS = """
git: -c; --config-env; --exec-path; clone *ext::; clone *--upload-pack; clone * -c; fetch *--upload-pack;
    pull *--upload-pack; ls-remote *--upload-pack; push *--receive-pack; push *--exec; bisect run;
    submodule foreach; rebase * -x; rebase * --exec; filter-branch; difftool; mergetool; grep * -O;
    grep *--open-files-in-pager; config *alias.; config *core.; diff *--ext-diff; log *--ext-diff
find: *-exec; *-ok
fd fdfind: * -x; * -X; *--exec
awk gawk mawk nawk: *system(; *|; * -f; *@load
sed gsed: * -e; * -f; '; "; *--expression; *--file
ssh: ; * -o; * -F; * -S
less more: ;
python python2 python3 pypy3: -c; -? -c; -m timeit; -m pdb; -m runpy; -m pip install; -m code
node nodejs deno bun: -e; * -e; -p; * -p; --eval; -r; * -r; * --require; eval
perl: -e; * -e; -E; -ne; -pe; -M; -ple; -lne
ruby php lua tclsh osascript pwsh Rscript julia R: -e; * -e; -r; * -r; -; -f; -c; * -c
make gmake ninja just rake ant gradle mvn bazel: ;
npm yarn pnpm: run; test; start; install; ci; exec; dlx; x; explore; rebuild; publish
npx bunx pnpx uvx: ;
cargo: run; build; test; bench; install; check; clippy; --config; * --config
go: run; generate; test; install; build; * -exec; * -toolexec; vet *-vettool
pytest py.test tox nox pre-commit: ;
pip pip3 pipx uv poetry conda mamba: install; *install; run; sync; add; pip install
docker podman: run; exec; build; compose
kubectl: exec; run; apply; debug; cp
psql: ; * -c; * -f
sqlite3 duckdb mysql: ;
jupyter: *nbconvert *--execute; run; execute; * --to notebook
gh: alias; extension; codespace
ctest cmake: ; --build
"""
_WRITES = """
git: diff *--output; log *--output; show *--output; format-patch; archive *-o; archive *--output; checkout; restore;
    reset; clean; bundle create; worktree; config
find: *-delete; *-fprint; *-fls
fd fdfind: * --exec
tar gtar bsdtar: ; * -x; x
awk gawk mawk nawk: *>; * -i inplace
sed gsed: -i; * -i; *--in-place; * -n -i; '; "
sort gsort: -o; * -o; *--output
uniq: * *
tee: ;
dd: ;
tree: -o; * -o
split csplit: ;
shuf iconv xz gpg openssl: -o; * -o; *--output; * -out
yq jq: -i; * -i; *--in-place
xxd: * *
curl: -o; * -o; -O; * -O; *--output; *--remote-name; * -D; * -c; *--dump-header; *--cookie-jar; *--trace;
    -K; * -K; *--config
wget: ;
unzip 7z gunzip gzip: ;
ruff: *--fix; format
black isort prettier: ;
python python3: -m compileall; -m zipfile; -m venv; -m ensurepip
diff: *--output
strings nm: * -o
pandoc ffmpeg convert magick: ;
sqlite3 duckdb: ;
rsync scp: ;
"""


@cache
def _rows() -> tuple[tuple[str, str, tuple[str, ...], str], ...]:
    """Return the table: a program, the label of a row, its patterns, and what it does."""
    found = [
        (name, *_row(name, option), "run other programs")
        for name, signs in unjudged.rows().items()
        if name not in _programs(_RUNS) and " " not in name
        for option in _options(signs)
    ]
    wrappers = " ".join(sorted({*WRAPPERS, *SHELLS} - {"!"} - set(_programs(_RUNS))))
    for what, text in (("run other programs", f"{_RUNS}\n{wrappers}: ;"), ("write files", _WRITES)):
        for row in text.replace("\n    ", " ").strip().splitlines():
            names, _, options = row.partition(":")
            for name in names.split():
                for option in dict.fromkeys(map(str.strip, options.split(";"))):
                    if option or options.strip() == ";" or options.lstrip().startswith(";"):
                        found += [(name, *_row(name, option), what)]
    return tuple(dict.fromkeys(found))


def _options(signs: tuple[str, ...]) -> Iterator[str]:
    """Yield the patterns of the options among the signs of a program that no denial can judge."""
    for sign in signs:
        if sign == "*":
            yield ""
        elif sign.startswith("--"):
            yield f"*{sign}"
        elif sign.startswith("-"):
            yield from (sign, f"* {sign}")


def _programs(text: str) -> list[str]:
    return [name for row in text.splitlines() if row[:1].strip() for name in row.partition(":")[0].split()]


def _row(name: str, option: str) -> tuple[str, tuple[str, ...]]:
    """Return the label of a row and its patterns."""
    if not option:
        return name, (name, f"{name} *")
    label = f"{name} {WILD.sub(' ', option).strip()}".strip() if option.strip("*' \"") else name
    return " ".join(label.split()), (f"{name} {option}*",)


@lru_cache(maxsize=1024)
def breadth(pattern: str, kind: str) -> str | None:
    """Return what an allowance by this pattern covers beyond what it looks like, in words; `None` if nothing is known.

    Args:
        pattern: The pattern of the rule.
        kind: What the subjects of its tool are: `shell`, `path` or `text`.
    """
    if not has_wildcard(pattern):
        return None
    if set(pattern) == {"*"}:
        return {"shell": "covers every command", "path": "covers every file"}.get(kind, "covers every call")
    if kind != "shell":
        return None
    first, blank, rest = pattern.partition(" ")
    if has_wildcard(first):
        covered = sorted({name for name, *_ in _rows() if overlap(first, name)})
        fits = f", {_named(covered)} among them" if covered else ""
        return f"covers every program whose name fits {first!r}{fits}"
    named = f"{program(first) or first}{blank}{rest}"
    return "; ".join(_said(named)) or None


def _said(pattern: str) -> Iterator[str]:
    name = pattern.partition(" ")[0]
    for what in ("run other programs", "write files"):
        labels = [
            label
            for each, label, patterns, does in _rows()
            if each == name and does == what and any(overlap(pattern, row) for row in patterns)
        ]
        if labels:
            yield f"{_named(list(dict.fromkeys(labels)))} can {what}"


def _named(labels: list[str]) -> str:
    shown, more = labels[:MAX_NAMED], len(labels) - MAX_NAMED
    if more > 0:
        return f"{', '.join(shown)} and {more} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
