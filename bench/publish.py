"""What a published progress event costs a worker: one call of the store beside Celery's `update_state()`."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import redis
from celery import Celery

from bench.measure import medians
from deploy.valkey import Valkey
from headway.events import Amount, Report, State
from headway.store import Store


@contextlib.contextmanager
def valkey() -> Iterator[str]:
    """A Valkey of the benchmark's own, without an append-only file: its writes are no part of the question."""
    with tempfile.TemporaryDirectory(prefix="headway-bench-", ignore_cleanup_errors=True) as folder:
        server = Valkey(Path(folder) / "valkey", durable=False)
        server.start()
        try:
            yield server.url
        finally:
            server.stop()


def _headway(url: str, events: int) -> Callable[[], None]:
    store = Store(redis.Redis.from_url(url))
    store.publish("bench", Report(type="state", state=State.STARTED, ts=time.time(), amount=Amount()), attempt="+")

    def publish() -> None:
        for number in range(events):
            report = Report(
                type="progress",
                state=State.PROGRESS,
                ts=time.time(),
                amount=Amount(number, events, "rows"),
                percent=number / events * 100,
                message="importing rows",
                rate=812.3,
                eta=0.71,
            )
            store.publish("bench", report, attempt=1)

    return publish


def _update_state(url: str, events: int) -> Callable[[], None]:
    app = Celery("bench", broker=url, backend=url, set_as_current=False)

    @app.task(bind=True)  # type: ignore[untyped-decorator]  # Celery has no annotations
    def body(self: object) -> None: ...

    def publish() -> None:
        for number in range(events):
            meta = {"current": number, "total": events, "unit": "rows", "message": "importing rows"}
            body.update_state(task_id="bench", state="PROGRESS", meta=meta)

    return publish


def _timed(call: Callable[[], None], events: int, clock: Callable[[], float]) -> float:
    began = clock()
    call()
    return (clock() - began) / events * 1e6


def measure(events: int, rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds an event: of the wall clock, and of this process's CPU."""
    with valkey() as url:
        calls = {"headway": _headway(url, events), "update_state": _update_state(url, events)}
        results = {}
        for metric, clock in {"publish_us": time.perf_counter, "publish_cpu_us": time.process_time}.items():
            contenders = {name: functools.partial(_timed, call, events, clock) for name, call in calls.items()}
            results[metric] = {name: round(value, 2) for name, value in medians(contenders, rounds).items()}
        return results
