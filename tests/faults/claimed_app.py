"""The app of test_claims: bodies that leave a mark outside of Redis each time they run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery

from headway import track
from headway.celery import install

URL = os.environ.get("HEADWAY_REDIS_URL", "redis://127.0.0.1:1/0")
BROKER = os.environ.get("CELERY_BROKER_URL", URL)

app = Celery("claimed", broker=BROKER, backend=BROKER, set_as_current=False)
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_soft_shutdown_timeout=0.5,
    broker_connection_retry_on_startup=True,
    # Tests pay for no outage with a minute of waiting: Celery's own pause between two tries grows by 2 s a try.
    broker_transport_options={
        "visibility_timeout": int(os.environ.get("VISIBILITY_TIMEOUT", "3600")),
        # Kombu looks for messages whose time is over every 100 s by default: no test would see one come back.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "socket_timeout": 10.0,
        "socket_connect_timeout": 2.0,
    },
    redis_socket_timeout=10.0,
)
install(app)


@app.task
def work(folder: str, seconds: float) -> str:
    """Run for a while; `begun` and `ended` in the folder get a line each time."""
    with Path(folder, "begun").open("a") as begun:
        begun.write(f"{os.getpid()}\n")
    for _ in track(range(int(seconds * 10)), unit="steps"):
        time.sleep(0.1)
    with Path(folder, "ended").open("a") as ended:
        ended.write(f"{os.getpid()}\n")
    return "worked"


@app.task(bind=True, max_retries=3)
def again(self: Any, times: int) -> int:
    """Retry at once, `times` times."""
    try:
        if self.request.retries < times:
            raise RuntimeError(f"try {self.request.retries}")
    except RuntimeError as error:
        raise self.retry(countdown=0, exc=error) from error
    return int(self.request.retries)
