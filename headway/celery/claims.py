"""Claims and leases: of all deliveries of a task, one runs.

A worker's main process claims a task before it hands it to its pool, and renews its leases from a thread of its own
while the task runs. So a message that the broker delivers twice (after a lost connection, or a visibility timeout that
was too short) cannot run twice, and what a worker hands back at shutdown runs again at once.
"""

from __future__ import annotations

import datetime
import functools
import logging
import threading
import uuid
from collections.abc import Callable
from typing import Any

import redis
from celery import bootsteps
from celery.worker import state as worker_state
from kombu.exceptions import OperationalError

from headway.celery import integration
from headway.celery.integration import Integration, patiently
from headway.leases import Held
from headway.store import Refused

logger = logging.getLogger(__name__)

LEASE = 15.0
"""Seconds a claim holds without being renewed."""
RENEWAL = 5.0
"""Seconds between renewals."""
PATIENCE = 5.0
"""Seconds a delivery waits for a store that is away; then its message is sent again, for later."""
GENERATION = "headway_generation"
"""Message header: how many times the task had sent itself again (retry, replace) when this message was sent."""
ATTEMPT = "headway_attempt"
"""Member of the request that the pool gets: the attempt that was granted."""


class StoreAway(Exception):
    """A delivery could not be claimed, and so does not run: unclaimed, it might run beside another one."""


class Claims:
    """The tasks that one worker holds."""

    def __init__(self, headway: Integration) -> None:
        self._headway = headway
        self._held: dict[str, tuple[str, Any]] = {}
        """Task id → token and request of each claim."""
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="headway-leases", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def take(self, request: Any) -> None:
        """Claim a delivery, which then carries its attempt; raises `Refused` or `StoreAway` if it must not run."""
        token = uuid.uuid4().hex
        claim = functools.partial(self._headway.leases.claim, request.id, _generation(request), token, LEASE)
        attempt = patiently(claim, PATIENCE, f"claim of task {request.id}")
        if attempt is None:
            raise StoreAway
        request.request_dict[ATTEMPT] = attempt
        with self._lock:
            self._held[request.id] = (token, request)

    def give_up(self) -> None:
        """Let go of every task, for a worker that is about to hand its messages back."""
        self._stopped.set()
        with self._lock:
            held, self._held = self._held, {}
        try:
            self._headway.leases.renew({task_id: token for task_id, (token, _) in held.items()}, 0.0)
        except redis.RedisError as error:
            logger.warning("%d leases were not given up, they end by themselves: %s", len(held), error)

    def _renew(self) -> None:
        while not self._stopped.wait(RENEWAL):
            with self._lock:
                self._held = {task_id: claim for task_id, claim in self._held.items() if _runs(claim[1])}
                tokens = {task_id: token for task_id, (token, _) in self._held.items()}
            if not tokens:
                continue
            try:
                lost = self._headway.leases.renew(tokens, LEASE)
            except redis.RedisError as error:
                logger.warning("leases cannot be renewed: %s", error)
                continue
            for task_id in lost:
                self._take_again(task_id)

    def _take_again(self, task_id: str) -> None:
        """Hold a task again whose claim a store that came back empty has lost; one that somebody else holds is his."""
        with self._lock:
            claim = self._held.get(task_id)
        if claim is None:
            return
        token, request = claim
        try:
            self._headway.leases.claim(task_id, _generation(request), token, LEASE, request.request_dict[ATTEMPT])
        except Refused as refusal:
            logger.warning("task %s is no longer held by this worker: %s", task_id, refusal)
            with self._lock:
                if self._held.get(task_id) is claim:
                    del self._held[task_id]
        except redis.RedisError as error:
            logger.warning("leases cannot be renewed: %s", error)


def _generation(request: Any) -> int:
    return int(request.request_dict.get(GENERATION) or 0)


def _runs(request: Any) -> bool:
    """Whether a claimed request still runs here; if not, its lease may end, whatever else there is of its task."""
    return request in worker_state.active_requests or request in worker_state.reserved_requests


class ClaimStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery is not annotated
    """Puts the claim between a worker's consumer and its pool."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        headway = integration.of(worker.app)
        self._claims = Claims(headway) if headway else None

    def start(self, worker: Any) -> None:
        """Wrap the worker's way to its pool; it runs in the main process, when a pool slot is free."""
        if self._claims is None:
            return
        self._claims.start()
        plain = worker.process_task == worker._process_task  # noqa: SLF001  # there is no public place for this
        worker._process_task = functools.partial(_claimed, worker, self._claims, worker._process_task)  # noqa: SLF001
        if plain:
            worker.process_task = worker._process_task  # noqa: SLF001

    def stop(self, worker: Any) -> None:
        """Let go, so that whoever gets the messages next may run them at once."""
        if self._claims is not None:
            self._claims.give_up()

    terminate = stop


def _claimed(worker: Any, claims: Claims, process: Callable[[Any], None], request: Any) -> None:
    try:
        claims.take(request)
    except Held as held:
        _leave(worker, request)
        _postpone(request, held.seconds + 0.5, "another delivery holds it")
    except StoreAway:
        _leave(worker, request)
        _postpone(request, RENEWAL, "the store is away")
    except Refused as refusal:
        logger.info("task %s is delivered again, and not run again: %s", request.id, refusal)
        _leave(worker, request)
        request.acknowledge()
    else:
        process(request)


def _leave(worker: Any, request: Any) -> None:
    """Take a delivery out of the worker's books, and keep the run of the same task that may be in them."""
    worker_state.task_ready(request)
    for running in tuple(worker_state.active_requests):
        if running.id == request.id:
            worker_state.requests[request.id] = running
    release = getattr(worker, "_quick_release", None)
    if release is not None and worker.process_task != worker._process_task:  # noqa: SLF001
        release()


def _postpone(request: Any, seconds: float, why: str) -> None:
    """Send the message again, for later, and acknowledge this one; without a broker it stays as it is.

    Whoever holds the task may die before its end: so a message is dropped only when the task has finished.
    """
    message = request.message
    due = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    delivery = message.delivery_info
    try:
        with request.app.producer_pool.acquire(block=True, timeout=1.0) as producer:
            producer.publish(
                message.body,
                exchange=delivery.get("exchange") or "",
                routing_key=delivery.get("routing_key"),
                headers={**message.headers, "eta": due.isoformat()},
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                correlation_id=message.properties.get("correlation_id"),
                reply_to=message.properties.get("reply_to"),
                priority=message.properties.get("priority"),
            )
    except (OperationalError, OSError, redis.RedisError) as error:
        logger.warning("task %s cannot run, as %s, and its message stays with the broker: %s", request.id, why, error)
    else:
        request.acknowledge()
        logger.info("task %s cannot run, as %s; asking again in %.1f s", request.id, why, seconds)
