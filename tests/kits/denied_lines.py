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

UNJUDGED: tuple[str, ...] = (
    "vim -c '!{}'", "vim -c ':!{}' f", "vim '+!{}' f", "vi '+!{}' f", "view -c '!{}'", "ex -c '!{}' f", "ed '!{}'",
    "ed f", "nvim --cmd '!{}'", "emacs --eval '(shell-command \"{}\")'", "emacs --batch -l q.el", "nano -s '{}' x",
    "nano f", "less '+!{}' f", "more '+!{}' f", "man -P '{}' ls", "man --pager='{}' ls", "man --page '{}' ls",
    "dc -e '!{}'", "printf -v 'a[$({})]' x", "printf '-va[$({})]' x", "test -v 'a[$({})]'", "[ -v 'a[$({})]' ]",
    "[[ -v 'a[$({})]' ]]", "read 'a[$({})]'", "unset 'a[$({})]'", "declare 'a[$({})]=1'", "typeset 'a[$({})]=1'",
    "export 'a[$({})]=1'", "readonly 'a[$({})]=1'", "let 'a[$({})]=1'", "mapfile 'a[$({})]'", "getopts a 'a[$({})]'",
    "wait -p 'a[$({})]'", "(( a[$({})] ))", "echo ${{a[$({})]}}", "x='a[$({})]'; (( x ))",
    "sh -c 'x=\"a[\\$({})]\"; let x'", "enable -f ./q.so q", "hash -p ./q ls; ls", "openssl req -engine ./q.so",
    "run-parts d", "sort --compress-program '{}' x", "sort --compress-program=./q x", "sort --compress-pr=./q x",
    "split --filter='{}' f", "split --fil=./q f", "git -c core.pager='{}' log", "git -c core.fsmonitor=./q status",
    "git grep -O'{}' a", "git grep -O./q a", "git diff --ext-diff", "git log --ext-diff", "git clone 'ext::{}'",
    "git clone -u ./q a b", "git fetch --upload-pack='{}' .", "git fetch --upload-p ./q .", "git config alias.x '!{}'",
    "git difftool", "git config --global core.pager ./q", "git rebase -i HEAD~1", "gdb -ex '!{}'",
    "gdb -ex 'shell {}'", "gdb -x cmds", "sqlite3 x.db '.shell {}'", "sqlite3 x.db '.system {}'",
    "sqlite3 x.db -cmd '.shell {}'", "psql -c '\\! {}'", "psql -f x", "psql -c \"copy t to program '{}'\"",
    "mysql -e '\\! {}'", "tclsh x.tcl", "expect -c 'spawn {}'", "expect x.exp", "start-stop-daemon -S -x ./q -- x",
    "at now", "at -f job now", "batch", "crontab f", "crontab -", "ssh -o ProxyCommand='{}' h",
    "ssh -oProxyCommand=./q h", "scp -S ./q a h:", "sftp -b f h", "rsync -e '{}' a h:b", "rsync -ave ./q a h:b",
    "rsync --rsh=./q a h:b", "rsync --rs ./q a h:b", "tar --to-command='{}' -xf a.tar", "tar -I ./q -xf a",
    "tar --checkpoint=1 --checkpoint-action=exec='{}' -cf a b", "tar xIf ./q a", "tar --use-comp ./q -xf a",
    "tar -cf a --rsh-command=./q h:b", "zip a b -T -TT '{}'", "zip -qTT ./q a b", "parallel < cmds", "entr ./q",
    "make -f M", "make --eval='x:;{}' x", "make SHELL=./q", "sed '1e {}' f", "sed -n '/a/e {}' f", "sed 's,a,{},e' f",
    "sed -e 's,a,b,ge' f", "sed -f f", "sh -c 'sort $0' --compress-program=./q", "awk 'BEGIN{{system(\"{}\")}}'",
    "awk 'BEGIN{{\"{}\"|getline}}'", "gawk -f x.awk", "perl -e 'unlink \"x\"'", "perl -e 'exec \"{}\"'",
    "perl -e 'print `{}`'", "ruby -e 'system(\"{}\")'", "python -c 'import os; os.system(\"{}\")'",
    "python -c 'import os; os.remove(\"x\")'", "php -r 'system(\"{}\");'",
    "python -c 'import subprocess as s; s.run([\"./q\"])'", "python -c '__import__(\"o\"+\"s\")'",
    "node -e 'require(\"child_process\").execSync(\"{}\")'", "node -r ./q x", "lua -e 'os.execute(\"{}\")'", "m4 f",
    "rg --pre ./q x", "rg --pre=./q x", "ctags --options=x", "tcpdump -z ./q", "nmap --script ./q",
    "wget --use-askpass=./q u", "wget -e 'use_askpass=./q' u", "mutt -e '!{}'", "lftp -e '!{}'", "ftp h",
    "screen -dm sh -c '{}'", "tmux new-session '{}'", "gcc -wrapper ./q x.c", "cargo --config x build",
    "go vet -vettool=./q", "PATH=.:$PATH ls", "export PATH=.; ls", "env PATH=. ls", "env -S 'PATH=. ls'",
    "sudo PATH=. ls", "sh -c 'PATH=. ls'", "export BASH_ENV=q; bash -c ls", "env BASH_ENV=q bash -c ls",
    "env LD_PRELOAD=./q.so ls", "declare -x LD_PRELOAD=./q.so", "env GIT_SSH_COMMAND='{}' git fetch",
    "env EDITOR=./q git commit", "env PAGER='{}' man ls", "env PROMPT_COMMAND='{}' bash -i",
    "cp ./q ~/.local/bin/ls; ls", "ln -s /tmp/q ls && ls", "install q /usr/local/bin/git",
)  # fmt: skip
"""Lines that may run `{}`, or a file `q`, by words in another language than the shell's, or by a changed program."""

