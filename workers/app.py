"""The Celery app: `celery -A workers.app worker`.

Set REMAP_SIGTERM=SIGQUIT in the worker's environment where SIGTERM is how it is told to stop (containers, systemd): it
then hands its running task back after GRACE instead of waiting for its end. It has to be in the environment of the
process, because Celery reads it before this module is imported.
"""

from __future__ import annotations

import os
from typing import Any

import structlog
from celery import Celery
from celery.signals import setup_logging, task_postrun, task_prerun

from headway import logs
from headway.celery import install

GRACE = 3.0
"""Seconds a task has to end when its worker is told to stop; then the broker gets it back."""
LONGEST = 25 * 3600
"""Seconds a task may run."""
REDELIVERY = 60
"""Seconds after which Redis gives a message to a second worker: so late at most goes on what a killed worker has left.

However short, it runs nothing twice: a delivery whose task is held by a live worker waits (`headway.celery.claims`).
"""
RETRY_DELAY = 2
"""Seconds until a task runs again whose child process was killed."""
RESULTS = 7 * 24 * 3600
"""Seconds Celery's own results are kept."""

_redis_url = os.environ.get("HEADWAY_REDIS_URL", "redis://127.0.0.1:6379/0")
_socket = {
    "socket_timeout": 15.0,  # longer than the longest blocking read, so that only a dead connection meets it
    "socket_connect_timeout": 5.0,
    "socket_keepalive": True,
    "health_check_interval": 10,
}

app = Celery("headway-workers", include=[f"workers.tasks.{name}" for name in ("import_csv", "hash_tree", "simulate")])
app.conf.update(
    broker_url=os.environ.get("CELERY_BROKER_URL") or _redis_url,
    result_backend=_redis_url,
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    task_track_started=True,
    # A task is acknowledged when it has ended: a worker that goes away gives it back. Every job here may run twice.
    task_acks_late=True,
    # A child that was killed: its task is retried, and fails after its max_retries. Rejecting it would loop for ever.
    task_retry_on_worker_lost=True,
    task_annotations={"*": {"default_retry_delay": RETRY_DELAY}},
    worker_prefetch_multiplier=1,
    task_soft_time_limit=LONGEST - 300,
    task_time_limit=LONGEST,
    result_expires=RESULTS,
    worker_soft_shutdown_timeout=GRACE,
    worker_send_task_events=True,
    task_send_sent_event=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": REDELIVERY, "unacked_restore_throttle": 1, **_socket},
    redis_socket_timeout=15.0,
    redis_socket_connect_timeout=5.0,
    redis_socket_keepalive=True,
    redis_retry_on_timeout=True,
    redis_backend_health_check_interval=10,
    timezone="UTC",
)
install(app)


def _configure_logging(**_: Any) -> None:
    logs.configure("worker")


def bind(task_id: str, task: Any, **_: Any) -> None:
    """Every line that is logged while a task runs names it, and the request that asked for it."""
    context = {"task_id": task_id, "task": task.name}
    if request_id := getattr(task.request, "request_id", None):
        context["request_id"] = request_id
    structlog.contextvars.bind_contextvars(**context)


def unbind(**_: Any) -> None:
    """The task has ended."""
    structlog.contextvars.unbind_contextvars("task_id", "task", "request_id")


# A receiver of this signal keeps Celery from setting up logging of its own.
setup_logging.connect(_configure_logging, weak=False)
task_prerun.connect(bind, weak=False)
task_postrun.connect(unbind, weak=False)
