"""Every end of a task is published, once, and Celery's own result says the same."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from celery import chain, chord, group
from celery.result import allow_join_result

from headway.celery.backend import MAX_RESULT, failure, result_member

if TYPE_CHECKING:
    from pathlib import Path

    from headway.events import TaskEvent
    from tests.conftest import ValkeyFactory

    # The classes of conftest.py, which pytest imports under a name of its own.
    Worker = Any


def states(events: list[TaskEvent]) -> list[str]:
    """The changes of state, in order."""
    return [event.state.value for event in events if event.type == "state"]


def test_a_failure_says_what_and_where(worker: Worker) -> None:
    """Type, message and a fingerprint; the bar stays where it was."""
    last = worker.send("fail", "there").watch.end()[-1]
    assert last.state == "FAILURE"
    assert (last.error.type, last.error.message) == ("ValueError", "there")
    assert (last.current, last.percent) == (3, 75)


def test_equal_fingerprints_are_the_same_failure(prefork: Worker) -> None:
    """The same exception in the same place has the same one, on every pool; in another place another one."""
    here, again, there = (
        prefork.send("fail", where).watch.end()[-1].error.fingerprint for where in ("here", "here", "there")
    )
    assert here == again != there


def test_a_message_that_is_not_unicode_is_told(worker: Worker) -> None:
    """Half a surrogate pair, as in a file name, does not hide the failure."""
    assert worker.send("fail", "here").watch.end()[-1].error.message == "here ?"


def test_celery_keeps_its_own_result(threads: Worker) -> None:
    """`get()` works as before."""
    job = threads.send("echo", [1, {"a": None}])
    assert job.watch.end()[-1].result == [1, {"a": None}]
    assert job.result.get(timeout=10) == [1, {"a": None}]
    failed = threads.send("fail", "there")
    with pytest.raises(ValueError, match="there"):
        failed.result.get(timeout=10)


def test_a_result_that_nobody_stores_is_published(worker: Worker) -> None:
    """With `ignore_result`, and (on the solo worker) without any result backend."""
    job = worker.send("silent")
    assert job.watch.end()[-1].result == "nobody stores this"


def test_a_large_result_is_referenced(threads: Worker) -> None:
    """The event says where it is and how large."""
    job = threads.send("echo", "x" * MAX_RESULT)
    assert job.watch.end()[-1].result == {"href": f"/tasks/{job.result.id}/result", "size": MAX_RESULT + 2}
    assert job.result.get(timeout=10) == "x" * MAX_RESULT


def test_the_largest_result_is_carried() -> None:
    """64 KiB of JSON."""
    assert bytes(result_member("t", "x" * (MAX_RESULT - 2))) == b'"%b"' % (b"x" * (MAX_RESULT - 2))


@pytest.mark.parametrize(("kind", "shown"), [("nan", None), ("bytes", "/w=="), ("surrogate", "?")])
def test_a_result_that_json_has_no_word_for_is_published(threads: Worker, kind: str, shown: object) -> None:
    """As the nearest thing that it has; the task is as successful as without us."""
    last = threads.send("odd", kind).watch.end()[-1]
    assert (last.state, last.result) == ("SUCCESS", shown)


@pytest.mark.parametrize("kind", ["object", "set"])
def test_a_result_that_celery_cannot_store_is_a_failure_for_all(threads: Worker, kind: str) -> None:
    """Watchers are not told of a success that `get()` denies."""
    job = threads.send("odd", kind)
    last = job.watch.end()[-1]
    assert last.state == "FAILURE"
    assert last.error.type == "EncodeError"
    with pytest.raises(Exception, match="not JSON serializable"):
        job.result.get(timeout=10)
    assert job.watch.nothing_follows()


def test_without_a_backend_any_result_is_a_success(workers: dict[str, Worker]) -> None:
    """Nothing is stored, so nothing can fail to be."""
    last = workers["solo"].send("odd", "object").watch.end()[-1]
    assert (last.state, last.result) == ("SUCCESS", "<opaque>")
    workers["solo"].rest()


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_pending_task_is_revoked(workers: dict[str, Worker], pool: str) -> None:
    """At once, long before its time."""
    job = workers[pool].send("echo", 1, countdown=60)
    job.watch.until(lambda event: event.state == "PENDING")
    workers[pool].app.control.revoke(job.result.id)
    events = job.watch.end()
    assert states(events) == ["PENDING", "REVOKED"]
    assert events[-1].error.type == "TaskRevokedError"
    workers[pool].rest()


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_task_is_revoked_once(workers: dict[str, Worker], pool: str) -> None:
    """Although Celery says it again when the task's time has come; without a result backend it says it only then."""
    job = workers[pool].send("echo", 1, countdown=1.5)
    workers[pool].app.control.revoke(job.result.id)
    time.sleep(1.5)  # its time
    events = job.watch.end()
    assert states(events) == ["PENDING", "REVOKED"]
    assert job.watch.nothing_follows(0.7)
    workers[pool].rest()


def test_a_running_task_is_terminated(prefork: Worker) -> None:
    """`terminate=True` ends in REVOKED."""
    job = prefork.send("count", 10_000)
    job.watch.until(lambda event: event.current > 0)
    prefork.app.control.revoke(job.result.id, terminate=True)
    events = job.watch.end()
    assert events[-1].state == "REVOKED"
    assert events[-1].current >= 1


