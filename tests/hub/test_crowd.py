"""A crowd: all get everything in order, and nobody else waits for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import pytest

from headway.events import State
from hub.backlog import Backlog
from hub.crowd import MAX_BEHIND, MAX_WAITING, SLICE, Crowd
from hub.mailbox import Mailbox
from hub.message import Message
from hub.rooms import Room
from tests.hub.envelopes import Publisher, Watcher, waiting


class Turns:
    """A loop's call_soon(), taken by hand."""

    def __init__(self) -> None:
        self.calls: deque[Callable[[], None]] = deque()

    def __call__(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def run(self, turns: int | None = None) -> int:
        """Take turns until there are none, or so many; how many that were."""
        taken = 0
        while self.calls and taken != turns:
            self.calls.popleft()()
            taken += 1
        return taken


class Count(Backlog):
    """Counts what it gets."""

    __slots__ = ("got",)

    def __init__(self) -> None:
        super().__init__()
        self.got: list[int] = []

    def push(self, message: Message) -> None:
        self.got.append(message.seq)


def push(message: Message, members: Iterable[Backlog]) -> None:
    """To each of them."""
    for member in members:
        member.push(message)


@pytest.fixture
def task() -> Publisher:
    """A task that has started."""
    task = Publisher()
    task.became(State.STARTED)
    return task


def test_a_slice_a_turn(task: Publisher) -> None:
    """Everybody gets it once; in one turn no more than a slice does."""
    turns = Turns()
    crowd, members = Crowd(push, turns), [Count() for _ in range(SLICE * 3 + 7)]
    assert crowd.deliver(Message.of("t1", task.progress()), members)
    assert sum(bool(member.got) for member in members) == SLICE
    turns.run(1)
    assert sum(bool(member.got) for member in members) == SLICE * 2
    turns.run()
    assert [member.got for member in members] == [[2]] * len(members)
    assert not crowd


def test_events_stay_in_order(task: Publisher) -> None:
    """What comes while another is on its way comes after it, for everybody."""
    turns = Turns()
    crowd, members = Crowd(push, turns), [Count() for _ in range(SLICE * 2)]
    for _ in range(5):
        crowd.deliver(Message.of("t1", task.said()), members)
        turns.run(1)
    turns.run()
    assert [member.got for member in members] == [[2, 3, 4, 5, 6]] * len(members)


def test_too_much_progress_is_conflated(task: Publisher) -> None:
    """More than can be delivered: everybody gets the newest, and memory stays bounded."""
    turns = Turns()
    crowd, members = Crowd(push, turns), [Count() for _ in range(SLICE * 2)]
    for _ in range(1_000):
        assert crowd.deliver(Message.of("t1", task.progress()), members)
    turns.run()
    for member in members:
        assert len(member.got) <= MAX_BEHIND + 1
        assert member.got == sorted(member.got)
        assert member.got[-1] == task.seq


def test_too_much_that_must_arrive_is_refused(task: Publisher) -> None:
    """No state or log event is dropped in silence."""
    crowd, members = Crowd(push, Turns()), [Count() for _ in range(SLICE * 2)]
    for _ in range(MAX_WAITING):
        assert crowd.deliver(Message.of("t1", task.said()), members)
    assert not crowd.deliver(Message.of("t1", task.said()), members)


def crowded(task: Publisher, turns: Turns) -> tuple[Room, list[Watcher]]:
    """A room with more watchers than one turn serves."""
    room = Room(task.task_id, soon=turns)
    room.sync(task.snapshot(), None)
    watchers = [Watcher() for _ in range(SLICE + 50)]
    for watcher in watchers:
        room.admit(watcher.mailbox, None)
        watcher.read(waiting(watcher.mailbox))
    return room, watchers


def test_who_joins_meanwhile_is_not_told_twice(task: Publisher) -> None:
    """Its snapshot has what is still on its way to the others; what comes after, it gets."""
    turns = Turns()
    room, _ = crowded(task, turns)
    room.feed(task.said("a"))
    late = Watcher()
    room.admit(late.mailbox, None)
    room.feed(task.said("b"))
    turns.run()
    late.read(waiting(late.mailbox))
    assert [seq for _, seq in late.seen] == [3]


def test_who_leaves_meanwhile_hears_nothing_more(task: Publisher) -> None:
    """Nor does who has left and joined again get the past after its snapshot."""
    turns = Turns()
    room, watchers = crowded(task, turns)
    room.feed(task.said("a"))
    unserved = [watcher for watcher in watchers if not waiting_for(watcher)]
    gone, back = unserved[:2]
    for watcher in (gone, back):
        room.audience.dismiss(watcher.mailbox)
    room.admit(back.mailbox, None)
    turns.run()
    assert waiting(gone.mailbox) == []
    assert [message.type for message in waiting(back.mailbox)] == ["snapshot"]


def waiting_for(watcher: Watcher) -> bool:
    """Whether something has been put into its mailbox."""
    return watcher.mailbox.urgent


def test_a_flood_is_told_honestly(task: Publisher) -> None:
    """More state and log events than can be delivered: a snapshot that says that something was missed."""
    turns = Turns()
    room, watchers = crowded(task, turns)
    for _ in range(MAX_WAITING + 10):
        room.feed(task.said())
    turns.run()
    room.feed(task.became(State.SUCCESS))
    turns.run()
    for watcher in watchers:
        watcher.read(waiting(watcher.mailbox))
        assert watcher.restarts <= 1
        assert watcher.kept == task.kept
    assert sum(watcher.restarts for watcher in watchers) > 0


def test_a_mailbox_gets_the_end_after_all_else(task: Publisher) -> None:
    """The terminal event waits its turn like any other."""
    turns = Turns()
    room, _ = crowded(task, turns)
    member = Mailbox()
    room.admit(member, None)
    room.feed(task.said())
    room.feed(task.became(State.SUCCESS))
    turns.run()
    assert [message.last for message in waiting(member)] == [False, False, True]
