"""The mailbox: what must arrive arrives in order, of the rest the newest, and never without bound."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.events import Cursor, State
from hub.backlog import MAX_PENDING, Closed
from hub.mailbox import Mailbox
from hub.message import Message
from tests.hub.envelopes import Clock, Publisher, waiting


def opened(*publishers: Publisher, hz: float | None = None) -> Mailbox:
    """A mailbox that watches these tasks and has been given their snapshots."""
    mailbox = Mailbox(hz)
    for publisher in publishers:
        mailbox.open(snapshot(publisher))
    if publishers:
        waiting(mailbox)
    return mailbox


def snapshot(publisher: Publisher) -> Message:
    """As a room tells it."""
    state = publisher.snapshot()
    return Message.snapshot(publisher.task_id, publisher.cursor, state.kept, state.rest, None, ended=False)


def seqs(messages: list[Message]) -> list[int | None]:
    """Where the messages stand."""
    return [message.cursor.seq if message.cursor else None for message in messages]


def test_progress_is_conflated_latest_wins() -> None:
    """Of progress that waits only the newest is sent."""
    task = Publisher()
    mailbox = opened(task)
    for percent in range(50):
        mailbox.push(Message.of("t1", task.progress(percent)))
    (message,) = waiting(mailbox)
    assert message.type == "progress"
    assert b'"percent":49' in message.data


def test_kept_events_stay_in_order() -> None:
    """Every state and log event arrives, in order."""
    task = Publisher()
    mailbox = opened(task)
    for envelope in (task.became(State.STARTED), task.said("a"), task.said("b"), task.became(State.SUCCESS)):
        mailbox.push(Message.of("t1", envelope))
    assert [message.type for message in waiting(mailbox)] == ["state", "log", "log", "state"]


def test_progress_keeps_its_place_among_kept_events() -> None:
    """It neither overtakes a kept event of its task nor is overtaken by one."""
    task = Publisher()
    mailbox = opened(task)
    for envelope in (task.progress(1), task.progress(2), task.said(), task.progress(3), task.progress(4), task.said()):
        mailbox.push(Message.of("t1", envelope))
    assert seqs(waiting(mailbox)) == [2, 3, 5, 6]


def test_tasks_are_conflated_each_for_itself() -> None:
    """One task's burst displaces nothing of another task."""
    tasks = [Publisher(f"t{number}") for number in range(100)]
    mailbox = opened(*tasks)
    for percent in range(10):
        for task in tasks:
            mailbox.push(Message.of(task.task_id, task.progress(percent)))
    assert seqs(waiting(mailbox)) == [10] * 100


def test_who_falls_too_far_behind_is_told_to_come_back() -> None:
    """One event too many: 4408, at once, and nothing is kept in memory for that watcher."""
    task = Publisher()
    mailbox = opened(task)
    overflows: list[bool] = []
    mailbox.on_overflow = lambda: overflows.append(True)
    for _ in range(MAX_PENDING):
        mailbox.push(Message.of("t1", task.said()))
    assert mailbox.closed is None
    mailbox.push(Message.of("t1", task.said()))
    for _ in range(10):
        mailbox.push(Message.of("t1", task.said()))
        mailbox.push(Message.of("t1", task.progress()))
    assert overflows == [True]
    with pytest.raises(Closed) as closed:
        waiting(mailbox)
    assert closed.value.code == 4408


def test_too_many_bytes_are_too_much_behind() -> None:
    """Few messages can be large: progress of many tasks counts as well, once each."""
    tasks = [Publisher(f"t{number}") for number in range(300)]
    mailbox = opened()
    for round_ in range(3):
        for task in tasks:
            envelope = task.progress()._replace(data=b"x" * (20_000 + round_))
            mailbox.push(Message.of(task.task_id, envelope))
    assert mailbox.closed is None
    for task in tasks:
        mailbox.push(Message.of(task.task_id, task.said("x" * 20_000)))
    assert mailbox.closed is not None
    assert mailbox.closed.code == 4408


def test_progress_alone_never_closes() -> None:
    """However much there is, the newest of each task is all that waits."""
    task = Publisher()
    mailbox = opened(task)
    for percent in range(MAX_PENDING * 3):
        mailbox.push(Message.of("t1", task.progress(percent)))
    assert len(waiting(mailbox)) == 1


def test_what_was_missed_does_not_count_against_the_bound() -> None:
    """Who comes back after a long time gets all of it, and live events after it; else it would come back for ever."""
    task = Publisher()
    missed = [task.said() for _ in range(MAX_PENDING + 500)]
    mailbox = Mailbox()
    mailbox.open(snapshot(task), [Message.of("t1", envelope) for envelope in missed])
    mailbox.push(Message.of("t1", task.said()))
    assert len(waiting(mailbox)) == 1 + len(missed) + 1


