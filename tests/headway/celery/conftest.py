"""Real workers: one of each pool for the whole run, and what their watchers see."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult

from deploy.valkey import Valkey
from headway import keys
from headway.celery import install
from headway.events import NOTE, Envelope, TaskEvent, decode

ROOT = Path(__file__).parents[3]
MODULE = "tests.headway.celery.sample_app"


class Watch:
    """Everybody's view of a task: its channel, from before it was sent."""

    def __init__(self, client: redis.Redis, task_id: str) -> None:
        self.task_id = task_id
        self.events: list[TaskEvent] = []
        self._pubsub = client.pubsub()
        self._pubsub.ssubscribe(keys.of(task_id).channel)
        assert self._pubsub.get_message(timeout=10)

    def until(self, condition: Callable[[TaskEvent], object], timeout: float = 20.0) -> list[TaskEvent]:
        """All events up to the first that meets the condition; each must be the link it says it is."""
        deadline = time.monotonic() + timeout
        kept = max((event.seq for event in self.events if event.type != "progress"), default=0)
        while time.monotonic() < deadline:
            message = self._pubsub.get_message(timeout=0.5)
            if message is None or message["type"] != "smessage" or message["data"].startswith(NOTE):
                continue
            event = decode(Envelope.parse(message["data"]).data)
            assert (event.seq, event.prev) == (len(self.events) + 1, kept)
            kept = kept if event.type == "progress" else event.seq
            self.events.append(event)
            if condition(event):
                return self.events
        raise AssertionError(f"waited in vain after {self.events}")

    def end(self, timeout: float = 20.0) -> list[TaskEvent]:
        """All events of the task."""
        return self.until(lambda event: event.state.terminal, timeout)

    def nothing_follows(self, seconds: float = 0.3) -> bool:
        """Whether the channel stays silent."""
        return self._pubsub.get_message(timeout=seconds) is None

    def close(self) -> None:
        self._pubsub.close()


class Job(NamedTuple):
    """A task that was sent."""

    result: AsyncResult
    watch: Watch


class Worker:
    """A `celery worker` process and a producer that sends to it."""

    def __init__(self, url: str, database: int, pool: str, folder: Path, *options: str, backend: bool = True) -> None:
        broker = f"{url.rpartition('/')[0]}/{database}"
        self.client = redis.Redis.from_url(url)
        self.app = Celery("producer", broker=broker, backend=broker if backend else None, set_as_current=False)
        install(self.app, url)
        self.log = folder / f"{pool}-{database}.log"
        environment = {
            **os.environ,
            "UNDER_TEST_BROKER": broker,
            "UNDER_TEST_BACKEND": broker if backend else "",
            "HEADWAY_REDIS_URL": url,
            "PYTHONWARNINGS": "default",
        }
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            MODULE,
            "worker",
            "-P",
            pool,
            "-l",
            "INFO",
            "-c",
            "2",
            "-n",
            f"{pool}@test",
        ]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen([*command, *options], cwd=ROOT, env=environment, stdout=out, stderr=out)
        self._watches: list[Watch] = []

    def ready(self) -> Worker:
        """Wait until it takes tasks."""
        deadline = time.monotonic() + 30
        while b" ready." not in self.log.read_bytes():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return self

    def watch(self, task_id: str) -> Watch:
        """Watch a task that is yet to be sent."""
        self._watches.append(Watch(self.client, task_id))
        return self._watches[-1]

    def signature(self, name: str, *args: Any, **options: Any) -> Any:
        """A task of the app under test, with an id of its own."""
        return self.app.signature(f"{MODULE}.{name}", args=args, options={"task_id": uuid.uuid4().hex, **options})

    def send(self, name: str, *args: Any, **options: Any) -> Job:
        """Send a task, watched from the first moment."""
        signature = self.signature(name, *args, **options)
        watch = self.watch(signature.options["task_id"])
        return Job(signature.apply_async(), watch)

    def details(self, task_id: str) -> dict[str, str]:
        """The fields that the task resource shows."""
        fields: dict[bytes, bytes] = self.client.hgetall(keys.of(task_id).task)  # type: ignore[assignment]
        return {name.decode(): value.decode() for name, value in fields.items()}

    def rest(self) -> None:
        """Close what a test has opened."""
        while self._watches:
            self._watches.pop().close()

    def stop(self) -> None:
        """End it, by force if it must be."""
        self.rest()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.app.close()
        self.client.close()


@pytest.fixture(scope="session")
def celery_valkey(servers_folder: Path) -> Iterator[Valkey]:
    """Broker, result backend and progress store of the workers: nobody else empties it."""
    server = Valkey(servers_folder / "celery-valkey", durable=False)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def workers(celery_valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Worker]]:
    """One worker of each pool; the solo one has no result backend."""
    folder = tmp_path_factory.mktemp("workers")
    started: dict[str, Worker] = {}
    try:
        for database, pool in enumerate(("prefork", "threads", "solo"), start=1):
            started[pool] = Worker(celery_valkey.url, database, pool, folder, backend=pool != "solo")
        for worker in started.values():
            worker.ready()
        yield started
    finally:
        for worker in started.values():
            worker.stop()


@pytest.fixture(params=["prefork", "threads", "solo"])
def worker(request: pytest.FixtureRequest, workers: dict[str, Worker]) -> Iterator[Worker]:
    """A worker of each pool in turn."""
    yield workers[request.param]
    workers[request.param].rest()


@pytest.fixture
def prefork(workers: dict[str, Worker]) -> Iterator[Worker]:
    """The worker with child processes."""
    yield workers["prefork"]
    workers["prefork"].rest()


@pytest.fixture
def threads(workers: dict[str, Worker]) -> Iterator[Worker]:
    """The worker with threads."""
    yield workers["threads"]
    workers["threads"].rest()
