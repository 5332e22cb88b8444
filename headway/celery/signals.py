"""What Celery says by signal and nowhere else: queued, started, retried, finished in whatever way."""

from __future__ import annotations

import contextlib
import datetime
import logging
import sys
import time
import uuid
from typing import Any

import redis
from celery import Celery, current_task, signals
from celery.utils.saferepr import saferepr

from headway import run as runs
from headway.celery import catalogue, integration
from headway.celery.backend import Publishing
from headway.celery.claims import ATTEMPT, GENERATION
from headway.celery.integration import Integration
from headway.events import Amount, Extra, Report, State, encode, spoken
from headway.store import Refused

logger = logging.getLogger(__name__)

MAX_ARGS = 64 * 1024
"""Bytes of arguments that the task resource shows."""

MAX_REPR = 1024
"""Characters to which Celery shortens `argsrepr` and `kwargsrepr` (`AMQP.argsrepr_maxsize`)."""

Details = dict[str, str | bytes | float]


def connect() -> None:
    """Listen to Celery; doing it again changes nothing."""
    signals.before_task_publish.connect(_queued, dispatch_uid="headway-queued")
    signals.task_prerun.connect(_started, dispatch_uid="headway-started")
    signals.task_retry.connect(_retried, dispatch_uid="headway-retried")
    signals.task_postrun.connect(_left, dispatch_uid="headway-left")
    signals.worker_init.connect(_starting, dispatch_uid="headway-starting")
    signals.worker_ready.connect(_ready, dispatch_uid="headway-ready")
    signals.worker_shutting_down.connect(_stopping, dispatch_uid="headway-stopping")


def _arguments(args: Any, kwargs: Any, argsrepr: str | None, kwargsrepr: str | None) -> bytes:
    """The arguments as JSON: the keyword ones by name, positional ones under `*`.

    A sender may give Celery other words for them (`argsrepr`, `kwargsrepr`), to hide a secret: then those are shown.
    """
    # The sender's tuple is a list by the time a worker sees it.
    plain = argsrepr in (None, *(saferepr(kind(args), MAX_REPR) for kind in (tuple, list)))
    if not plain or kwargsrepr not in (None, saferepr(kwargs, MAX_REPR)):
        return encode({"repr": f"{argsrepr} {kwargsrepr}"})
    shown = {**kwargs, "*": list(args)} if args else dict(kwargs)
    data = encode(shown)
    return data if len(data) <= MAX_ARGS else encode({"omitted": f"{len(data)} bytes"})


def _family(parent: str | None, root: str | None, group: str | None) -> Details:
    family = {"parent_id": parent, "root_id": root, "group_id": group}
    return {name: value for name, value in family.items() if value}


def _queued(body: Any, headers: dict[str, Any], routing_key: str | None = None, **_: Any) -> None:
    message = integration.sending()
    task_id = headers.get("id") if isinstance(headers, dict) else None
    if message is None or not task_id or not isinstance(body, tuple):
        return
    headway = message.headway
    running = current_task.request if current_task else None
    if running is not None and running.id == task_id:
        # A retry, or a task that replaces itself: its message may arrive while the lease of the sender is still live.
        headers[GENERATION] = int(getattr(running, GENERATION, None) or 0) + 1
    elif headers.get("retries"):
        # The main process retries the task of a child that died; its lease is still live in this very process.
        headers[GENERATION] = int(headers.get(GENERATION) or 0) + 1
    if headers.get("retries"):
        if running is not None and running.id == task_id:
            # Said before the message is sent: the next attempt may begin before Celery tells of the retry.
            _retry(headway, current_task, task_id, sys.exc_info()[1], _due(headers.get("eta")))
        return
    now = time.time()
    details: Details = {"task": headers["task"], "queue": routing_key or "", "created_at": now}
    details |= _family(headers.get("parent_id"), headers.get("root_id"), headers.get("group"))
    details["args"] = _arguments(body[0], body[1], headers.get("argsrepr"), headers.get("kwargsrepr"))
    report = Report(type="state", state=State.PENDING, ts=now, amount=Amount(), percent=None, message=None)
    operation = uuid.uuid4().hex
    message.announced = (task_id, operation)
    try:
        headway.store.publish(task_id, report, operation=operation, details=details)
        if parent := headers.get("parent_id"):
            headway.store.adopt(parent, task_id)
    except Refused:
        pass  # an id that has been used: the worker will say what becomes of it
    except redis.RedisError as error:
        logger.warning("task %s is queued, but cannot be shown as PENDING: %s", task_id, error)


