"""A run and its sampling thread: nothing lost, nothing too often, and no cost to the body."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from headway import keys
from headway import run as runs
from headway.events import Envelope, Report, decode
from headway.run import MAX_LINE, MAX_LOG_LINES, Run, Sampler
from headway.store import Finished, Position, Store, Superseded


class Listener:
    """A publisher that keeps what it is told, and refuses or breaks when asked to."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.times: list[float] = []
        self.trouble: Exception | None = None

    def publish(self, task_id: str, report: Report, *, attempt: int | str = "", operation: str = "") -> Position:
        if self.trouble:
            raise self.trouble
        self.reports.append(report)
        self.times.append(time.monotonic())
        return Position(len(self.reports), 1, 1)

    @property
    def lines(self) -> list[object]:
        return [report.message for report in self.reports if report.type == "log"]

    @property
    def currents(self) -> list[float]:
        return [report.amount.current for report in self.reports if report.type == "progress" and report.amount]


@pytest.fixture
def listener() -> Listener:
    """Listens, until told otherwise."""
    return Listener()


@pytest.fixture
def run(listener: Listener) -> Run:
    """A run that nobody samples but the test."""
    return Run(listener, "t", 1)


def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def test_what_has_not_changed_is_not_said(run: Run, listener: Listener) -> None:
    """Neither an untouched run, nor the same amounts again."""
    run.sample(0.0)
    assert listener.reports == []
    run.root.current = 1
    run.sample(1.0)
    run.sample(2.0)
    assert listener.currents == [1]


def test_samples_are_an_interval_apart(run: Run, listener: Listener) -> None:
    """10 Hz: what comes in between waits."""
    for tick in range(100):
        run.root.current = tick + 1
        run.sample(tick / 100)
    assert len(listener.currents) == 10


@pytest.mark.parametrize("hz", [2.0, 20.0])
def test_the_sampler_publishes_at_most_at_its_rate(listener: Listener, hz: float) -> None:
    """However often the body counts."""
    sampler, run = Sampler(), Run(listener, "t", 1, hz)
    sampler.add(run)
    until(lambda: run.root.advance(1) or len(listener.times) >= 4)
    sampler.remove("t")
    gaps = [after - before for before, after in zip(listener.times, listener.times[1:], strict=False)]
    assert min(gaps) >= 0.97 / hz


def test_rate_and_eta_are_told(run: Run, listener: Listener) -> None:
    """In units a second and seconds."""
    run.root.total = 100
    for second in range(5):
        run.root.current = second * 10 + 10
        run.sample(float(second))
    last = listener.reports[-1]
    assert last.percent == 50
    assert last.rate == pytest.approx(10)
    assert last.eta == pytest.approx(5)


def test_without_a_total_there_is_no_percent(run: Run, listener: Listener) -> None:
    """`current` still counts."""
    run.root.current = 5
    run.sample(0.0)
    assert (listener.reports[0].percent, listener.reports[0].eta) == (None, None)


def test_log_lines_keep_their_order_and_precede_the_progress(run: Run, listener: Listener) -> None:
    """Each is an event of its own, with its own time."""
    run.root.current = 1
    for number in range(5):
        run.log("info", str(number))
    run.sample(0.0)
    assert [report.type for report in listener.reports] == ["log"] * 5 + ["progress"]
    assert listener.lines == list("01234")
    times = [report.ts for report in listener.reports]
    assert times == sorted(times)


def test_lines_are_bounded(run: Run, listener: Listener) -> None:
    """8 Ki characters: a thousand of them are kept."""
    run.log("info", "x" * (MAX_LINE + 1))
    run.sample(0.0)
    assert len(str(listener.lines[0])) == MAX_LINE


