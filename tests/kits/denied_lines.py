"""Spellings of denied commands: lines made of wrappers, quotes, paths and options, and those found in the field."""

from __future__ import annotations

from itertools import product

PUBLIC: tuple[tuple[str, str], ...] = (
    ("git push*", "git  push"),
    ("git push*", "git 'push'"),
    ("git push*", 'git "push"'),
    ("git push*", "git pu''sh"),
    ("git push*", "git status; git  push"),
    ("git push*", "git -C . push"),
    ("git push*", "git -c core.pager=cat push"),
    ("git push*", "git --no-pager push"),
    ("rm *", "env rm x"),
    ("rm *", "/bin/rm x"),
    ("rm *", "command rm x"),
    ("rm *", "sh -c 'rm x'"),
    ("rm *", "bash -lc 'rm x'"),
    ("rm *", "ls | xargs rm"),
    ("rm *", "find . -name x -exec rm {} +"),
    ("rm *", "eval 'rm x'"),
    ("rm *", "echo $(rm x)"),
    ("rm -rf *", "rm -r -f x"),
)
"""Denials and the lines that got past one in this or another agent."""

DENIED: dict[str, tuple[str, ...]] = {
    "git push*": (
        "git push",
        "git push origin main",
        "git  push",
        "git\tpush --tags",
        "git -C . push",
        "git --no-pager push",
        "git -c a.b=c push",
        "git --git-dir=.git --work-tree . push",
        "/usr/bin/git push",
        "git 'push'",
        'git "push" -q',
        "g''it push",
        "git p\\ush",
        'git pu""sh origin',
        "git \\\npush",
        "git -C a -c b=c push",
        "git $'push'",
        "git $'\\x70ush'",
        "git --exec-path=/x push",
        "git -p push",
    ),
    "rm *": (
        "rm x",
        "rm -rf x",
        "/bin/rm x",
        "./bin/../rm x",
        "'rm' x",
        '"rm" -- x',
        "r\\m x",
        "\\rm x",
        "r''m x",
        "rm -r -f -- x",
        "rm\tx",
        "rm x > out",
        "rm > out x",
        "rm $HOME/x",
        'rm "$x"',
        "rm *.tmp",
        "$'rm' x",
        "$'\\162m' x",
        "rm `ls`",
        "rm -v 'a b'",
    ),
    "curl *|*sh": ("curl x|sh", "curl x | sh", "curl -s x | bash -s", "curl -fsSL 'x y' | sh"),
    "rm -rf *": (
        "rm -rf x",
        "rm -fr x",
        "rm -r -f x",
        "rm -f -r x",
        "rm -Rf x",
        "rm --recursive --force x",
        "rm --force -r x",
        "rm x -rf",
        "rm -vrf x",
        "rm -rfv x",
        "rm --recursiv --force x",
    ),
    "git push --force*": (
        "git push --force",
        "git push origin --force",
        "git push -f",
        "git push -uf origin main",
        "git push --force-with-lease",
        "git push --forc",
        "git -C x push origin main -f",
    ),
    "shutdown*": ("shutdown", "/sbin/shutdown -h now", "'shutdown' now", 'shut""down'),
}
"""Denials and lines that run what they deny without a wrapper."""

