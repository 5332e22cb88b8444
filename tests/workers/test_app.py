"""The jobs in real `celery worker` processes, ended in every way."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import structlog
from celery import Celery
from celery.result import AsyncResult

from workers import app as workers_app

ROOT = Path(__file__).parents[2]
ROWS = 1_200_000


@pytest.fixture
def producer(fresh_redis_url) -> Celery:
    """An app that only sends."""
    app = Celery("producer", broker=fresh_redis_url, backend=fresh_redis_url, set_as_current=False)
    yield app
    # Results tell the server when they go, which is now, while it is there, and not when Python gets round to it.
    gc.collect()
    app.close()


@pytest.fixture
def start_with(database, storage, tmp_path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Start a worker that has the Redis named by a URL."""
    workers = []
    words = ["-A", "workers.app", "worker", "--concurrency=1", "--without-gossip", "--without-mingle"]

    def start(redis_url: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, "HEADWAY_REDIS_URL": redis_url, "REMAP_SIGTERM": "SIGQUIT"}
        env.pop("CELERY_BROKER_URL", None)
        with (tmp_path / f"worker{len(workers)}.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "celery", *words], cwd=ROOT, env=env, stderr=log, stdout=log
            )
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        if worker.poll() is None:
            children = psutil.Process(worker.pid).children(recursive=True)
            worker.kill()
            for child in children:
                child.kill()
        worker.wait()


@pytest.fixture
def start(start_with, fresh_redis_url) -> Callable[[], subprocess.Popen[bytes]]:
    """Start a worker that has the shared Redis."""
    return lambda: start_with(fresh_redis_url)


def until(condition: Callable[[], Any], timeout: float = 60.0) -> Any:
    """Wait for a condition and return what it returned."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


@pytest.fixture
def import_big(producer, upload, query) -> Callable[[], AsyncResult]:
    """Send an import that takes some seconds, and wait until it is in the middle."""

    def send() -> AsyncResult:
        ref = upload(b"n,t\n" + b"".join(b"%d,some text to import\n" % n for n in range(ROWS)))
        result = producer.send_task("import_csv", kwargs={"file": ref})
        until(lambda: [rows for (rows,) in query("SELECT rows FROM imports") if rows > 0])
        return result

    return send


def assert_imported_once(result: AsyncResult, query: Callable[..., Any]) -> None:
    value = result.get(timeout=60)
    assert value["rows"] == ROWS
    assert query(f"SELECT count(*), count(DISTINCT n) FROM {value['table']}") == [(ROWS, ROWS)]


def test_a_killed_child_costs_neither_the_task_nor_a_row(start, import_big, query):
    """SIGKILL to the process in which the body runs, twice: the task is retried at once and goes on."""
    worker = start()
    result = import_big()
    for _ in range(2):
        (before,) = query("SELECT rows, owner FROM imports")
        for child in psutil.Process(worker.pid).children():
            child.kill()
        until(lambda: query("SELECT 1 FROM imports WHERE owner <> %s", before[1]), timeout=10)  # noqa: B023
    assert_imported_once(result, query)


def test_a_worker_told_to_stop_hands_its_task_to_another(start, import_big, query):
    """SIGTERM: gone within seconds, and the next worker goes on with the import."""
    worker = start()
    result = import_big()
    worker.send_signal(signal.SIGTERM)
    worker.wait(timeout=10)
    start()
    assert_imported_once(result, query)


def test_a_problem_is_told_by_its_class_and_its_sentence(start, producer, upload):
    """No traceback is needed to know what is wrong with the file."""
    start()
    result = producer.send_task("import_csv", kwargs={"file": upload(b"")})
    error = result.get(timeout=60, propagate=False)
    assert (type(error).__name__, str(error)) == ("EmptyFile", "The file is empty.")


def test_a_simulated_failure_is_retried_and_then_works(start, producer):
    """Through Celery's own retry."""
    start()
    result = producer.send_task("simulate", kwargs={"steps": 2, "seconds": 0, "fail_at": 1, "fail_times": 1})
    assert result.get(timeout=60)["steps"] == 2


def test_a_broker_that_is_away_for_seconds_costs_nothing(valkey_factory, start_with):
    """SIGKILL to Valkey in the middle of a job: the job succeeds, and the worker takes the next one."""
    valkey = valkey_factory()
    start_with(valkey.url)
    producer = Celery("producer", broker=valkey.url, backend=valkey.url, set_as_current=False)
    slow = producer.send_task("simulate", kwargs={"steps": 100, "seconds": 8}).id
    until(lambda: producer.backend.get_state(slow) != "PENDING")
    valkey.kill()
    time.sleep(5)  # the outage itself
    valkey.start()
    assert until(lambda: _value(producer, slow), timeout=60)["steps"] == 100
    again = producer.send_task("simulate", kwargs={"steps": 1, "seconds": 0}).id
    assert until(lambda: _value(producer, again))["steps"] == 1
    producer.close()


def _value(producer: Celery, task_id: str) -> Any:
    meta = producer.backend.get_task_meta(task_id)
    return meta["result"] if meta["status"] == "SUCCESS" else None


def test_a_running_task_is_named_in_every_log_line() -> None:
    """Task and request ids are bound while the body runs, and not after it."""
    task = SimpleNamespace(name="simulate", request=SimpleNamespace(request_id="r-1"))
    workers_app.bind("t-1", task)
    try:
        assert structlog.contextvars.get_contextvars() == {"task_id": "t-1", "task": "simulate", "request_id": "r-1"}
    finally:
        workers_app.unbind()
    assert structlog.contextvars.get_contextvars() == {}
