"""What a task's body calls."""

from __future__ import annotations

import statistics
import threading
import time
import uuid
from typing import TYPE_CHECKING

import pytest
import redis
from msgspec import UnsetType

from headway import Progress, Superseded, keys, track
from headway import run as runs
from headway.events import Amount, Envelope, Report, State, decode
from headway.run import Run
from headway.store import Finished, Refused, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import ValkeyFactory


@pytest.fixture
def run(redis_url: str) -> Iterator[Run]:
    """The test is the body of a task; it is sampled when it says so, and not by the clock."""
    with redis.Redis.from_url(redis_url) as client:
        run = Run(Store(client), uuid.uuid4().hex, 1, hz=0.001)
        run._due = float("inf")  # noqa: SLF001  # the sampling thread leaves it alone
        runs.begin(run)
        yield run
        runs.end(run.task_id)


def shown(run: Run) -> tuple[float, float | None, str | None, str | None, float | None]:
    """Current, total, unit, stage and percent as the next event would have them."""
    report = run._progress(0.0)  # noqa: SLF001
    assert report is not None
    assert isinstance(report.amount, Amount)
    assert not isinstance(report.percent, UnsetType)
    amount = report.amount
    return amount.current, amount.total, amount.unit, amount.stage, report.percent


def test_outside_a_task_track_is_the_plain_iterator() -> None:
    """No generator between the loop and its items."""
    items = [1, 2]
    assert type(track(items, total=2)) is type(iter(items))
    assert list(track(iter("ab"))) == ["a", "b"]


def test_outside_a_task_progress_does_nothing() -> None:
    """The same code runs in a test or a script."""
    progress = Progress(total=2, unit="rows", message="m")
    with progress.stage("a", weight=0.5) as stage:
        stage.set(current=1)
        stage.advance()
        stage.log("line", level="warning")


def test_the_length_is_the_total(run: Run) -> None:
    """Where there is one."""
    assert sum(track([1, 2, 3], unit="rows", message="adding")) == 6
    assert shown(run) == (3, 3, "rows", None, 100)
    assert run.message == "adding"


def test_an_iterator_has_no_length(run: Run) -> None:
    """The total is unknown unless it is given."""
    list(track(iter("abc")))
    assert shown(run) == (3, None, None, None, None)


def test_a_given_total_counts(run: Run) -> None:
    """More than the length."""
    list(track("abc", total=12))
    assert shown(run) == (3, 12, None, None, 25)


def test_the_count_is_live(run: Run) -> None:
    """An item is done when the next one is asked for."""
    seen = [run.root.count() for _ in track("abc")]
    assert seen == [0, 1, 2]
    assert run.root.count() == 3


def test_a_break_leaves_the_item_uncounted(run: Run) -> None:
    """It was begun, and not done."""
    for item in track("abcd"):
        if item == "c":
            break
    assert run.root.count() == 2


