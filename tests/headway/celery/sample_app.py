"""An ordinary Celery app with one more line, for the worker processes of these tests."""

from __future__ import annotations

import os
import signal
import time
from typing import Annotated, Any

import msgspec
from celery import Celery
from celery.exceptions import Ignore, Reject

from headway import Progress, track
from headway.celery import install

app = Celery("under_test", broker=os.environ["UNDER_TEST_BROKER"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    result_backend_transport_options={"retry_policy": {"timeout": 30.0}},
)
install(app, hz=20)
# After install(): the configuration may come later.
app.conf.result_backend = os.environ.get("UNDER_TEST_BACKEND") or None


@app.task
def echo(value: Any = None) -> Any:
    return value


@app.task(ignore_result=True)
def silent() -> str:
    return "nobody stores this"


@app.task
def count(number: int, seconds: float = 0.02) -> int:
    for _ in track(range(number), unit="rows", message="counting"):
        time.sleep(seconds)
    return number


def _here() -> None:
    raise ValueError("here \udc80")


def _there() -> None:
    raise ValueError("there")


@app.task
def fail(where: str) -> None:
    Progress(total=4).advance(3)
    {"here": _here, "there": _there}[where]()


@app.task(bind=True, max_retries=3)
def again(self: Any) -> int:
    progress = Progress(total=2)
    progress.advance(1 + self.request.retries)
    progress.log(f"attempt {self.request.retries + 1}")
    try:
        _settle(self.request.retries)
    except OSError as error:
        raise self.retry(exc=error, countdown=0) from error
    return int(self.request.retries)


def _settle(retries: int) -> None:
    if retries == 0:
        raise OSError("not yet")


@app.task(time_limit=1)
def endless() -> None:
    while True:
        time.sleep(0.1)


@app.task
def suicide() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Opaque:
    def __repr__(self) -> str:
        return "<opaque>"


@app.task
def odd(kind: str) -> Any:
    return {"object": Opaque(), "nan": float("nan"), "set": {1}, "bytes": b"\xff", "surrogate": "\udc80"}[kind]


@app.task(bind=True)
def updates(self: Any) -> None:
    for number in range(1, 4):
        self.update_state(state="PROGRESS", meta={"current": number, "total": 3, "message": f"step {number}", "x": 1})
        time.sleep(0.12)


@app.task
def lets_go(kind: str) -> None:
    Progress().log("last words")
    raise {"ignore": Ignore, "reject": Reject}[kind]()


@app.task
def eager_within() -> list[Any]:
    result = echo.apply(args=["inner"])
    return [result.id, result.get(disable_sync_subtasks=False)]


@app.task
def add(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(catalogue=True, bind=True)
def offered(
    self: Any,
    rows: Annotated[int, msgspec.Meta(ge=1, description="How many")],
    name: str = "x",
    tags: list[str] = [],  # noqa: B006  # what users write
) -> None:
    """Do what is offered.

    Not part of the description.
    """
