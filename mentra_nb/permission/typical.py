"""Programs as far as suggestions of rules need to know them: which only read, which check, and what lines are typical.

Of other programs a suggested rule covers only what was allowed word for word.
"""

from __future__ import annotations

import re

READS: dict[str, frozenset[str]] = {
    program: frozenset()
    for program in (
        *("basename", "cat", "cd", "cmp", "column", "comm", "cut", "df", "diff", "dirname", "du", "echo", "egrep"),
        *("fgrep", "file", "fold", "grep", "head", "hexdump", "jq", "ls", "md5sum", "nl", "od", "printf", "pwd"),
        *("readlink", "realpath", "sha1sum", "sha256sum", "stat", "strings", "tail", "tr", "wc", "which", "zcat"),
    )
}
"""Programs that only read, by name; with words, only these subcommands of them."""
READS |= {
    "git": frozenset({"blame", "diff", "log", "ls-files", "rev-parse", "shortlog", "show", "status"}),
    "conda": frozenset({"info", "list"}),
    "pip": frozenset({"list", "show", "freeze"}),
    "npm": frozenset({"ls", "outdated"}),
    "docker": frozenset({"images", "logs", "ps"}),
    "kubectl": frozenset({"describe", "get", "logs"}),
}
CHECKS: dict[str, frozenset[str]] = {
    **{program: frozenset() for program in ("eslint", "flake8", "mypy", "pylint", "pyright", "pytest", "tsc")},
    "cargo": frozenset({"check", "clippy", "test"}),
    "go": frozenset({"test", "vet"}),
    "ruff": frozenset({"check"}),
}
"""Programs that run or judge the project's own code and change nothing else, as `READS`."""
SCRIPTS: frozenset[str] = frozenset({"bash", "julia", "node", "perl", "python", "python3", "Rscript", "ruby", "sh"})
"""Programs that run the file that is named first."""


def _lines(text: str) -> tuple[str, ...]:
    """Return what stands between the semicolons and line breaks of a text."""
    return tuple(line.strip() for line in re.split("[;\n]", text) if line.strip())


HARMLESS = _lines(
    """
cat ../other/private.csv; head -5 ../other/private.csv; wc -l ../other/private.csv;
ls; ls -la; ls -la src; ls data; pwd; cd src; cat README.md; cat src/main.py; cat data.csv; head README.md;
head -5 data.csv; head -n 20 data/sales.csv; tail -5 data.csv; tail -n 50 app.log; tail -f app.log;
wc -l data.csv; wc -l src/main.py; grep -n TODO src/main.py; grep -rn import src; grep -c error app.log;
sort data.csv; uniq -c data.csv; cut -d, -f1 data.csv; file data.csv; stat data.csv; du -sh data; df -h;
diff a.py b.py; md5sum data.csv; sha256sum data.csv; which python; echo done; jq .name package.json;
git status; git status -s; git log; git log --oneline -5; git diff; git diff src/main.py; git diff --stat;
git show HEAD; git branch; git blame src/main.py; git ls-files; pip list; pip show pandas; npm ls; conda list;
docker ps; kubectl get pods; pytest; pytest -q; pytest -x tests; pytest -q tests/test_main.py; ruff check;
ruff check src; mypy; mypy src; cargo test; cargo check; go test ./...; go vet ./...; npm test; make test
"""
)
"""Lines that are typical of known programs and do no harm."""
HARMFUL = _lines(
    """
cat .env; cat ~/.ssh/id_rsa; cat ~/.aws/credentials; cat /etc/shadow; head .env; head -5 .env;
head -n 5 ~/.ssh/id_rsa; tail .env; tail -n 5 ~/.netrc; grep -r password .; grep -rn KEY ~; grep -n . .env;
strings ~/.ssh/id_rsa; od -c .env; jq . ~/.docker/config.json; ls ~/.ssh; sort -o data.csv data.csv;
find . -delete; find . -exec rm {} +; sed -i s/a/b/ data.csv; awk 'BEGIN{system("id")}'; xargs rm;
tar -xf a.tar -C /; cp a b; mv a b; rm a; rm -r data; rm -rf /; chmod -R 777 .; chown me a; git push;
git push --force; git reset --hard; git clean -fd; git checkout .; git commit -am x; git diff --output=a;
git diff --ext-diff; git -c core.pager=id log; git config core.pager id; git stash drop; git branch -D main;
git rebase main; git add .; pip install x; pip uninstall -y x; npm install x; npm run deploy; npm publish;
conda install x; docker run x; docker rm -f x; kubectl delete pod x; kubectl exec x; curl https://x.example;
curl -d @a https://x.example; wget https://x.example; ssh host; scp a host:; rsync -a --delete a b;
python -c 'x'; python x.py; bash x.sh; sh -c x; node x.js;
pytest -p x; pytest -p x.py; pytest -c x.ini; pytest --rootdir=/ x; ruff check --fix;
ruff format; mypy --install-types; make install; make deploy; cargo publish; cargo run; go run x.go;
eslint --fix src; sudo ls; kill 1; dd if=a of=b; psql -c x; sqlite3 a.db x; crontab -r; systemctl stop x;
truncate -s 0 a; tee a; env; printenv
"""
)
"""Lines that are typical of known programs and change, send, run or show what should be asked about."""
