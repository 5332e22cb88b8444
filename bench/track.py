"""What an iteration costs inside a task: `track()` beside tqdm, both over a bare loop."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable

from tqdm import tqdm

from bench.measure import medians
from headway import run as runs
from headway import track
from headway.events import Report
from headway.store import Position


class Deaf:
    """A store that takes every report: the price of Redis is measured in bench.publish."""

    def publish(self, task_id: str, report: Report, *, attempt: int | str = "", operation: str = "") -> Position:
        return Position(1, 1, 1)


def _loop(wrap: Callable[[Iterable[int]], Iterable[int]], iterations: int) -> float:
    items = range(iterations)
    began = time.perf_counter()
    for _ in wrap(items):
        pass
    return (time.perf_counter() - began) / iterations * 1e9


def _tracked(iterations: int) -> float:
    """With everything that runs in a real task: the sampling thread reads and publishes ten times a second."""
    runs.begin(runs.Run(Deaf(), "bench", 1))
    try:
        return _loop(track, iterations)
    finally:
        runs.end("bench")


def measure(iterations: int, rounds: int) -> dict[str, dict[str, float]]:
    """Nanoseconds an iteration over a bare loop."""
    figures = medians(
        {
            "bare": lambda: _loop(lambda items: items, iterations),
            "headway": lambda: _tracked(iterations),
            "tqdm": lambda: _loop(lambda items: tqdm(items, file=io.StringIO()), iterations),
        },
        rounds,
    )
    bare = figures.pop("bare")
    return {"track_ns": {name: round(value - bare, 2) for name, value in figures.items()}}