def test_a_close_comes_after_what_is_waiting() -> None:
    """The last events are sent, then the end, again and again if asked."""
    mailbox = opened(task := Publisher())
    mailbox.push(Message.of("t1", task.said()))
    mailbox.close(1001, "going away")
    mailbox.close(1000, "the first reason stays")
    mailbox.push(Message.of("t1", task.said()))
    assert seqs(waiting(mailbox)) == [1]
    for _ in range(2):
        with pytest.raises(Closed, match="1001 going away"):
            waiting(mailbox)


def test_the_rate_bounds_progress() -> None:
    """At 2 Hz ten seconds of progress are some twenty messages, and each is the newest."""
    task = Publisher()

    async def watch() -> list[int]:
        mailbox = Mailbox(2)
        mailbox.open(snapshot(task))
        await mailbox.take()
        got: list[int] = []

        async def publish() -> None:
            for _ in range(1_000):
                mailbox.push(Message.of("t1", task.progress()))
                await asyncio.sleep(0.01)
            mailbox.close(1000, "done")

        publishing = asyncio.ensure_future(publish())
        try:
            while True:
                for message in await mailbox.take():
                    assert message.cursor is not None
                    assert message.cursor.seq == task.seq
                    got.append(task.seq)
        except Closed:
            await publishing
        return got

    assert 20 <= len(Clock.run(watch)) <= 22


def test_the_rate_delays_no_state() -> None:
    """A state or log event is sent at once, with the progress before it."""
    task = Publisher()

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        mailbox = Mailbox(0.1)
        mailbox.open(snapshot(task))
        mailbox.push(Message.of("t1", task.progress()))
        await mailbox.take()
        began = loop.time()
        mailbox.push(Message.of("t1", task.progress()))
        mailbox.push(Message.of("t1", task.said()))
        assert seqs(await mailbox.take()) == [2, 3]
        assert loop.time() - began < 0.01

    Clock.run(watch)


def test_a_new_rate_counts_at_once() -> None:
    """Who has asked for one message in 1,000 s and then for 10 a second does not wait for the 1,000 s."""
    task = Publisher()

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        mailbox = Mailbox(0.001)
        mailbox.open(snapshot(task))
        mailbox.push(Message.of("t1", task.progress()))
        await mailbox.take()
        mailbox.push(Message.of("t1", task.progress()))
        taking = asyncio.ensure_future(mailbox.take())
        await asyncio.sleep(0.5)
        assert not taking.done()
        began = loop.time()
        mailbox.hz = 10
        assert seqs(await taking) == [2]
        assert loop.time() - began < 0.2

    Clock.run(watch)


def test_emptied_waits_for_what_must_arrive_and_not_for_progress() -> None:
    """Who asks for more waits until the last answer has been taken; progress held back by a rate is no reason."""
    task = Publisher()

    async def watch() -> None:
        mailbox = Mailbox(0.001)
        mailbox.open(snapshot(task), [Message.of("t1", task.said())])
        pacing = asyncio.ensure_future(mailbox.emptied())
        await asyncio.sleep(1)
        assert not pacing.done()
        mailbox.push(Message.of("t1", task.progress()))
        await mailbox.take()
        await pacing
        mailbox.push(Message.of("t1", task.progress()))
        await mailbox.emptied()
        mailbox.push(Message.of("t1", task.said()))
        pacing = asyncio.ensure_future(mailbox.emptied())
        for _ in range(MAX_PENDING):
            mailbox.push(Message.of("t1", task.said()))
        await pacing

    Clock.run(watch)


def test_cancelling_take_loses_nothing() -> None:
    """`Prefer: wait` and disconnects cancel it at any moment."""
    task = Publisher()

    async def watch() -> None:
        mailbox = Mailbox()
        mailbox.open(snapshot(task))
        await mailbox.take()
        taking = asyncio.ensure_future(mailbox.take())
        await asyncio.sleep(0)
        mailbox.push(Message.of("t1", task.said()))
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        assert seqs(await mailbox.take()) == [1]

    Clock.run(watch)


steps = st.lists(st.one_of(st.just("take"), st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from("pls"))))


@given(steps)
def test_whatever_the_interleaving(moves: list[str | tuple[str, str]]) -> None:
    """Kept events arrive complete and in order; the last thing known of each task is its newest event."""
    tasks = {name: Publisher(name) for name in "abc"}
    mailbox = opened(*tasks.values())
    got: dict[str, list[int]] = defaultdict(list)
    last: dict[str, Cursor] = {}

    def take() -> None:
        for message in waiting(mailbox):
            name = message.data.partition(b'"task_id":"')[2][:1].decode()
            assert message.cursor is not None
            assert name not in last or message.cursor > last[name]
            last[name] = message.cursor
            if message.type != "progress":
                got[name].append(message.cursor.seq)

    for move in moves:
        if isinstance(move, str):
            take()
            continue
        name, kind = move
        task = tasks[name]
        envelope = {"p": task.progress, "l": task.said, "s": lambda task=task: task.became(State.RETRY)}[kind]()
        mailbox.push(Message.of(name, envelope))
    take()
    for name, task in tasks.items():
        assert got[name] == [envelope.seq for envelope in task.log]
        assert task.seq == 0 or last[name] == task.cursor
