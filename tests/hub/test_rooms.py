"""A room: it takes only an unbroken chain, and lets watchers in where they stand."""

from __future__ import annotations

import pytest

from headway.events import Cursor, State, decode
from hub.mailbox import Mailbox
from hub.past import RECENT
from hub.rooms import MAX_WAITING, Room, Verdict
from tests.hub.envelopes import Publisher, Watcher, payload_of, waiting


def loaded(task: Publisher, since: Cursor | None = None) -> Room:
    """A room that has read the store."""
    room = Room(task.task_id)
    assert room.sync(task.snapshot(since), since)
    return room


def joined(room: Room, cursor: Cursor | None = None) -> Watcher:
    """A watcher let in."""
    watcher = Watcher()
    assert room.admit(watcher.mailbox, cursor)
    watcher.read(waiting(watcher.mailbox))
    return watcher


@pytest.fixture
def task() -> Publisher:
    """A task that has started and said something."""
    task = Publisher()
    task.became(State.STARTED)
    task.said()
    return task


def test_a_chain_is_taken(task: Publisher) -> None:
    """Each event whose prev is the last kept one, also over skipped progress."""
    room = loaded(task)
    assert room.feed(task.progress()) is Verdict.APPLIED
    task.progress()  # lost, and no harm: the next one carries the whole state
    assert room.feed(task.progress()) is Verdict.APPLIED
    assert room.feed(task.said()) is Verdict.APPLIED


def test_a_gap_is_noticed_at_the_next_event(task: Publisher) -> None:
    """Of a kept event that is lost, whatever comes next tells, progress included."""
    room = loaded(task)
    task.said()
    assert room.feed(task.progress()) is Verdict.GAP
    assert room.cursor.seq == 2


def test_old_and_doubled_events_are_passed_over(task: Publisher) -> None:
    """They are neither news nor a gap."""
    room = loaded(task)
    envelope = task.said()
    assert room.feed(envelope) is Verdict.APPLIED
    assert room.feed(envelope) is Verdict.OLD
    assert room.feed(task.log[0]) is Verdict.OLD


def test_another_epoch_is_a_gap(task: Publisher) -> None:
    """The store has lost the past: it has to be read."""
    assert loaded(task).feed(Publisher(epoch=task.epoch + 1).said()) is Verdict.GAP


def test_what_was_lost_is_told_after_a_sync(task: Publisher) -> None:
    """Missed kept events in order, then the newest progress, each once."""
    room = loaded(task)
    watcher = joined(room)
    missed = [task.said("a"), task.became(State.RETRY)]
    task.progress(33)
    room.syncing = True
    assert room.sync(task.snapshot(room.cursor), room.cursor)
    watcher.read(waiting(watcher.mailbox))
    assert [seq for _, seq in watcher.seen] == [missed[0].seq, missed[1].seq, task.seq]
    assert watcher.state["percent"] == 33
    assert watcher.restarts == 0


def test_progress_lost_before_a_log_line_is_told(task: Publisher) -> None:
    """The line carries no state of the task: the progress that nobody kept comes before it, and in later snapshots."""
    room = loaded(task)
    watcher = joined(room)
    task.progress(66)
    for text in ("a", "b"):
        task.said(text)
    assert room.sync(task.snapshot(room.cursor), room.cursor)
    watcher.read(waiting(watcher.mailbox))
    assert [seq for _, seq in watcher.seen] == [3, 4, 5]
    assert watcher.state["percent"] == decode(room.snapshot().data).percent == 66


def test_what_cannot_be_told_is_said(task: Publisher) -> None:
    """More was lost than the store replays: a snapshot with recovered false, in the same stream."""
    task.replay = 3
    room = loaded(task)
    watcher = joined(room)
    for _ in range(10):
        task.said()
    assert room.sync(task.snapshot(room.cursor), room.cursor)
    watcher.read(waiting(watcher.mailbox))
    assert watcher.restarts == 1
    assert watcher.kept == task.kept


