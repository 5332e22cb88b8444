"""Of all deliveries of a task one runs, whatever happens to the broker and to the workers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from celery import Celery

from deploy.valkey import Valkey
from headway import keys
from headway.celery import claims, install
from headway.events import Envelope, State, TaskEvent, decode
from headway.leases import Leases
from tests.conditions import eventually

ROOT = Path(__file__).parents[2]


class Bench:
    """A Valkey of the test's own, a producer, and as many real workers as the test wants."""

    def __init__(self, valkey: Valkey, folder: Path, broker: Valkey | None = None) -> None:
        self.valkey = valkey
        self.folder = folder
        self.broker = (broker or valkey).url
        self.client = redis.Redis.from_url(valkey.url)
        # Without a result backend: a result that is garbage tells its server so, which may be dead by then.
        self.app = Celery("producer", broker=self.broker, set_as_current=False)
        install(self.app, valkey.url)
        self.workers: list[subprocess.Popen[bytes]] = []

    def worker(self, pool: str = "prefork", visibility_timeout: int = 3600) -> subprocess.Popen[bytes]:
        """Start a worker, and wait until it takes tasks."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        environment = {
            **os.environ,
            "HEADWAY_REDIS_URL": self.valkey.url,
            "CELERY_BROKER_URL": self.broker,
            "VISIBILITY_TIMEOUT": str(visibility_timeout),
            "REMAP_SIGTERM": "SIGQUIT",
        }
        command = [sys.executable, "-m", "celery", "-A", "tests.faults.claimed_app", "worker", "-l", "INFO", "-P", pool]
        command += ["-c", "1", "-n", f"worker-{len(self.workers)}@test"]
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
        self.workers.append(process)
        eventually(lambda: b" ready." in log.read_bytes() or process.poll() is not None, 30)
        assert process.poll() is None, log.read_text()
        return process

    def send(self, name: str, *args: object) -> str:
        """Send a task; returns its id."""
        return str(self.app.send_task(f"tests.faults.claimed_app.{name}", args=args).id)

    def lines(self, name: str) -> int:
        """How many bodies have left this mark."""
        path = self.folder / name
        return len(path.read_text().splitlines()) if path.exists() else 0

    def kept(self, task_id: str) -> list[TaskEvent]:
        """The task's state and log events so far."""
        entries = self.client.xrange(keys.of(task_id).replay)
        return [decode(Envelope.parse(fields[b"e"]).data) for _, fields in entries]

    def ended(self, task_id: str) -> bool:
        """Whether the task has reached its end."""
        try:
            events = self.kept(task_id)
        except redis.RedisError:
            return False
        return bool(events) and events[-1].state.terminal

    def states(self, task_id: str) -> list[tuple[int, State]]:
        """Attempt and state of each change."""
        return [(event.attempt, event.state) for event in self.kept(task_id) if event.type == "state"]

    def close(self) -> None:
        """End everything that this one has started."""
        for process in self.workers:
            process.kill()
            process.wait()
        self.client.close()
        self.app.close()


@pytest.fixture
def bench(valkey_factory: Callable[[], Valkey], tmp_path: Path) -> Iterator[Bench]:
    built = Bench(valkey_factory(), tmp_path)
    try:
        yield built
    finally:
        built.close()


@pytest.fixture
def apart(valkey_factory: Callable[[], Valkey], tmp_path: Path) -> Iterator[Bench]:
    """With a broker of its own, beside the store."""
    built = Bench(valkey_factory(), tmp_path, valkey_factory())
    try:
        yield built
    finally:
        built.close()


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_job_outlives_five_seconds_without_redis(bench: Bench, pool: str) -> None:
    """Valkey dies by SIGKILL in the middle of a job: the job runs once, succeeds, and its end is published."""
    for _ in range(2):
        bench.worker(pool)
    task_id = bench.send("work", str(bench.folder), 8)
    eventually(lambda: bench.lines("begun") == 1, 15)
    bench.valkey.kill()
    time.sleep(5)  # the length of the outage is the rule
    bench.valkey.start()
    eventually(lambda: bench.ended(task_id), 40)
    assert bench.states(task_id)[1:] == [(1, State.STARTED), (1, State.SUCCESS)]
    assert bench.lines("begun") == bench.lines("ended") == 1
    following = bench.send("work", str(bench.folder), 0.1)
    eventually(lambda: bench.ended(following), 30)


def test_a_visibility_timeout_cannot_run_a_task_twice(bench: Bench) -> None:
    """The broker gives a message away again after 2 s, to a second worker: the task runs once all the same."""
    for _ in range(2):
        bench.worker(visibility_timeout=2)
    task_id = bench.send("work", str(bench.folder), 7)
    eventually(lambda: bench.ended(task_id), 30)
    assert bench.states(task_id)[1:] == [(1, State.STARTED), (1, State.SUCCESS)]
    assert bench.lines("begun") == 1
    assert sum(log.read_text().count("] received") for log in bench.folder.glob("*.log")) > 1  # it did come twice