def _started(task_id: str, task: Any, args: Any = (), kwargs: Any = None, **_: Any) -> None:
    request = task.request
    headway = integration.of(task.app)
    if headway is None or request.is_eager or request.called_directly:
        return
    delivery = request.delivery_info or {}
    attempt = getattr(request, ATTEMPT, None)
    # Who sends without Celery may leave them out (task message protocol, version 2).
    reprs = getattr(request, "argsrepr", None), getattr(request, "kwargsrepr", None)
    details: Details = {
        "task": task.name,
        "worker": request.hostname or "",
        "queue": delivery.get("routing_key") or "",
        "args": _arguments(args, kwargs or {}, *reprs),
    }
    details |= _family(request.parent_id, request.root_id, request.group)
    report = Report(type="state", state=State.STARTED, ts=time.time(), amount=Amount(), percent=None, message=None)
    try:
        run = headway.begin(task_id, report, details, attempt, uuid.uuid4().hex)
    except Refused as refusal:
        # With its own attempt, whose end is refused as its start was: without, it would end the run of another one.
        run = runs.Run(headway.store, task_id, attempt or "", headway.hz)
        run.stop = refusal
    runs.begin(run)


def _retried(sender: Any, request: Any, reason: Any = None, **_: Any) -> None:
    """For the main process, which retries the tasks of children that died; a body has said RETRY before it sent."""
    headway = integration.of(sender.app)
    running = current_task.request if current_task else None
    if headway is not None and not request.is_eager and (running is None or running.id != request.id):
        due = time.time() + float(reason.when or 0) if isinstance(getattr(reason, "when", 0), (int, float)) else None
        _retry(headway, sender, request.id, getattr(reason, "exc", None) or reason, due)


def _retry(headway: Integration, task: Any, task_id: str, cause: BaseException | None, due: float | None) -> None:
    run = runs.end(task_id)
    attempt = run.attempt if run else ""
    said = f"{type(cause).__qualname__}: {spoken(cause)}" if cause is not None else "the task asked for it"
    extra = Extra(
        retry_at=time.time() if due is None else due,
        reason=said[: runs.MAX_MESSAGE],
        max_attempts=None if task.max_retries is None else task.max_retries + 1,
    )
    words = run.last_words() if run else []
    report = Report(type="state", state=State.RETRY, ts=time.time(), extra=extra)
    try:
        headway.deliver(task_id, attempt, [*words, (report, uuid.uuid4().hex)])
    except Refused as refusal:
        logger.info("retry of task %s is not announced: %s", task_id, refusal)


def _due(eta: str | None) -> float | None:
    return datetime.datetime.fromisoformat(eta).timestamp() if eta else None


def _left(sender: Any, task_id: str, **_: Any) -> None:
    run = runs.end(task_id)
    headway = integration.of(sender.app)
    if run is None or headway is None:
        return
    # Ignore and Reject end a body without an end of the task: what it said is said all the same.
    with contextlib.suppress(Refused):
        headway.deliver(task_id, run.attempt, run.last_words())


def _starting(sender: Any, **_: Any) -> None:
    """Refuse to start a worker that would publish nothing; Celery swallows any other exception of a receiver."""
    headway = integration.of(sender.app)
    if headway is None:
        return
    try:
        headway.client.connection_pool  # noqa: B018
    except ValueError as error:
        raise SystemExit(str(error)) from None
    backend = sender.app.backend
    if not isinstance(backend, Publishing):
        raise SystemExit(
            f"headway cannot publish through the result backend {type(backend).__qualname__}: configure it by its"
            " scheme (redis://, db+postgresql://, …), and call install() before it is used"
        )


def _ready(sender: Any, **_: Any) -> None:
    app: Celery = sender.app
    headway = integration.of(app)
    if headway is not None:
        catalogue.announce(app, headway)


def _stopping(**_: Any) -> None:
    catalogue.stop()
