"""The patience to deliver what must not be lost, and its end."""

from __future__ import annotations

import time

import pytest
import redis
from celery import Celery

from headway.celery.integration import Integration, patiently
from headway.events import Report, State


class Redis:
    """Answers after some trouble."""

    def __init__(self, *trouble: Exception) -> None:
        self.trouble = list(trouble)
        self.calls = 0

    def call(self) -> str:
        self.calls += 1
        if self.trouble:
            raise self.trouble.pop(0)
        return "done"


@pytest.mark.parametrize(
    "trouble",
    [
        redis.ConnectionError("away"),
        redis.TimeoutError("slow"),
        redis.BusyLoadingError("loading"),
        redis.OutOfMemoryError("full"),
        redis.ReadOnlyError("replica"),
        redis.ResponseError("MISCONF unable to persist to disk"),
        redis.ResponseError("BUSY running a script"),
    ],
)
def test_what_passes_is_waited_for(trouble: Exception) -> None:
    """A Redis that is away, starting, full or failing over."""
    server = Redis(trouble, trouble)
    assert patiently(server.call, 5.0, "x") == "done"
    assert server.calls == 3


def test_patience_ends(caplog: pytest.LogCaptureFixture) -> None:
    """With an error in the log, and not in the task."""
    server = Redis(*[redis.ConnectionError("away")] * 1_000)
    began = time.monotonic()
    assert patiently(server.call, 0.3, "end of task t") is None
    assert time.monotonic() - began < 1
    assert "end of task t could not be published: away" in caplog.text


@pytest.mark.parametrize("trouble", [redis.ResponseError("no"), redis.AuthenticationError("no")])
def test_a_refusal_for_good_is_not_repeated(trouble: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong password or a script error: waiting does not help, and the task does not fail for it."""
    server = Redis(trouble, trouble)
    assert patiently(server.call, 60.0, "end of task t") is None
    assert server.calls == 1
    assert "could not be published: no" in caplog.text


def test_all_last_words_share_one_patience(caplog: pytest.LogCaptureFixture) -> None:
    """However many there are, a slot waits once; the end itself is tried to the last."""
    app = Celery("patience", set_as_current=False)
    headway = Integration(app, "redis://127.0.0.1:1/0", 10.0)
    words = [(Report(type="log", ts=1.0, message=str(number)), str(number)) for number in range(100)]
    end = (Report(type="state", state=State.SUCCESS, ts=1.0), "end")
    began = time.monotonic()
    headway.deliver("t", 1, [*words, end], patience=0.3)
    assert time.monotonic() - began < 1
    assert "state of task t could not be published" in caplog.text
    headway.client.close()
    app.close()


def test_another_error_passes() -> None:
    """A bug is not hidden."""
    with pytest.raises(ZeroDivisionError):
        patiently(Redis(ZeroDivisionError()).call, 60.0, "x")