def test_a_worker_that_stops_hands_its_task_over(bench: Bench) -> None:
    """SIGTERM: the task runs on in the next worker at once, as its second attempt, not after a lease or a timeout."""
    first = bench.worker()
    task_id = bench.send("work", str(bench.folder), 6)
    eventually(lambda: bench.lines("begun") == 1, 15)
    first.terminate()
    first.wait(15)
    bench.worker()
    eventually(lambda: bench.lines("begun") == 2, claims.LEASE / 2)
    eventually(lambda: bench.ended(task_id), 30)
    assert bench.states(task_id)[1:] == [(1, State.STARTED), (2, State.STARTED), (2, State.SUCCESS)]
    assert bench.lines("ended") == 1


def test_a_retry_without_a_pause_is_never_lost_nor_unannounced(bench: Bench) -> None:
    """The retry's message meets the live lease of the attempt that sent it, on two workers at once, and still runs."""
    for _ in range(2):
        bench.worker()
    task_id = bench.send("again", 3)
    eventually(lambda: bench.ended(task_id), 20)
    assert bench.states(task_id)[1:] == [
        (1, State.STARTED),
        (1, State.RETRY),
        (2, State.STARTED),
        (2, State.RETRY),
        (3, State.STARTED),
        (3, State.RETRY),
        (4, State.STARTED),
        (4, State.SUCCESS),
    ]
    retries = [event for event in bench.kept(task_id) if event.state is State.RETRY]
    assert [event.reason for event in retries] == [f"RuntimeError: try {number}" for number in range(3)]
    assert {event.max_attempts for event in retries} == {4}


def test_a_worker_killed_by_force_loses_no_task(bench: Bench) -> None:
    """SIGKILL to a worker and its child: the message comes back by itself, and another worker runs attempt 2."""
    doomed = bench.worker(visibility_timeout=3)
    task_id = bench.send("work", str(bench.folder), 3)
    eventually(lambda: bench.lines("begun") == 1, 15)
    children = psutil.Process(doomed.pid).children(recursive=True)
    for process in (doomed, *children):
        process.kill()
    bench.worker(visibility_timeout=3)
    eventually(lambda: bench.ended(task_id), 60)
    assert bench.states(task_id)[1:] == [(1, State.STARTED), (2, State.STARTED), (2, State.SUCCESS)]
    assert bench.lines("ended") == 1


def test_of_many_spare_messages_one_waits(bench: Bench) -> None:
    """Twenty deliveries of a running task become one message in the queue, not twenty that come back for ever."""
    bench.worker()
    bench.worker()
    task_id = "many"
    for _ in range(20):
        bench.app.send_task("tests.faults.claimed_app.work", args=(str(bench.folder), 4), task_id=task_id)
    eventually(lambda: bench.ended(task_id), 40)
    assert bench.lines("begun") == 1
    asked_again = sum(log.read_text().count("asking again in") for log in bench.folder.glob("*.log"))
    assert asked_again <= 2


def test_a_held_message_stays_until_its_task_has_finished(bench: Bench) -> None:
    """A second delivery meets a live lease: it is not run, not dropped, and runs when the lease is not renewed."""
    held_by_nobody_alive = Leases(bench.client).claim
    task_id = "held"
    held_by_nobody_alive(task_id, 0, "a worker that died", 4.0)
    bench.worker()
    bench.app.send_task("tests.faults.claimed_app.work", args=(str(bench.folder), 0.1), task_id=task_id)
    eventually(lambda: bench.ended(task_id), 20)
    assert bench.states(task_id)[-2:] == [(2, State.STARTED), (2, State.SUCCESS)]
    assert bench.lines("begun") == 1


def test_nothing_runs_that_cannot_be_claimed(apart: Bench) -> None:
    """The store stands still while the broker delivers: the task waits, and runs once when the store is back."""
    for _ in range(2):
        apart.worker(visibility_timeout=3)
    apart.valkey.pause()
    # The producer's own PENDING would wait for the store as well; it is not what this is about.
    task_id = "unclaimed"
    plain = Celery("plain", broker=apart.broker, set_as_current=False)
    plain.send_task("tests.faults.claimed_app.work", args=(str(apart.folder), 4), task_id=task_id)
    plain.close()
    logs = list(apart.folder.glob("*.log"))
    eventually(lambda: any("the store is away" in log.read_text() for log in logs), 30)
    assert apart.lines("begun") == 0
    apart.valkey.resume()
    eventually(lambda: apart.ended(task_id), 60)
    assert apart.lines("begun") == apart.lines("ended") == 1