def test_lines_wait_for_an_absent_redis(run: Run, listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    """They come when it is back, once each and in order; the wait is logged."""
    listener.trouble = redis.ConnectionError("away")
    run.log("info", "a")
    run.sample(0.0)
    run.log("info", "b")
    run.sample(0.1)
    listener.trouble = None
    run.sample(10.0)
    run.sample(20.0)
    assert listener.lines == ["a", "b"]
    assert "waits for Redis: away" in caplog.text


def test_an_absent_redis_is_asked_ever_more_rarely(
    run: Run, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """From 4 times a second to once in 5 seconds."""
    caplog.set_level(logging.WARNING)
    listener.trouble = redis.ConnectionError("away")
    run.log("info", "a")
    tries = []
    for tick in range(600):
        before = len(caplog.records)
        run.sample(tick / 10)
        if len(caplog.records) > before:
            tries.append(tick / 10)
    assert tries[1] <= 0.3
    assert len(tries) < 20
    assert tries[-1] - tries[-2] == pytest.approx(5, abs=0.2)


def test_a_loss_of_lines_is_told(run: Run, listener: Listener) -> None:
    """The newest thousand are kept, and how many are missing is said before them."""
    listener.trouble = redis.ConnectionError("away")
    for number in range(MAX_LOG_LINES + 7):
        run.log("info", str(number))
    run.sample(0.0)
    listener.trouble = None
    run.sample(10.0)
    assert listener.lines == [
        "7 log lines were lost while Redis was away",
        *(str(number) for number in range(7, MAX_LOG_LINES + 7)),
    ]
    assert listener.reports[0].extra.level == "warning"
    run.log("info", "after")
    run.sample(20.0)
    assert listener.lines[-1] == "after"
    assert len(listener.lines) == MAX_LOG_LINES + 2


def test_every_line_is_delivered_or_counted_as_lost(listener: Listener) -> None:
    """Also when the queue overflows in the middle of a delivery."""
    run = Run(listener, "t", 1)
    total = MAX_LOG_LINES * 5

    def chatter() -> None:
        for number in range(total):
            run.log("info", str(number))

    body = threading.Thread(target=chatter)
    body.start()
    now = 0.0
    while body.is_alive():
        run.sample(now := now + 1)
    run.sample(now + 1)
    run.sample(now + 2)
    told = [str(line) for line in listener.lines]
    lost = sum(int(line.split()[0]) for line in told if "lost" in line)
    said = [int(line) for line in told if "lost" not in line]
    assert said == sorted(set(said))
    assert len(said) + lost == total


class Forgetful(Store):
    """A store of which every second reply gets lost."""

    calls = 0

    def publish(self, *args: Any, **options: Any) -> Position:
        position = super().publish(*args, **options)
        self.calls += 1
        if self.calls % 2:
            raise redis.TimeoutError("no reply")
        return position


def test_a_line_whose_reply_was_lost_is_one_line(redis_url: str) -> None:
    """It is offered again, by the sampler or as the last word, and the store knows it."""
    with redis.Redis.from_url(redis_url) as client:
        forgetful, task_id = Forgetful(client), uuid.uuid4().hex
        run = Run(forgetful, task_id, 1)
        for text in "abc":
            run.log("info", text)
        for second in range(0, 50, 10):
            run.sample(float(second))
        run.log("info", "d")
        forgetful.calls = 0
        run.sample(100.0)
        for report, operation in run.last_words():
            Store(client).publish(task_id, report, operation=operation)
        replay = client.xrange(keys.of(task_id).replay)
    assert [decode(Envelope.parse(fields[b"e"]).data).message for _, fields in replay] == list("abcd")


@pytest.mark.parametrize("refusal", [Superseded, Finished])
def test_a_refusal_stops_the_run(run: Run, listener: Listener, refusal: type[Exception]) -> None:
    """The body is to end with it, and nothing more is published."""
    listener.trouble = refusal("no")
    run.root.current = 1
    run.sample(0.0)
    assert isinstance(run.stop, refusal)
    listener.trouble = None
    run.sample(10.0)
    assert listener.reports == []


def test_last_words_are_all_that_is_unsaid(run: Run, listener: Listener) -> None:
    """Lines and amounts, and only once."""
    run.root.current, run.root.total = 3, 4
    run.sample(0.0)
    run.root.current = 4
    run.log("info", "bye")
    words = run.last_words()
    assert [report.type for report, _ in words] == ["log", "progress"]
    assert run.last_words() == []
    amount, percent, message = run.final()
    assert (amount.current, percent, message) == (4, 100, None)


def test_a_silent_run_has_no_last_amount(run: Run) -> None:
    """The store keeps what it has."""
    assert run.last_words() == []
    assert not any(isinstance(value, (int, float, str)) for value in run.final())


def test_one_bad_run_does_not_silence_the_others(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    """A bug in one report is logged; the thread lives."""
    sampler, bad, good = Sampler(), Run(Listener(), "bad", 1, 100), Run(listener, "good", 1, 100)
    bad.root.source = lambda: 1 // 0
    sampler.add(bad)
    sampler.add(good)
    good.root.current = 1
    until(lambda: listener.currents == [1])
    sampler.remove("bad")
    sampler.remove("good")
    assert "progress of task bad cannot be published" in caplog.text


def test_the_sampler_goes_on_after_an_idle_time(listener: Listener) -> None:
    """The thread waits for the next run."""
    sampler = Sampler()
    for number in range(3):
        run = Run(listener, str(number), 1, 100)
        run.root.current = number + 1
        sampler.add(run)
        until(lambda: len(listener.currents) == number + 1)  # noqa: B023  # called at once
        assert sampler.remove(str(number)) is run
        assert sampler.remove(str(number)) is None


@pytest.fixture
def task_id() -> Iterator[str]:
    """An id that no other run of this process has."""
    name = uuid.uuid4().hex
    yield name
    runs.end(name)


def test_outside_a_task_there_is_no_run() -> None:
    """And nothing to report to."""
    assert runs.current() is None


def test_the_body_finds_its_run(listener: Listener, task_id: str) -> None:
    """Until it ends."""
    run = Run(listener, task_id, 1)
    runs.begin(run)
    assert runs.current() is run
    assert runs.end(task_id) is run
    assert runs.current() is None
    assert runs.end(task_id) is None


def test_a_thread_of_the_body_finds_the_run(listener: Listener, task_id: str) -> None:
    """As long as it is the only one of the process."""
    found = []

    def look() -> None:
        found.append(runs.current())

    run = Run(listener, task_id, 1)
    runs.begin(run)
    other = Run(listener, task_id + "2", 1)
    for _ in range(2):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        runs.sampler.add(other)
    runs.sampler.remove(other.task_id)
    assert found == [run, None]


def _child(results: multiprocessing.SimpleQueue[tuple[bool, list[float]]], inherited: int) -> None:
    fresh = id(runs.sampler) != inherited and runs.sampler.only() is None
    listener = Listener()
    run = Run(listener, "child", 1, 100)
    run.root.current = 5
    runs.begin(run)
    until(lambda: listener.currents)
    results.put((fresh, listener.currents))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_has_a_sampler_of_its_own(listener: Listener, task_id: str) -> None:
    """The parent's thread does not exist there, and its runs are not the child's."""
    runs.begin(Run(listener, task_id, 1))
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=_child, args=(results, id(runs.sampler)))
    child.start()
    child.join(10)
    assert child.exitcode == 0
    assert results.get() == (True, [5])
