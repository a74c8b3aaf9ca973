"""Measure what a snapshot of a kernel's names costs: `python tests/benchmarks/bench_undo.py`.

Milliseconds of the processor, the fastest of twenty; memory in MiB, in a namespace of about 1 GB.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import psutil

from mentra_nb.namespace.history import History
from mentra_nb.namespace.snapshot import Snapshot

TIMES = 20


def namespace() -> dict[str, Any]:
    """Return names of about 1 GB: eleven frames of a million rows, and the small things of a notebook."""
    names: dict[str, Any] = {f"frame{n}": pd.DataFrame(np.ones((1_000_000, 11))) for n in range(11)}
    for n in range(20):
        names |= {f"column{n}": names["frame0"][n % 11], f"dict{n}": {key: str(key) for key in range(500)}}
        names |= {f"records{n}": [{"id": key, "tags": ["a"]} for key in range(20)], f"set{n}": set(range(500))}
        names |= {f"number{n}": n, f"text{n}": "text", f"list{n}": list(range(1000))}
    return names


def fastest(work: Callable[[], Any]) -> float:
    """Return the milliseconds of the processor that the fastest call took."""
    times = []
    for _ in range(TIMES):
        began = time.thread_time()
        work()
        times.append(1000 * (time.thread_time() - began))
    return min(times)


def memory() -> float:
    return float(psutil.Process().memory_info().rss) / 2**20


def main() -> None:
    names = namespace()
    print(f"  {'a snapshot of frames and containers of 1 GB':<50} {fastest(lambda: Snapshot.take(names)):8.2f} ms")
    print(f"  {'what has changed since':<50} {fastest(partial(Snapshot.take(names).changes, names)):8.2f} ms")
    arrays = {"array": np.ones(8_000_000)}
    print(f"  {'a copy of an array of 61 MiB':<50} {fastest(lambda: Snapshot.take(arrays)):8.2f} ms")
    history, before = History(names), memory()
    with history.watching("turn", "call"):
        names["frame1"].iloc[0, 0] = 5.0
    edited = memory() - before
    print(f"  {'memory after an edit of a frame of 84 MiB':<50} {edited:8.1f} MiB")
    began = time.thread_time()
    history.undo("turn", "undo")
    print(f"  {'undoing it':<50} {1000 * (time.thread_time() - began):8.2f} ms")


if __name__ == "__main__":
    main()
