"""What one installed app publishes through: its store, and the patience to deliver what must not be lost."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import redis
from celery import Celery
from redis.backoff import NoBackoff
from redis.retry import Retry

from headway.events import Report
from headway.leases import Leases
from headway.run import Run
from headway.store import Details, Store

logger = logging.getLogger(__name__)

T = TypeVar("T")

TIMEOUT = 1.0
"""Seconds one call to Redis may take."""
PATIENCE = 300.0
"""Seconds for which an ended task's last words are offered to a Redis that is away; its slot waits with them."""
BYSTANDER_PATIENCE = 10.0
"""The same for a task that ended without a run in this process: there the worker's main loop may be what waits."""
STARTED_PATIENCE = 5.0
"""Seconds for which a beginning task waits to be announced; then it runs all the same."""


class Integration:
    """The connection of one Celery app to the store."""

    def __init__(self, app: Celery, url: str | None, hz: float) -> None:
        self._app = app
        self._url = url
        self.hz = hz

    @functools.cached_property
    def client(self) -> redis.Redis:
        """The Redis client of this process; it never retries by itself, and every call is bounded in time."""
        return redis.Redis.from_url(
            self._resolve_url(),
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
        )

    @functools.cached_property
    def store(self) -> Store:
        """The progress store."""
        return Store(self.client)

    @functools.cached_property
    def leases(self) -> Leases:
        """The leases of this app's tasks."""
        return Leases(self.client)

    def _resolve_url(self) -> str:
        conf = self._app.conf
        candidates = [self._url, os.environ.get("HEADWAY_REDIS_URL"), conf.result_backend, conf.broker_url]
        for candidate in candidates:
            if isinstance(candidate, str) and candidate.startswith(("redis://", "rediss://", "unix://")):
                return candidate
        raise ValueError("headway needs a Redis: pass url to install(), or set HEADWAY_REDIS_URL")

    def begin(self, task_id: str, report: Report, details: Details, attempt: int | None, operation: str) -> Run:
        """Announce that a task runs, and open the run that its body reports to.

        `attempt` is the one that was claimed; None begins the next one, where none was. Raises `Refused`.
        """
        publish = functools.partial(
            self.store.publish, task_id, report, attempt=attempt or "+", operation=operation, details=details
        )
        position = patiently(publish, STARTED_PATIENCE, f"start of task {task_id}")
        return Run(self.store, task_id, position.attempt if position else attempt or "", self.hz)

    def deliver(
        self, task_id: str, attempt: int | str, words: Sequence[tuple[Report, str]], patience: float = PATIENCE
    ) -> None:
        """Publish, in order, what must not be lost (reports with their operation ids). Raises `Refused`.

        All of it has `patience` seconds together. If Redis stays away, what is left is lost, with an error in the
        log; only the last one, which says how the task has ended, is tried once more.
        """
        deadline = time.monotonic() + patience
        for number, (report, operation) in enumerate(words, 1):
            left = deadline - time.monotonic()
            if left > 0 or number == len(words):
                publish = functools.partial(self.store.publish, task_id, report, attempt=attempt, operation=operation)
                patiently(publish, left, f"{report.type} of task {task_id}")


# What passes by itself: away, starting, full, or a replica that is about to become the primary.
_PASSING = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.OutOfMemoryError,
    redis.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.TryAgainError,
)
# The same, where redis-py has no class for it: its disk is full, too few replicas, a slow script.
_PASSING_CODES = ("MISCONF", "NOREPLICAS", "BUSY")


def patiently(call: Callable[[], T], patience: float, what: str) -> T | None:
    """Call until Redis answers, at most for `patience` seconds; None if it did not, or says no for good."""
    deadline = time.monotonic() + patience
    delay = 0.05
    while True:
        try:
            return call()
        except redis.RedisError as error:
            passing = isinstance(error, _PASSING) or str(error).startswith(_PASSING_CODES)
            passing = passing and not isinstance(error, redis.AuthenticationError)
            if not passing or time.monotonic() + delay > deadline:
                logger.error("%s could not be published: %s", what, error)  # noqa: TRY400  # an outage, not a bug: no traceback
                return None
            logger.warning("%s waits for Redis: %s", what, error)
        time.sleep(delay)
        delay = min(1.0, delay * 2)


_installed: WeakKeyDictionary[Celery, Integration] = WeakKeyDictionary()


def register(app: Celery, integration: Integration) -> None:
    """Remember that an app is installed."""
    _installed[app] = integration


def of(app: Celery) -> Integration | None:
    """The integration of an app, None if it is not installed."""
    return _installed.get(app)


class Sending:
    """A message on its way to the broker, and what has been said of its task already."""

    def __init__(self, headway: Integration) -> None:
        self.headway = headway
        self.announced: tuple[str, str] | None = None
        """Id of the task, and operation id of the PENDING that was published for it."""

    def withdraw(self) -> None:
        """The broker did not take it: nobody is to be told of a task that waits for ever."""
        if self.announced is not None:
            try:
                self.headway.store.withdraw(*self.announced)
            except redis.RedisError as error:
                logger.warning("task %s was not queued, but is shown as PENDING: %s", self.announced[0], error)


_sending: ContextVar[Sending | None] = ContextVar("headway_sending", default=None)


def mark_sending(app: Celery, integration: Integration) -> None:
    """Let `sending()` know when it is `app` that publishes a message."""
    send = app.send_task

    @functools.wraps(send)
    def send_task(*args: Any, **options: Any) -> Any:
        message = Sending(integration)
        token = _sending.set(message)
        try:
            return send(*args, **options)
        except BaseException:
            message.withdraw()
            raise
        finally:
            _sending.reset(token)

    app.send_task = send_task


def sending() -> Sending | None:
    """What the app that is publishing a message just now publishes through.

    Celery's signal does not name it, and its current app is another one in every thread that has not created the app
    (of a web server's pool, say), or when there are several.
    """
    return _sending.get()
