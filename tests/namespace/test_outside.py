"""What code changes outside the user's names: modules and the state of the process are named, and put back."""

from __future__ import annotations

import importlib
import math
import os
import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from mentra_nb.namespace.history import History


@pytest.fixture(autouse=True)
def _as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder with a module of the user's, and leave the process as it was."""
    (tmp_path / "helpers.py").write_text("limit = 1\nseen = []\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("KEPT", "before")
    yield
    sys.modules.pop("helpers", None)


def state() -> list[Any]:
    """Return all that the edits below change."""
    helpers = importlib.import_module("helpers")
    process = [dict(os.environ), list(sys.path), Path.cwd(), random.getstate(), repr(np.random.get_state())]
    filters, options = (
        list(warnings.filters),
        (pd.get_option("display.max_rows"), pd.get_option("mode.sim_interactive")),
    )
    modules = [
        math.pi,
        hasattr(math, "made"),
        helpers.limit,
        list(helpers.seen),
        hasattr(np, "made"),
        os.getenv("KEPT"),
    ]
    return [*process, filters, options, dict(mpl.rcParams), *modules]


EDITS = {
    "math.pi = 3": "math",
    "math.made = 1": "math",
    "del math.pi": "math",
    "np.made = 1": "np",
    "helpers.limit = 2": "helpers",
    "helpers.seen.append(1)": "helpers",
    "os.environ['KEPT'] = 'after'": "os.environ",
    "os.environ['FRESH'] = '1'": "os.environ",
    "del os.environ['KEPT']": "os.environ",
    "os.mkdir('below'); os.chdir('below')": "the working folder",
    "sys.path.append('/nowhere')": "sys.path",
    "sys.path = ['/nowhere']": "sys.path",
    "random.seed(5)": "the state of random",
    "random.random()": "the state of random",
    "np.random.seed(5)": "the state of numpy.random",
    "np.random.normal(size=3)": "the state of numpy.random",
    "warnings.simplefilter('ignore')": "warnings.filters",
    "pd.set_option('display.max_rows', 7)": "pandas.options",
    "pd.options.mode.sim_interactive = True": "pandas.options",
    "mpl.rcParams['lines.linewidth'] = 9": "matplotlib.rcParams",
    "mpl.rc('axes', titlesize=30)": "matplotlib.rcParams",
}


def names() -> dict[str, Any]:
    helpers = importlib.import_module("helpers")
    found = {"math": math, "np": np, "pd": pd, "os": os, "sys": sys, "random": random, "mpl": mpl}
    return {**found, "warnings": warnings, "helpers": helpers}


@pytest.mark.parametrize("edit", EDITS)
def test_what_code_changed_outside_the_names_is_named_and_put_back(edit: str) -> None:
    namespace, before = names(), state()
    history = History(namespace)
    assert history.beyond() == []
    with history.watching("turn", "call"):
        exec(edit, namespace)
    after = state() if "del math.pi" not in edit else None
    assert after != before
    [watched] = history.calls
    assert EDITS[edit] in watched.changes.changed
    assert set(watched.changes.changed) <= {EDITS[edit], "sys"}  # where `sys.path` is another list, `sys` is changed
    assert history.undo("turn", "undo").conflicts == ()
    assert state() == before
    if after is not None:
        history.undo("undo", "again")
        assert state() == after
        history.undo("again", "last")
        assert state() == before


def test_a_warning_is_shown_again_once_its_filter_is_put_back() -> None:
    history = History({"warnings": warnings})
    with warnings.catch_warnings():
        warnings.resetwarnings()
        with history.watching("turn", "call"):
            warnings.simplefilter("ignore")
            warnings.warn("unseen", stacklevel=1)
        history.undo("turn", "undo")
        with pytest.warns(UserWarning, match="seen"):
            warnings.warn("seen", stacklevel=1)


def test_what_importing_and_reading_change_is_not_named() -> None:
    import xml

    namespace: dict[str, Any] = {"xml": xml, "pd": pd, "np": np, "os": os}
    history = History(namespace)
    sys.modules.pop("xml.sax.expatreader", None)
    with history.watching("turn", "call"):
        exec(
            "import xml.sax.expatreader, json; pd.DataFrame({'a': [1]}).describe(); os.getcwd(); np.arange(3)",
            namespace,
        )
    assert [each.changes.changed for each in history.calls] == [()]


def test_a_user_may_have_a_variable_of_any_name() -> None:
    namespace: dict[str, Any] = {"os.environ": 1, "random": [1]}
    history = History(namespace)
    with history.watching("turn", "call"):
        exec("random.append(2); globals()['os.environ'] = 2", namespace)
    history.undo("turn", "undo")
    assert namespace["random"] == [1]
