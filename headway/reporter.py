"""What a task's body calls: `track()` around its loop, or a `Progress` to count by hand.

    from headway import track

    @app.task
    def import_rows(rows):
        for row in track(rows, unit="rows"):
            ...

No plumbing: the running task is found by itself, also from a thread of the task. Outside a task nothing is published.
No call does I/O; the sampling thread (`headway.run`) publishes at most 10 times a second, and once at the end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from headway import run as runs
from headway.amounts import Number, Stage
from headway.events import Level

T = TypeVar("T")


class Progress:
    """How far the running task has come.

    `total` is in `unit`s (any noun, in the plural); leave it out when it is not known. Every method may raise
    `Superseded` or `Finished` (both `headway.store.Refused`) when this attempt no longer counts: let it pass, so that
    the body ends.
    """

    def __init__(self, total: Number | None = None, unit: str | None = None, message: str | None = None) -> None:
        self._run = runs.current()
        self._stage = self._run.root.innermost if self._run else Stage()
        self.set(total=total, unit=unit, message=message)

    def set(
        self,
        current: Number | None = None,
        total: Number | None = None,
        message: str | None = None,
        unit: str | None = None,
    ) -> None:
        """Say where the work stands; what is left out stays as it is."""
        self._check()
        if current is not None:
            self._stage.current = current
        if total is not None:
            self._stage.total = total
        if unit is not None:
            self._stage.unit = unit
        if message is not None and self._run:
            self._run.message = message[: runs.MAX_MESSAGE]

    def advance(self, number: Number = 1) -> None:
        """Count `number` more units as done. Threads of one task may count together."""
        self._check()
        self._stage.advance(number)

    def log(self, message: str, level: Level = "info") -> None:
        """Send a log line to the watchers; unlike progress, no line is skipped and their order stays."""
        self._check()
        if self._run:
            self._run.log(level, message)

    @contextlib.contextmanager
    def stage(
        self, name: str, weight: float | None = None, total: Number | None = None, unit: str | None = None
    ) -> Iterator[Progress]:
        """A part of the work with a count of its own; `weight` is its share of this one's bar, 0 to 1, else the rest.

        Raises `ValueError` for a share that is not left, or while another stage of this one is open.
        """
        self._check()
        child = self._stage.open(name, weight)
        inner = Progress.__new__(Progress)
        inner._run, inner._stage = self._run, child  # noqa: SLF001  # a Progress of the same run, one stage further in
        inner.set(total=total, unit=unit)
        complete = False
        try:
            yield inner
            complete = True
        finally:
            self._stage.close(child, complete=complete)

    def _check(self) -> None:
        if self._run and self._run.stop:
            raise self._run.stop


def track(
    iterable: Iterable[T], total: Number | None = None, unit: str | None = None, message: str | None = None
) -> Iterator[T]:
    """Iterate, and report each item as done when the next one is asked for.

    `total` defaults to the iterable's length, where it has one. Raises what `Progress` raises. Outside a task it is
    the plain iterator. Of loops within one another the outermost counts; for more, give each a `Progress.stage()`.
    """
    run = runs.current()
    if run is None:
        return iter(iterable)
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    stage = run.root.innermost
    if stage.source is None:
        Progress(total=total, unit=unit, message=message)
    return _counted(iterable, run, stage)


def _counted(iterable: Iterable[T], run: runs.Run, stage: Stage) -> Iterator[T]:
    # The count lives in a closure that the sampling thread reads: it is the cheapest thing an iteration can change.
    done = 0

    def count() -> int:
        return done

    def items() -> Iterator[T]:
        nonlocal done
        counts = stage.source is None
        if counts:
            stage.source = count
        try:
            for item in iterable:
                yield item
                done += 1
                if run.stop is not None:
                    raise run.stop
        finally:
            if counts:
                stage.current, stage.source = done, None

    return items()
