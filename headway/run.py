"""One attempt of a task in this process, and the thread that says how far it has come.

The task's body only changes numbers in memory. One daemon thread of the process samples the open runs and publishes
what changed, so a slow or absent Redis costs the body nothing.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Protocol

import redis
from msgspec import UNSET, UnsetType

from headway.amounts import Pace, Stage, percent
from headway.events import Extra, Level, Report, State
from headway.store import Position, Refused

logger = logging.getLogger(__name__)

HZ = 10.0
"""Publishes a second of one task, at most."""
MAX_LOG_LINES = 1_000
"""Log lines that wait for an absent Redis; beyond that the oldest go, and the loss is told."""
MAX_MESSAGE = 64 * 1024
"""Characters of a message."""
MAX_LINE = 8 * 1024
"""Characters of a log line: a thousand of a task's are kept, in Redis and on their way."""
BACKOFF = (0.25, 5.0)
"""Seconds until the next try when Redis is away: at first, and at most."""


class Publisher(Protocol):
    """What a run needs of the store."""

    def publish(self, task_id: str, report: Report, *, attempt: int | str = "", operation: str = "") -> Position: ...


class Run:
    """What the running attempt has to say."""

    def __init__(self, publisher: Publisher, task_id: str, attempt: int | str, hz: float = HZ) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.root = Stage()
        self.message: str | None = None
        self.stop: Refused | None = None
        """Set when the store no longer listens to this attempt: the body is to end with it."""
        self.interval = 1 / hz
        self._publisher = publisher
        self._lines: deque[tuple[float, Level, str, str]] = deque(maxlen=MAX_LOG_LINES)
        self._operations = map(f"{uuid.uuid4().hex}-{{}}".format, itertools.count())
        self._dropped = 0
        self._queueing = threading.Lock()
        self._said: tuple[Any, ...] | None = None
        self._due = 0.0
        self._backoff = BACKOFF[0]
        self._speed: tuple[Stage, Pace] = (self.root, Pace())
        self._approach = Pace()
        self._publishing = threading.Lock()

    def log(self, level: Level, text: str) -> None:
        """Queue a log line."""
        with self._queueing:
            if len(self._lines) == MAX_LOG_LINES:
                self._dropped += 1
            self._lines.append((time.time(), level, text[:MAX_LINE], next(self._operations)))

    def sample(self, now: float) -> None:
        """Publish what changed, if it is time to; `now` is monotonic seconds. Never raises."""
        if now < self._due or self.stop is not None:
            return
        with self._publishing:
            try:
                for report, operation in self._pending(now):
                    self._publisher.publish(self.task_id, report, attempt=self.attempt, operation=operation)
            except Refused as refusal:
                self.stop = refusal
            except redis.RedisError as error:
                logger.warning("progress of task %s waits for Redis: %s", self.task_id, error)
                self._due = now + self._backoff
                self._backoff = min(BACKOFF[1], self._backoff * 2)
                return
            self._due, self._backoff = now + self.interval, BACKOFF[0]

    def last_words(self) -> list[tuple[Report, str]]:
        """What is still unsaid when the body has ended, with its operation ids: the caller delivers it."""
        with self._publishing:
            return list(self._pending(time.monotonic()))

    def _pending(self, now: float) -> Iterator[tuple[Report, str]]:
        """The reports due, with operation ids: a line whose delivery was not confirmed is offered again under its own.

        A line leaves the queue only when the consumer comes back for the next: it was delivered.
        """
        if lost := self._dropped:
            text = f"{lost} log lines were lost while Redis was away"
            yield Report(type="log", ts=time.time(), message=text, extra=Extra(level="warning")), next(self._operations)
            with self._queueing:
                self._dropped -= lost
        while self._lines:
            line = self._lines[0]
            yield Report(type="log", ts=line[0], message=line[2], extra=Extra(level=line[1])), line[3]
            with self._queueing:
                if self._lines[0] is line:
                    self._lines.popleft()
                else:
                    self._dropped -= 1  # the full queue has pushed out, and counted, what has just been delivered
        report = self._progress(now)
        if report is not None:
            yield report, ""  # sent twice, it says the same twice
            self._said = (report.amount, report.percent, report.message)

    def _progress(self, now: float) -> Report | None:
        stage = self.root.innermost
        amount = stage.amount()
        # Of a task in stages the share of the whole is known, also while the open stage has no total of its own.
        fraction = self.root.fraction
        share = None if fraction is None else percent(fraction)
        if (amount, share, self.message) == (self._said or (_NOTHING, None, None)):
            return None
        if self._speed[0] is not stage:
            self._speed = (stage, Pace())
        rate = self._speed[1].update(now, amount.current)
        approach = None if fraction is None else self._approach.update(now, fraction)
        eta = (1 - fraction) / approach if fraction is not None and approach else None
        return Report(
            type="progress",
            state=State.PROGRESS,
            ts=time.time(),
            amount=amount,
            percent=share,
            message=self.message,
            rate=None if rate is None else round(rate, 3),
            eta=None if eta is None else round(eta, 2),
        )

    def final(self) -> tuple[Any, float | UnsetType | None, str | UnsetType | None]:
        """Amount, percent and message for the closing event; UNSET where the body never reported any."""
        if self._said is None:
            return UNSET, UNSET, UNSET
        return self._said[0], self._said[1], self._said[2]


_NOTHING = Stage().amount()


class Sampler:
    """The thread that samples all open runs of this process."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    def add(self, run: Run) -> None:
        """Sample a run until it is removed."""
        with self._lock:
            self._runs[run.task_id] = run
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="headway-sampler", daemon=True)
                self._thread.start()
        self._wake.set()

    def remove(self, task_id: str) -> Run | None:
        """Stop sampling a run; None if it is not open."""
        with self._lock:
            return self._runs.pop(task_id, None)

    def find(self, task_id: str) -> Run | None:
        """The open run of a task."""
        return self._runs.get(task_id)

    def only(self) -> Run | None:
        """The open run, when there is exactly one."""
        with self._lock:
            return next(iter(self._runs.values())) if len(self._runs) == 1 else None

    def _loop(self) -> None:
        while True:
            with self._lock:
                runs = list(self._runs.values())
            if not runs:
                self._wake.clear()
                if not self._runs:
                    self._wake.wait()
                continue
            for run in runs:
                try:
                    run.sample(time.monotonic())
                except Exception:
                    # A bug here must not end the reports of every other task of this process.
                    logger.exception("progress of task %s cannot be published", run.task_id)
            # Not for long even if all are slow: a run that begins meanwhile may be in more of a hurry.
            time.sleep(min(1 / HZ, *(run.interval for run in runs)))


sampler = Sampler()


def _after_fork() -> None:
    global sampler
    sampler = Sampler()  # the parent's thread does not exist in a child, and its runs are not the child's


os.register_at_fork(after_in_child=_after_fork)

_context: ContextVar[Run | None] = ContextVar("headway_run", default=None)


def begin(run: Run) -> None:
    """Make `run` the one that this thread's task reports to, and sample it."""
    _context.set(run)
    sampler.add(run)


def end(task_id: str) -> Run | None:
    """Stop sampling the run of a task, and forget it in this thread; None if it is not open here."""
    run = sampler.remove(task_id)
    if run is not None and _context.get() is run:
        _context.set(None)
    return run


def current() -> Run | None:
    """The run that the calling code belongs to, or None outside a task.

    Threads do not inherit the context of the thread that starts them: there it is the open run of this process, if
    there is exactly one (a prefork child has no other). In a pool of threads, start yours with
    `contextvars.copy_context().run`.
    """
    return _context.get() or sampler.only()