def test_an_exception_of_the_body_passes(run: Run) -> None:
    """The count stays where it was."""
    with pytest.raises(ZeroDivisionError):
        sum(1 // item for item in track([1, 2, 0, 3]))
    assert run.root.count() == 2


def test_an_exception_of_the_source_passes(run: Run) -> None:
    """What it gave before is counted."""

    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(track(source()))
    assert run.root.count() == 2


def test_a_closed_generator_leaves_its_count(run: Run) -> None:
    """And nothing that the sampler would call."""
    loop = track("abcd")
    next(loop)
    next(loop)
    loop.close()  # type: ignore[attr-defined]
    assert (run.root.count(), run.root.source) == (1, None)


def test_loops_one_after_the_other_count_each(run: Run) -> None:
    """The second one begins at nothing."""
    list(track("ab"))
    list(track("abc"))
    assert shown(run)[:2] == (3, 3)


def test_of_loops_within_one_another_the_outermost_counts(run: Run) -> None:
    """The inner one would say 100 % after the first round."""
    seen = [shown(run) for _ in track("abcd", unit="files") for _ in track("xy", unit="rows")]
    assert {total for _, total, _, _, _ in seen} == {4}
    assert {unit for _, _, unit, _, _ in seen} == {"files"}
    assert run.root.count() == 4


@pytest.mark.parametrize("refusal", [Superseded, Finished])
def test_a_stopped_run_ends_its_loop(run: Run, refusal: type[Refused]) -> None:
    """So that a zombie stops; every other call says so too."""
    done = []

    def body() -> None:
        for item in track(range(10)):
            done.append(item)
            if item == 3:
                run.stop = refusal("no")

    with pytest.raises(refusal):
        body()
    assert done == [0, 1, 2, 3]
    progress = Progress.__new__(Progress)
    progress._run, progress._stage = run, run.root  # noqa: SLF001
    calls: list[Callable[[], object]] = [Progress, progress.advance, progress.set, lambda: progress.log("x")]
    for call in calls:
        with pytest.raises(refusal):
            call()


def test_a_superseded_attempt_learns_it_from_the_store(redis_url: str) -> None:
    """The sampler hears the refusal; the loop raises it."""
    started = Report(type="state", state=State.STARTED, ts=1.0)
    with redis.Redis.from_url(redis_url) as client:
        store, task_id = Store(client), uuid.uuid4().hex
        store.publish(task_id, started, attempt="+")
        runs.begin(Run(store, task_id, 1, hz=100))
        store.publish(task_id, started, attempt="+")
        with pytest.raises(Superseded):
            all(time.sleep(0.001) is None for _ in track(iter(int, 1)))
        runs.end(task_id)


def test_what_is_left_out_stays(run: Run) -> None:
    """`set` changes what it is given."""
    progress = Progress(total=10, unit="rows", message="m")
    progress.set(current=4)
    progress.advance()
    assert shown(run) == (5, 10, "rows", None, 50)
    progress.set(total=20, message="n")
    assert shown(run) == (5, 20, "rows", None, 25)
    assert run.message == "n"


def test_stages_share_the_bar(run: Run) -> None:
    """Weights are shares of the parent's bar; amounts are the innermost stage's."""
    progress = Progress()
    with progress.stage("read", weight=0.2, total=4, unit="files") as stage:
        stage.advance(2)
        assert shown(run) == (2, 4, "files", "read", 10)
    with progress.stage("write") as stage, stage.stage("rows", weight=0.5, total=10) as rows:
        rows.set(current=5)
        assert shown(run) == (5, 10, None, "write/rows", 40)
    assert run.root.fraction == 1


def test_track_counts_the_open_stage(run: Run) -> None:
    """No plumbing here either."""
    with Progress().stage("half", weight=0.5):
        list(track("abcd"))
        assert shown(run) == (4, 4, None, "half", 50)


def test_a_failed_stage_is_not_complete(run: Run) -> None:
    """The exception passes, and the bar stays."""

    def fail() -> None:
        with Progress().stage("half", weight=0.5, total=10) as stage:
            stage.advance(5)
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        fail()
    assert run.root.fraction == 0.25


def test_a_thread_of_the_task_reports_to_it(run: Run) -> None:
    """Without being told which."""
    threads = [threading.Thread(target=lambda: [Progress().advance() for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.root.count() == 400


def test_an_absent_redis_costs_the_body_nothing(valkey_factory: ValkeyFactory) -> None:
    """None waits for a Redis that hangs or is gone, and on average they take no millisecond; no line is lost by it."""
    server = valkey_factory()
    task_id = uuid.uuid4().hex
    with (
        redis.Redis.from_url(server.url, socket_timeout=1) as client,
        redis.Redis.from_url(server.url) as other,
    ):
        run = Run(Store(client), task_id, 1, hz=50)
        runs.begin(run)
        took = []
        progress = Progress(total=300)
        for number in range(300):
            if number == 100:
                server.pause()
            if number == 200:
                server.resume()
                server.kill()
            began = time.perf_counter()
            progress.log(str(number))
            progress.advance()
            took.append(time.perf_counter() - began)
            time.sleep(0.002)
        server.start()
        deadline = time.monotonic() + 10
        while run._lines and time.monotonic() < deadline:  # noqa: SLF001
            time.sleep(0.01)
        runs.end(task_id)
        journal = [fields[b"e"] for _, fields in other.xrange(keys.of(task_id).replay)]
    assert statistics.mean(took) < 0.001
    assert max(took) < 0.5, "half of what waiting for an answer would take"
    texts = [int(decode(Envelope.parse(entry).data).message or -1) for entry in journal]
    assert texts == list(range(300))