NEAR: tuple[str, ...] = (
    "python -c \"import os; print(os.getcwd())\"", "sed -e s/a/b/ -e s/c/d/ x", "sed -i 's/foo/bar/g' x.py",
    "awk -F: '{print $1}' x", "git commit -m 'x' -e", "ssh -p 22 host ls", "rsync -av --delete a b",
    "tar -xvf a.tar -C out", "sqlite3 ./x.db 'select 1'", "psql -h db -U me -c 'select * from t limit 3'",
    "source .venv/bin/activate && pip list", "git log -p -3", "git rebase main", "docker build -t x .",
    "curl -fsSL https://e.org -o x", "git config --get user.name", "less +G x.log", "node --version", "python eval.py",
    "python -m pip install x", "test -v x", "make CFLAGS=-O2", "cp a b; ls", "mv x.tmp x", "sort -u x",
    "zip -r a.zip b", "export FOO=1; ls", "git -c user.name=x commit -m y", "ls | xargs sed -i s/a/b/",
    "git ls-files | xargs git add", "ls | xargs tar -cf a.tar", "git clone https://e.org/x.git", "git fetch --all",
    "man ls", "./run.sh", "bin/tool --check x", "env PYTHONPATH=. ./x",
)  # fmt: skip
"""Lines that look somewhat like one of those and are covered by an allowance."""

COPIES: tuple[str, ...] = (
    "ln -s /bin/rm q && ./q {}", "ln -s /bin/rm q; q {}", "cp /bin/rm q; ./q {}", "install /bin/rm q; ../d/q {}",
    "mv /bin/rm q; /tmp/q {}", "cp /bin/rm grep; ./grep {}", "hash -p /bin/rm q; q {}", "alias q=rm; q {}",
    "q() {{ rm \"$@\"; }}; q {}", "function q {{ rm \"$@\"; }}; q {}", "PATH=. q {}", "~/q {}", "$PWD/q {}",
    "q=rm; $q {}", "dd if=/bin/rm of=q; ./q {}", "tar xf a; ./q {}", "curl u -o q; ./q {}", "./q {}", "q {}",
    "sh -c './q {}'", "sh -c 'q() {{ rm \"$@\"; }}; q {}'", "env ./q {}", "timeout 5 /tmp/q {}",
)  # fmt: skip
"""Lines that give `{}` to a program that is another one by another name."""


def spellings() -> list[tuple[str, str]]:
    """Return pairs of a denial and a line that runs what it denies, or may run it."""
    found = [*PUBLIC, *((denial, line) for denial, lines in DENIED.items() for line in lines)]
    for (denial, command), wrapped in product(PLAINLY.items(), WRAPPED):
        found.append((denial, wrapped.format(command, q=f"'{command}'", d=f'"{command}"')))
    return list(dict.fromkeys(found))
