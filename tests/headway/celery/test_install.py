"""One line makes any app publish."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery
from celery.app.trace import build_tracer
from celery.backends.base import DisabledBackend
from celery.backends.redis import RedisBackend
from kombu.exceptions import OperationalError

from headway import keys, track
from headway.celery import install
from headway.celery.backend import Publishing
from headway.celery.claims import ATTEMPT
from headway.events import Amount, Report, State
from headway.leases import Leases
from headway.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Worker = Any

ROOT = Path(__file__).parents[3]


@pytest.fixture
def make_app(redis_url: str) -> Iterator[Callable[..., Celery]]:
    """Apps that are closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> Celery:
            app = Celery(uuid.uuid4().hex, set_as_current=False, **{"broker": redis_url, **options})
            stack.callback(app.close)
            return app

        yield make


def state(redis_url: str, task_id: str) -> bytes | None:
    """What the store says of a task."""
    with redis.Redis.from_url(redis_url) as client:
        return client.hget(keys.of(task_id).task, "state")  # type: ignore[return-value]


@pytest.mark.parametrize(("backend", "kind"), [("redis", RedisBackend), (None, DisabledBackend)])
def test_the_backend_stays_what_it_is(
    make_app: Callable[..., Celery], redis_url: str, backend: str | None, kind: type
) -> None:
    """With publishing in front."""
    app = make_app(backend=redis_url if backend else None)
    install(app)
    assert isinstance(app.backend, kind)
    assert isinstance(app.backend, Publishing)


def test_the_configuration_may_come_after(make_app: Callable[..., Celery], redis_url: str) -> None:
    """The backend is resolved when it is first needed."""
    app = make_app()
    install(app)
    app.conf.result_backend = redis_url
    assert isinstance(app.backend, Publishing)
    assert isinstance(app.backend, RedisBackend)


def test_another_app_is_left_alone(make_app: Callable[..., Celery], redis_url: str) -> None:
    """Only what was installed publishes."""
    install(make_app(backend=redis_url))
    plain = make_app(backend=redis_url)
    assert not isinstance(plain.backend, Publishing)
    assert state(redis_url, plain.send_task("t").id) is None


def test_every_thread_publishes_pending(make_app: Callable[..., Celery], redis_url: str) -> None:
    """Also one in which Celery takes another app for the current one, as in a web server's pool."""
    apps = [make_app(), make_app()]
    sent: list[str] = []
    for app in apps:
        install(app)
        thread = threading.Thread(target=lambda app=app: sent.append(app.send_task("t").id))
        thread.start()
        thread.join()
    assert [state(redis_url, task_id) for task_id in sent] == [b"PENDING", b"PENDING"]


@pytest.mark.parametrize("hz", [0, -1, math.nan])
def test_a_rate_must_be_positive(make_app: Callable[..., Celery], hz: float) -> None:
    """And is checked at once."""
    with pytest.raises(ValueError, match="hz must be above 0"):
        install(make_app(), hz=hz)


def test_sending_does_not_need_the_store(make_app: Callable[..., Celery], redis_url: str, caplog: Any) -> None:
    """A progress store that is away costs a PENDING, not the task."""
    app = make_app()
    install(app, "redis://127.0.0.1:1/0")
    assert app.send_task("t").id
    assert "cannot be shown as PENDING" in caplog.text


def test_what_the_broker_refuses_is_not_pending(make_app: Callable[..., Celery], redis_url: str) -> None:
    """Its sender has been told, and nobody is shown a task that waits for ever."""
    app = make_app(broker_url="redis://127.0.0.1:1/0")
    install(app, redis_url)
    with pytest.raises(OperationalError):
        app.send_task("t", task_id="never-sent", retry=False)
    assert state(redis_url, "never-sent") is None


def test_an_attempt_that_is_superseded_before_it_begins_ends_nothing(
    make_app: Callable[..., Celery], redis_url: str
) -> None:
    """It was stopped between its claim and its start; the task is another worker's by now, in Celery's eyes too."""
    app = make_app(backend=redis_url)
    install(app)

    @app.task(name="late", shared=False)
    def late() -> None:
        for _ in track(range(3)):
            pass

    app.finalize()
    task_id = uuid.uuid4().hex
    with redis.Redis.from_url(redis_url) as client:
        store, leases = Store(client), Leases(client)
        leases.claim(task_id, 0, "late", 0.0)
        started = Report(type="state", state=State.STARTED, ts=1.0, amount=Amount())
        store.publish(task_id, started, attempt=leases.claim(task_id, 0, "other", 15.0))
    # As a worker runs it; sent by somebody who left out what the protocol lets him.
    request = {"id": task_id, "task": "late", ATTEMPT: 1}
    build_tracer("late", app.tasks["late"], app=app)(task_id, (), {}, request)
    assert state(redis_url, task_id) == b"STARTED"
    assert app.AsyncResult(task_id).state == "PENDING"


BY_PATH = "celery.backends.redis:RedisBackend+redis://127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        (
            "app = Celery(broker='memory://')\ninstall(app)",
            "headway needs a Redis: pass url to install(), or set HEADWAY_REDIS_URL",
        ),
        (
            f"app = Celery(broker='memory://', backend='{BY_PATH}')\ninstall(app, 'redis://127.0.0.1:1/0')",
            "headway cannot publish through the result backend RedisBackend: configure it by its",
        ),
        (
            "app = Celery(broker='memory://')\napp.backend\ninstall(app, 'redis://127.0.0.1:1/0')",
            "headway cannot publish through the result backend DisabledBackend",
        ),
    ],
    ids=["no redis", "backend by path", "backend used before"],
)
def test_a_worker_that_would_publish_nothing_says_so(tmp_path: Path, program: str, sentence: str) -> None:
    """One sentence, at its start."""
    (tmp_path / "lonely.py").write_text(f"from celery import Celery\nfrom headway.celery import install\n{program}\n")
    environment = {key: value for key, value in os.environ.items() if key != "HEADWAY_REDIS_URL"}
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "lonely", "worker", "-P", "solo"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