def test_a_store_that_stepped_back_is_told(task: Publisher) -> None:
    """The same epoch with a smaller seq: the last second was lost in a crash."""
    room = loaded(task)
    watcher = joined(room)
    again = Publisher(epoch=task.epoch)
    again.became(State.STARTED)
    assert room.sync(again.snapshot(room.cursor), room.cursor)
    watcher.read(waiting(watcher.mailbox))
    assert (watcher.restarts, watcher.kept, room.cursor.seq) == (1, 1, 1)


def test_a_doubted_answer_is_asked_for_again(task: Publisher) -> None:
    """The link broke while the store was read: sync() says that once is not enough."""
    room = Room("t1")
    snapshot = task.snapshot()
    room.doubt()
    assert not room.sync(snapshot, None)
    room.syncing = True
    assert room.sync(snapshot, None)


def test_too_many_events_during_a_read_are_asked_for(task: Publisher) -> None:
    """What waits has a bound; beyond it the store is read once more."""
    room = Room("t1")
    for _ in range(MAX_WAITING + 1):
        room.feed(task.progress())
    snapshot = task.snapshot()
    task.said()
    assert not room.sync(snapshot, None)


@pytest.mark.parametrize("back", [0, 1, RECENT])
def test_who_comes_back_gets_what_it_missed(task: Publisher, back: int) -> None:
    """From the room's own memory, as far as that reaches."""
    room = loaded(task)
    for _ in range(RECENT + 50):
        room.feed(task.said())
    watcher = Watcher()
    watcher.cursor = Cursor(task.epoch, task.seq - back)
    watcher.kept = task.seq - back
    assert room.admit(watcher.mailbox, watcher.cursor)
    watcher.read(waiting(watcher.mailbox))
    assert len(watcher.seen) == back
    assert (watcher.restarts, watcher.kept) == (0, task.kept)


def test_further_back_the_store_is_asked(task: Publisher) -> None:
    """Its answer and what the room has heard since are one chain."""
    room = loaded(task)
    for _ in range(RECENT + 50):
        room.feed(task.said())
    watcher = Watcher()
    watcher.cursor = Cursor(task.epoch, 1)
    watcher.kept = 1
    assert not room.admit(watcher.mailbox, watcher.cursor)
    answer = task.snapshot(watcher.cursor)
    room.feed(task.said("while it was on its way"))
    room.admit_from(watcher.mailbox, watcher.cursor, answer)
    watcher.read(waiting(watcher.mailbox))
    assert (watcher.restarts, watcher.kept) == (0, task.kept)
    assert len(watcher.seen) == task.seq - 1


def test_a_watcher_may_be_ahead_of_its_room(task: Publisher) -> None:
    """The store knew more than the channel had brought: what comes late is passed over for that watcher."""
    room = loaded(task)
    late = [task.said(), task.said()]
    watcher = Watcher()
    watcher.kept = 1
    watcher.cursor = Cursor(task.epoch, 1)
    room.admit_from(watcher.mailbox, watcher.cursor, task.snapshot(watcher.cursor))
    for envelope in late:
        room.feed(envelope)
    room.feed(task.became(State.SUCCESS))
    watcher.read(waiting(watcher.mailbox))
    assert [seq for _, seq in watcher.seen] == [2, 3, 4, 5]


def test_an_answer_from_a_lost_life_is_not_believed(task: Publisher) -> None:
    """The room has gone over to a new epoch while the old one's answer was on its way."""
    watcher = Watcher()
    watcher.cursor = Cursor(task.epoch, 1)
    answer = task.snapshot(watcher.cursor)
    new = Publisher(epoch=task.epoch + 1)
    new.became(State.STARTED)
    room = loaded(new)
    room.admit_from(watcher.mailbox, watcher.cursor, answer)
    room.feed(new.said())
    watcher.read(waiting(watcher.mailbox))
    assert (watcher.restarts, watcher.kept) == (1, 2)


