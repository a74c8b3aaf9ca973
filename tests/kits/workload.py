"""A workload of common data work: a small project, and 300 calls in it that a model might make.

Which tools are called how often is from public counts. Of 28,064 recorded shell commands (github.com/amd/gaia, issue
3971): `shell` is 67 % of all steps; the programs most often run are cd, echo, grep, head, git, tail, python, sed, ls
and wc; 71 % of the lines join commands with `&&`, 68 % have a pipe. The other third is shared as in 185,537 messages of
Amp (amp-analysis-casestudy.vercel.app, tool patterns): read 38,019, search 14,815, edit 42,195, create 3,630. How the
shell lines are shared among the kinds is an estimate, as no public count of data work has them; `bench_questions.py`
says how far it could be wrong.

The calls of `taken.jsonl` were made by a real model, Qwen2.5-Coder-0.5B, which was asked `PROMPTS` in this project.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

TAKEN = Path(__file__).with_name("taken.jsonl")
TOTAL = 300


class Call(NamedTuple):
    """A call of a tool, and of which kind it is."""

    kind: str
    tool: str
    arguments: dict[str, Any]


class Kind(NamedTuple):
    """A kind of calls: how many of 300 it has, and what they may be."""

    name: str
    share: int
    forms: tuple[str | tuple[str, dict[str, Any]], ...]
    """Lines of `shell`, or a tool and its arguments."""


_REGIONS = ("north", "south", "east", "west")
_CLEAN = '''"""Read the sales."""

import csv


def rows(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def total(path):
    return sum(int(row["units"]) for row in rows(path))
'''
_REPORT = '''"""Print the units of each region."""

import collections
import sys

import clean

found = collections.Counter()
for row in clean.rows(sys.argv[1]):
    found[row["region"]] += int(row["units"])
for region, units in sorted(found.items()):
    print(region, units)
'''
_PIPELINE = '''"""Write the total of all units to results/total.txt."""

import clean

with open("results/total.txt", "w") as file:
    print(clean.total("data/sales.csv"), file=file)
'''
_TEST = """import sys

sys.path.insert(0, "src")

import clean


def test_total():
    assert clean.total("data/sales.csv") > 0