def test_a_hard_time_limit_is_one_failure(prefork: Worker) -> None:
    """Celery stores it twice and sends two signals; watchers see one end."""
    job = prefork.send("endless")
    events = job.watch.end()
    assert states(events) == ["PENDING", "STARTED", "FAILURE"]
    assert events[-1].error.type == "TimeLimitExceeded"
    assert job.watch.nothing_follows(1.0)


def test_a_child_that_dies_is_a_failure(prefork: Worker) -> None:
    """The main process says so."""
    job = prefork.send("suicide")
    assert job.watch.end()[-1].error.type == "WorkerLostError"
    assert job.watch.nothing_follows()


def test_a_broken_chain_ends_at_every_link(prefork: Worker) -> None:
    """The next steps never run, and their watchers learn it."""
    first, second, third = (prefork.signature(*call) for call in (("fail", "there"), ("echo",), ("echo",)))
    watches = [prefork.watch(step.options["task_id"]) for step in (first, second, third)]
    chain(first, second, third).apply_async()
    ends = [watch.end()[-1] for watch in watches]
    assert [end.state for end in ends] == ["FAILURE"] * 3
    assert {end.error.type for end in ends} == {"ValueError"}


def test_a_chain_passes_its_results_on(threads: Worker) -> None:
    """Each link is seen from its queue to its end, and knows its family."""
    first, second = threads.signature("echo", 7), threads.signature("echo")
    watches = [threads.watch(step.options["task_id"]) for step in (first, second)]
    assert chain(first, second).apply_async().get(timeout=10) == 7
    for watch in watches:
        assert states(watch.end()) == ["PENDING", "STARTED", "SUCCESS"]
    details = threads.details(watches[1].task_id)
    assert details["parent_id"] == details["root_id"] == watches[0].task_id


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_chord_completes(workers: dict[str, Worker], pool: str) -> None:
    """Once, with the results of all; the body is watched like any task."""
    worker = workers[pool]
    body = worker.signature("add")
    watch = worker.watch(body.options["task_id"])
    result = chord([worker.signature("echo", number) for number in range(5)], body).apply_async()
    assert result.get(timeout=10) == 10
    assert watch.end()[-1].result == 10
    worker.rest()


def test_a_failed_chord_ends_its_body(threads: Worker) -> None:
    """The body never runs, and its watchers learn it."""
    body = threads.signature("add")
    watch = threads.watch(body.options["task_id"])
    chord([threads.signature("echo", 1), threads.signature("fail", "there")], body).apply_async()
    last = watch.end()[-1]
    assert (last.state, last.error.type) == ("FAILURE", "ChordError")


def test_a_group_is_its_members(threads: Worker) -> None:
    """Each is watched by itself."""
    members = [threads.signature("echo", number) for number in range(3)]
    watches = [threads.watch(member.options["task_id"]) for member in members]
    result = group(members).apply_async()
    with allow_join_result():
        assert result.get(timeout=10) == [0, 1, 2]
    assert [watch.end()[-1].result for watch in watches] == [0, 1, 2]


def test_a_finished_task_is_not_finished_again(threads: Worker) -> None:
    """An id that is used again is refused, and Celery's result stays what it was."""
    task_id = uuid.uuid4().hex
    first = threads.send("echo", "first", task_id=task_id)
    first.watch.end()
    threads.signature("echo", "second", task_id=task_id).apply_async()
    threads.send("echo", "after").watch.end()
    assert first.watch.nothing_follows()
    assert first.result.get(timeout=10) == "first"


def _raised(exc: BaseException) -> tuple[BaseException, str]:
    return exc, 'Traceback:\n  File "/a/b/c.py", line 7, in f\n  File "d.py", line 9, in g\nE: x'


def test_a_fingerprint_ignores_lines_messages_and_folders() -> None:
    """An edit above the place, or another machine, does not make another failure of it."""
    exc, trace = _raised(ValueError("a"))
    moved = trace.replace("line 7", "line 8").replace("/a/b/", "/elsewhere/")
    assert failure(exc, trace).fingerprint == failure(ValueError("b"), moved).fingerprint
    assert failure(exc, trace).fingerprint != failure(KeyError("a"), trace).fingerprint
    assert failure(exc, trace).fingerprint != failure(exc, trace.replace("in g", "in h")).fingerprint


def test_an_outage_in_the_middle_of_a_job_costs_nothing(
    valkey_factory: ValkeyFactory, workers: dict[str, Worker], tmp_path: Path
) -> None:
    """Redis is killed for 5 s under a solo and a prefork worker: both jobs succeed, and their ends arrive."""
    server = valkey_factory()
    worker_type = type(workers["solo"])
    running = [worker_type(server.url, number, pool, tmp_path) for number, pool in ((1, "solo"), (2, "prefork"))]
    try:
        results = [worker.ready().send("count", 150, 0.02).result for worker in running]
        for worker, result in zip(running, results, strict=True):
            _until(lambda worker=worker, result=result: worker.details(result.id).get("state") == "PROGRESS")
            worker.rest()
        server.kill()
        time.sleep(5)
        server.start()
        for worker, result in zip(running, results, strict=True):
            _until(lambda worker=worker, result=result: worker.details(result.id).get("state") == "SUCCESS")
            details = worker.details(result.id)
            assert '"current":150' in details["rest"]
            assert details["attempt"] == "1"
            assert result.get(timeout=20) == 150
    finally:
        for worker in running:
            worker.stop()


def _until(condition: Any, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