def test_the_snapshot_is_the_newest_state(task: Publisher) -> None:
    """After progress it is that progress; a log line changes where it stands, not what it says."""
    room = loaded(task)
    room.feed(task.progress(42))
    room.feed(task.said("chatter"))
    event = decode(room.snapshot(recovered=True).data)
    assert (event.type, event.state, event.percent, event.seq, event.prev) == ("snapshot", "PROGRESS", 42, 4, 4)
    assert event.message is None
    assert event.recovered is True


def test_a_task_id_cannot_confuse_the_snapshot() -> None:
    """Whatever stands in the id, members of the event are taken from the event."""
    task = Publisher('x"attempt":9,"state":"SUCCESS')
    task.became(State.STARTED)
    room = loaded(task)
    room.feed(task.progress(7))
    event = decode(room.snapshot().data)
    assert (event.task_id, event.attempt, event.state, event.percent) == (task.task_id, 1, "PROGRESS", 7)


def test_after_the_end_a_snapshot_is_all() -> None:
    """Who joins a task that has ended is told so with its first message, and that it is the last."""
    task = Publisher()
    task.became(State.STARTED)
    room = loaded(task)
    room.feed(task.became(State.SUCCESS))
    mailbox = Mailbox()
    room.admit(mailbox, None)
    (message,) = waiting(mailbox)
    assert message.last
    assert decode(message.data).result == {"rows": 3}


def test_a_snapshot_before_missed_events_is_no_place_to_resume(task: Publisher) -> None:
    """Resuming from it would pass over what follows it; the end is with the last missed event."""
    room = loaded(task)
    mailbox = Mailbox()
    room.feed(task.said())
    room.feed(task.became(State.SUCCESS))
    assert room.admit(mailbox, Cursor(task.epoch, 2))
    messages = waiting(mailbox)
    assert [message.cursor and message.cursor.seq for message in messages] == [None, 3, 4]
    assert [message.last for message in messages] == [False, False, True]


def test_many_who_join_share_one_snapshot(task: Publisher) -> None:
    """It is made once, and made anew when something has happened."""
    room = loaded(task)
    first, second, third = Mailbox(), Mailbox(), Mailbox()
    room.admit(first, None)
    room.admit(second, None)
    room.feed(task.progress(7))
    room.admit(third, None)
    (one, _), (two, _), (three,) = waiting(first), waiting(second), waiting(third)
    assert one is two
    assert three.seq == 3


def test_who_is_ahead_passes_over_a_lost_life(task: Publisher) -> None:
    """A watcher that the store has told of a new epoch hears nothing of the old one, which the room is still in."""
    room = loaded(task)
    new = Publisher(epoch=task.epoch + 1)
    new.became(State.STARTED)
    watcher = Watcher()
    watcher.cursor = Cursor(task.epoch, 1)
    room.admit_from(watcher.mailbox, watcher.cursor, new.snapshot(watcher.cursor))
    room.feed(task.said("too late"))
    assert [message.type for message in waiting(watcher.mailbox)] == ["snapshot"]
    assert room.sync(new.snapshot(room.cursor), room.cursor)
    room.feed(new.said("news"))
    assert [message.type for message in waiting(watcher.mailbox)] == ["snapshot", "log"]


def test_who_was_dismissed_hears_nothing(task: Publisher) -> None:
    """Also one that was ahead; twice is harmless."""
    room = loaded(task)
    watcher = joined(room)
    for _ in range(2):
        room.audience.dismiss(watcher.mailbox)
    room.feed(task.said())
    assert waiting(watcher.mailbox) == []


@pytest.mark.parametrize(
    "payload",
    [b"", b"\n", b"p", b"hello", b"p 1 2\n{}", b"p 1763650000000 x 2\n{}", b"q 1 2 3\n{}", b"n 1 2\n", b"n a b c\n"],
)
def test_what_is_no_event_is_ignored(task: Publisher, payload: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever somebody publishes on the channel: a line in the log, and the watch goes on."""
    room = loaded(task)
    watcher = joined(room)
    room.received(payload)
    assert waiting(watcher.mailbox) == []
    assert "ignored on the channel of task t1" in caplog.text
    room.received(payload_of(task.progress()))
    assert [message.type for message in waiting(watcher.mailbox)] == ["progress"]