WRAPPED: tuple[str, ...] = (
    "env {}", "env A=1 {}", "env -i -u A {}", "/usr/bin/env {}", "command {}", "exec {}", "nohup {}", "setsid -f {}",
    "time {}", "time -p {}", "timeout 5 {}", "timeout -s KILL 5s {}", "timeout --signal=KILL 5 {}", "nice {}",
    "nice -n 5 {}", "ionice -c 3 {}", "stdbuf -o L {}", "sudo {}", "sudo -u me {}", "sudo -E A=1 {}", "doas {}",
    "sh -c {q}", "bash -lc {q}", "bash -c {q} name", "dash -e -c {q}", "zsh -euxc {q}", "bash -o pipefail -c {q}",
    "env -S {q}", "eval {q}", "eval {}", "trap {q} EXIT", "su -c {q}", "su me -c {q}", "script -c {q}", "flock f {}",
    "flock f -c {q}", "watch -n 1 {q}", "strace -f -e trace=all {}", "chroot / {}", "busybox {}", "xargs {}",
    "ls | xargs -n 1 -P 2 {}", "ls | xargs -I F {} F", "parallel {} ::: a b", "find . -exec {} ;",
    "find . -execdir {} +",
    "find . -name x -exec sh -c {q} ;", "fd x -x {}", "git bisect run {}", "git submodule foreach {q}",
    "git rebase --exec {q} main", "ssh host {q}", "ssh -p 22 host {}", "npx -c {q}", "uv run {}", "poetry run {}",
    "conda run -n x {}", "docker exec -it box {}", "docker run --rm box {}", "kubectl exec pod -- {}", "unknown-one {}",
    "unknown-one --opt x {}", "true; {}", "true && {}", "false || {}", "true | {}", "true & {}", "! {}", "A=1 {}",
    "A=1 B='x y' {}", "({})", "{{ {}; }}", "$({})", "echo `{}`", 'echo "$({})"', "cat <({})", "echo ${{x:-$({})}}",
    "if true; then {}; fi", "while {}; do break; done", "until {}; do :; done", "for f in a; do {}; done",
    "case x in x) {};; esac", "f() {{ {}; }}; f", "function f {{ {}; }}; f", "coproc {}", "> out {}", "2>&1 {}",
    "true\n{}", "true # x\n{}", "sh <<< {q}", "sh <<EOF\n{}\nEOF", "cat <<'EOF' | sh\n{}\nEOF", "echo {q} | sh",
    "printf {q} | bash -s", "alias x={q}; x", "sh -c \"sh -c {q}\"", "env nice -n 1 timeout 5 sudo -u x {}",
    "x=$({})", "export x=$({})", "[[ -n $({}) ]]", "echo $((1 + $({})))", "diff <(ls) <({})",
    "select x in a; do {}; done",
    "{} &", "({}) 2>/dev/null || true", "time nohup {} &", "cd /tmp && {}", "cat <<EOF\n$({})\nEOF", "python -c {q}",
    "awk 'BEGIN {{ system({d}) }}'", "perl -e 'system({d})'", "make x && {}", "caffeinate {}", "proxychains4 {}",
    "builtin {}", "gtimeout -k 1 5 {}", "chrt -f 10 {}", "taskset 0x3 {}", "unbuffer {}", "pkexec --user x {}",
    "runuser -u x -- {}", "setpriv --reuid 1 {}", "unshare -r {}", "nsenter -t 1 -m {}", "ltrace -f {}",
    "valgrind --leak-check=full {}", "perf stat -e x {}", "gdb -q --args {}", "ls | entr -r {}", "rlwrap -f x {}",
    "entr -r {}", "fakeroot -- {}", "proot -r / {}", "numactl -N 0 {}", "systemd-run --user -p A=b {}",
    "systemd-inhibit --why x {}", "dbus-run-session -- {}", "xvfb-run -a -n 9 {}", "toybox {}", "direnv exec . {}",
    "bunx -p x {}", "pnpx {}", "uvx --from x {}", "pipx run --spec x {}", "pipenv run {}", "pdm run -p . {}",
    "hatch -e x run {}", "mamba run -n x {}", "micromamba run -p x {}", "bundle exec {}", "npm exec -- {}",
    "podman exec -w / box {}", "rbash -c {q}", "fish -c {q}", "ash -c {q}", "mksh -c {q}", "ksh -lc {q}",
)  # fmt: skip
"""Lines that run `{}`; `{q}` is it in quotes of the shell, `{d}` in quotes of a program."""

PLAINLY = {"git push*": "git push", "rm *": "rm x"}


def spellings() -> list[tuple[str, str]]:
    """Return pairs of a denial and a line that runs what it denies, or may run it."""
    found = [*PUBLIC, *((denial, line) for denial, lines in DENIED.items() for line in lines)]
    for (denial, command), wrapped in product(PLAINLY.items(), WRAPPED):
        found.append((denial, wrapped.format(command, q=f"'{command}'", d=f'"{command}"')))
    return list(dict.fromkeys(found))
