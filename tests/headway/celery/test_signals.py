"""What watchers see of a task from the queue to its end, on every pool."""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from headway.events import TaskEvent

    # The classes of conftest.py, which pytest imports under a name of its own.
    Worker = Any


def states(events: list[TaskEvent]) -> list[str]:
    """The changes of state, in order."""
    return [event.state.value for event in events if event.type == "state"]


def test_a_task_is_seen_from_the_queue_to_its_end(worker: Worker) -> None:
    """PENDING, STARTED, PROGRESS…, SUCCESS with the result."""
    events = worker.send("count", 20).watch.end()
    assert states(events) == ["PENDING", "STARTED", "SUCCESS"]
    running = [event for event in events if event.type == "progress"]
    assert {event.state for event in running} == {"PROGRESS"}
    counts = [event.current for event in running]
    assert len(counts) >= 3
    assert counts == sorted(counts)
    assert (events[-1].result, events[-1].current, events[-1].total, events[-1].percent) == (20, 20, 20, 100)
    assert (events[-1].unit, events[-1].message) == ("rows", "counting")


def test_the_rate_bounds_the_events(worker: Worker) -> None:
    """20 Hz were asked for; state events are not counted."""
    events = worker.send("count", 30).watch.end()
    times = [event.ts for event in events if event.type == "progress"]
    gaps = [after - before for before, after in itertools.pairwise(times[:-1])]
    assert min(gaps) >= 0.04


def test_a_retry_is_the_next_attempt(worker: Worker) -> None:
    """RETRY says when, why and how often; then attempt 2 begins at nothing."""
    before = time.time()
    events = worker.send("again").watch.end()
    assert states(events) == ["PENDING", "STARTED", "RETRY", "STARTED", "SUCCESS"]
    (retry,) = (event for event in events if event.state == "RETRY" and event.type == "state")
    assert (retry.reason, retry.max_attempts, retry.attempt) == ("OSError: not yet", 4, 1)
    assert before <= retry.retry_at <= time.time()
    assert retry.percent == 50
    after = events[events.index(retry) + 1 :]
    assert {event.attempt for event in after} == {2}
    assert (after[0].current, after[0].percent) == (0, None)


def test_every_log_line_arrives_before_the_end(worker: Worker) -> None:
    """Also those that were said a moment before."""
    events = worker.send("again").watch.end()
    lines = [(event.message, event.attempt) for event in events if event.type == "log"]
    assert lines == [("attempt 1", 1), ("attempt 2", 2)]


def test_the_task_resource_knows_the_task(worker: Worker) -> None:
    """Name, arguments, queue, worker, and when."""
    job = worker.send("echo", {"a": 1})
    job.watch.end()
    details = worker.details(job.result.id)
    assert details["task"].endswith(".echo")
    assert json.loads(details["args"]) == {"*": [{"a": 1}]}
    assert details["queue"] == "celery"
    assert details["worker"].endswith("@test")
    assert float(details["created_at"]) <= float(details["run:1:started_at"]) <= float(details["run:1:finished_at"])


def test_arguments_that_are_too_large_are_left_out(threads: Worker) -> None:
    """They are not for a progress store to keep."""
    job = threads.send("echo", "x" * 70_000)
    job.watch.end()
    assert json.loads(threads.details(job.result.id)["args"]).keys() == {"omitted"}


@pytest.mark.parametrize("kind", ["ignore", "reject"])
def test_a_task_that_lets_go_has_its_last_words(worker: Worker, kind: str) -> None:
    """Ignore and Reject end a body without an end of the task."""
    events = worker.send("lets_go", kind).watch.until(lambda event: event.type == "log")
    assert states(events) == ["PENDING", "STARTED"]
    assert events[-1].message == "last words"


def test_an_eager_task_publishes_nothing(worker: Worker) -> None:
    """It has no queue, no worker and no watchers; the task around it is not disturbed."""
    events = worker.send("eager_within").watch.end()
    inner, value = events[-1].result
    assert value == "inner"
    assert worker.details(inner) == {}
    assert states(events) == ["PENDING", "STARTED", "SUCCESS"]


def test_update_state_becomes_progress(worker: Worker) -> None:
    """Its meta, where it speaks our words."""
    events = worker.send("updates").watch.end()
    seen = [(event.current, event.total, event.message) for event in events if event.type == "progress"]
    assert seen == [(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")]


def test_arguments_that_the_sender_hides_stay_hidden(worker: Worker) -> None:
    """`argsrepr` is what Celery itself shows of a secret: watchers are shown no more, before and after the start."""
    job = worker.send("count", 31, argsrepr="(***,)")
    assert "31" not in worker.details(job.result.id)["args"]
    job.watch.end()
    assert json.loads(worker.details(job.result.id)["args"]) == {"repr": "(***,) {}"}