"""


def _sales() -> str:
    lines = [
        f"2025-{1 + n % 12:02}-{1 + n % 28:02},{_REGIONS[n % 4]},item{n % 7},{1 + n * 7 % 40},{5 + n % 9}.50"
        for n in range(90)
    ]
    return "\n".join(["date,region,product,units,price", *lines, ""])


FILES: dict[str, str] = {
    "README.md": "# Sales\n\nThe sales of a shop, by region and product.\nTODO: describe the columns.\n",
    "requirements.txt": "pandas\nduckdb\n",
    ".gitignore": "*.tmp\n",
    "data/sales.csv": _sales(),
    "data/customers.csv": "id,region,name\n" + "".join(f"{n},{_REGIONS[n % 4]},customer{n}\n" for n in range(60)),
    "data/old/customers.csv": "id,region,name\n" + "".join(f"{n},{_REGIONS[n % 3]},customer{n}\n" for n in range(40)),
    "data/events.jsonl": "".join(f'{{"kind": "{"view" if n % 3 else "buy"}", "at": {n}}}\n' for n in range(90)),
    "logs/app.log": "".join(f"2025-01-01 00:{n:02} {'ERROR' if n % 9 == 0 else 'INFO'} step {n}\n" for n in range(60)),
    "src/clean.py": _CLEAN,
    "src/report.py": _REPORT,
    "src/pipeline.py": _PIPELINE,
    "tests/test_clean.py": _TEST,
    "results/summary.csv": "region,units\nnorth,1\n",
}


def make_project(folder: Path) -> None:
    """Fill an empty folder with the project, as a Git repository with one commit, and a database."""
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    with sqlite3.connect(folder / "data" / "shop.db") as database:
        database.execute("create table sales (region text, units integer)")
        database.executemany("insert into sales values (?, ?)", [(_REGIONS[n % 4], n) for n in range(100)])
    database.close()
    person = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    for words in (("init", "-q"), ("add", "-A"), (*person, "commit", "-qm", "Add the sales")):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    for name, value in (("name", "Ada"), ("email", "ada@example.org")):
        subprocess.run(["git", "config", f"user.{name}", value], cwd=folder, check=True)
    readme = folder / "README.md"  # somebody has changed a file, and written another again as it was
    readme.write_text(readme.read_text() + "More to come.\n")
    (folder / "src" / "clean.py").write_text(_CLEAN)


def _script(*lines: str) -> str:
    return "\n".join(["python - <<'EOF'", *lines, "EOF"])


_LOOK = (
    "ls -la",
    "pwd && ls",
    "ls -la data/ && wc -l data/*.csv",
    "head -{n} {csv}",
    "cd data && head -{n} sales.csv",
    "cat README.md",
    "cat src/{module}.py | head -50",
    "sed -n '1,{n}p' src/{module}.py",
    "tail -n {n} logs/app.log",
    "tail -1 {csv}; echo; date",
    "find . -name '*.csv' -not -path './.git/*' | head -20",
    "find data -type f | xargs ls -la | sort -k5 -n",
    "grep -rn '{word}' src tests 2>/dev/null | head -{n}",
    "grep -c ERROR logs/app.log",
    "grep -n 'def ' src/*.py",
    "cd src && grep -n import *.py | sort -u",
    "cut -d, -f2 {csv} | sort | uniq -c | sort -rn | head",
    "awk -F, 'NR > 1 {{ s[$2] += $4 }} END {{ for (k in s) print k, s[k] }}' data/sales.csv",
    "wc -l data/*.csv src/*.py",
    "du -sh data && df -h . | tail -1",
    "echo '=== columns ===' && head -1 {csv} && echo '=== rows ===' && wc -l {csv}",
    "diff data/customers.csv data/old/customers.csv | head -{n}",
    "ls -la results/ 2>/dev/null || echo none",
    "for f in data/*.csv; do echo $f; head -1 $f; done",
    "stat data/sales.csv && md5sum data/sales.csv",
    "sort -t, -k4 -rn data/sales.csv | head -{n}",
)
_PYTHON = (
    "python -c \"import pandas as pd; print(pd.read_csv('{csv}').describe())\"",
    "python -c \"import pandas as pd; d = pd.read_csv('data/sales.csv'); print(d.groupby('{column}').units.sum())\"",
    _script("import pandas as pd", "d = pd.read_csv('{csv}')", "print(d.head({n}))", "print(d.dtypes, d.isna().sum())"),
    _script("import json", "n = [json.loads(line)['kind'] for line in open('data/events.jsonl')]", "print(len(n))"),
    _script("import csv, collections", "c = collections.Counter(r['region'] for r in csv.DictReader(open('{csv}')))"),
    "python3 -c \"print(sum(1 for _ in open('{csv}')))\"",
    "cd src && python -c \"import clean; print(clean.total('../data/sales.csv'))\"",
    "python -c \"import sys; sys.path.insert(0, 'src'); import clean; print(clean.rows('{csv}')[:2])\"",
)
_QUERY = (
    _script("import duckdb", """print(duckdb.sql("select region, count(*) from '{csv}' group by 1"))"""),
    _script("import duckdb", """print(duckdb.sql("select * from '{csv}' limit {n}"))"""),
    _script(
        "import sqlite3", "c = sqlite3.connect('data/shop.db')", "print(c.execute('select * from sales').fetchone())"
    ),
)
_GIT = (
    "git status",
    "git status --short && git branch -a",
    "git log --oneline -{n}",
    "git diff",
    "git diff --stat HEAD",
    "git diff src/{module}.py | head -50",
    "git show --stat HEAD | head -20",
    "git blame src/{module}.py | head -{n}",
    "cd data && git log --oneline -- sales.csv | head -3",
)
_WHAT_IS_THERE = (
    "python --version && which python",
    "pip list 2>/dev/null | grep -i {package}",
    "pip show {package} | head -3",
    "python -c 'import {package}; print({package}.__version__)'",
    "nproc; free -h | head -2",
    "env | grep -i python",
)
_CHECK = (
    "python -m pytest -q 2>&1 | tail -5",
    "pytest -q tests/test_clean.py",
    "ruff check src",
    "ruff format --check src tests",
    "python -m py_compile src/{module}.py && echo ok",
)
_WRITE = (
    "mkdir -p results/{word}",
    "PYTHONPATH=src python src/pipeline.py",
    "sort -t, -k4 -rn data/sales.csv | head -20 > results/top.csv",
    _script(
        "import pandas as pd", "d = pd.read_csv('{csv}')", "d.groupby('region').size().to_csv('results/{word}.csv')"
    ),
    "cp {csv} results/copy.csv && ls results",
    "mv results/summary.csv results/{word}.csv",
    "rm -f results/summary.csv",
    "sed -i 's/north/North/' data/customers.csv",
    "grep ERROR logs/app.log > results/errors.txt && wc -l results/errors.txt",
    "echo matplotlib >> requirements.txt",
    "ruff format src && git diff --stat",
)
_TEMPORARY = (
    "sort {csv} > /tmp/{mark}.txt && wc -l /tmp/{mark}.txt",
    "cut -d, -f2 {csv} > /tmp/{mark}.csv; sort -u /tmp/{mark}.csv | head -{n}",
    "cd $(mktemp -d) && echo 1 > {mark} && ls",
)
_NETWORK = (
    "curl -fsSL http://{server}/data.csv -o data/new.csv",
    "curl -s http://{server}/data.csv | head -5",
    "python -c \"import urllib.request; print(urllib.request.urlopen('http://{server}/').read()[:50])\"",
    "pip install -q --retries 0 --index-url http://{server}/simple seaborn-more",
)


def _files(**operation: Any) -> tuple[str, dict[str, Any]]:
    return "files", {"operations": [operation]}


_EDIT = (
    _files(op="replace", path="src/clean.py", old="int(row", new="float(row"),
    _files(op="replace", path="src/report.py", old="sorted(found.items())", new="found.most_common({n})"),
    _files(op="replace", path="README.md", old="TODO: describe the columns.", new="The columns: {word}."),
    _files(op="insert", path="src/pipeline.py", anchor="import clean\n", position="after", content="import {word}\n"),
    ("write", {"path": "requirements.txt", "content": "pandas\nduckdb\n{package}\n"}),
    ("write", {"path": "src/report.py", "content": "import clean\n\nprint(clean.total('{csv}'))\n"}),
)
KINDS: tuple[Kind, ...] = (
    Kind("look at files (shell)", 84, _LOOK),
    Kind("read data with Python (shell)", 38, _PYTHON),
    Kind("run a script that prints (shell)", 8, ("PYTHONPATH=src python src/report.py data/sales.csv | head -{n}",)),
    Kind("query data (shell)", 8, _QUERY),
    Kind("look at Git (shell)", 16, _GIT),
    Kind("look at what is installed (shell)", 8, _WHAT_IS_THERE),
    Kind("run tests and linters (shell)", 10, _CHECK),
    Kind("write results (shell)", 16, _WRITE),
    Kind(
        "change Git (shell)", 4, ("git add -A", "git add src && git commit -qm 'Say {word}'", "git checkout -qb {word}")
    ),
    Kind("write temporary files (shell)", 4, _TEMPORARY),
    Kind("reach the network (shell)", 4, _NETWORK),
    Kind("write outside the folder (shell)", 1, ("cp results/summary.csv ~/{mark}.csv",)),
    Kind("read a file (read)", 38, (("read", {"path": "{csv}"}), ("read", {"path": "src/{module}.py", "limit": 40}))),
    Kind(
        "list and search (files)",
        15,
        (_files(op="list", path="data"), _files(op="search", path="src", pattern="{word}")),
    ),
    Kind("edit a file (files, write)", 42, _EDIT),
    Kind("create a file (write)", 4, (("write", {"path": "src/{word}.py", "content": "print({n})\n"}),)),
)


def generated(count: int, server: str, mark: str, seed: int = 14) -> list[Call]:
    """Return calls in the shares of `KINDS`, in a random order that is always the same.

    Args:
        count: How many.
        server: The address of the network that they reach for, as `host:port`.
        mark: The name of each file that they write outside the project.
        seed: Of the order and of what the calls are about.
    """
    chance = random.Random(seed)
    exact = {kind.name: count * kind.share / TOTAL for kind in KINDS}
    shares = {name: int(share) for name, share in exact.items()}
    for name in sorted(exact, key=lambda name: shares[name] - exact[name])[: count - sum(shares.values())]:
        shares[name] += 1
    calls = [
        _filled(kind, kind.forms[n % len(kind.forms)], {"server": server, "mark": mark}, chance)
        for kind in KINDS
        for n in _shuffled(shares[kind.name], chance)
    ]
    chance.shuffle(calls)
    return calls


def _shuffled(count: int, chance: random.Random) -> Iterator[int]:
    start = chance.randrange(100)
    yield from range(start, start + count)


def _filled(kind: Kind, form: str | tuple[str, dict[str, Any]], known: dict[str, str], chance: random.Random) -> Call:
    slots = known | {
        "n": str(chance.randint(2, 30)),
        "csv": chance.choice(("data/sales.csv", "data/customers.csv")),
        "column": chance.choice(("region", "product")),
        "module": chance.choice(("clean", "report", "pipeline")),
        "word": chance.choice(("units", "region", "total", "monthly", "share")),
        "package": chance.choice(("pandas", "duckdb")),
    }

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return value.format(**slots)
        if isinstance(value, dict):
            return {name: fill(each) for name, each in value.items()}
        return [fill(each) for each in value] if isinstance(value, list) else value

    tool, arguments = ("shell", {"command": form}) if isinstance(form, str) else form
    return Call(kind.name, tool, fill(arguments))


def taken() -> list[Call]:
    """Return the calls of the real model."""
    lines = [json.loads(line) for line in TAKEN.read_text().splitlines()]
    return [Call(f"real model ({line['tool']})", line["tool"], line["arguments"]) for line in lines]


PROMPTS: tuple[str, ...] = (
    "How many rows has data/sales.csv?",
    "Show the first five lines of data/sales.csv.",
    "Which files are in the folder data?",
    "Which regions are in data/sales.csv, and how often?",
    "What is the sum of units in data/sales.csv? Use Python in the shell.",
    "How many lines of logs/app.log have ERROR?",
    "Show the last ten lines of logs/app.log.",
    "Which Python version is installed?",
    "Is pandas installed, and which version?",
    "What does src/clean.py do?",
    "Find all CSV files in this folder.",
    "What changed since the last commit?",
    "Show the history of this repository.",
    "Run the tests.",
    "Count the events of each kind in data/events.jsonl.",
    "Print the mean price per product in data/sales.csv with pandas.",
    "Make a folder results/monthly.",
    "Write the ten sales with the most units to results/top.csv.",
    "How large is the folder data?",
    "Which functions are defined in src?",
    "Sort data/customers.csv by region and show the first ten lines.",
    "How many customers are in each region?",
    "Compare data/customers.csv with data/old/customers.csv.",
    "Which tables are in the database data/shop.db?",
    "Are there missing values in data/sales.csv?",
    "Write a file notes.md that says what data/sales.csv holds.",
    "Download http://127.0.0.1:9/rates.csv and show it.",
    "Find the word TODO in this project.",
    "Plot units per region and save it as results/units.png.",
    "Which month has the most units in data/sales.csv?",
)
