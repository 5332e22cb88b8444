"""The pure half of the client: nothing lost, nothing twice, and it knows when it is over."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from headway.events import Cursor, State, TaskEvent
from headway.follow import Follower, Verdict

EPOCH = 1763650000000


def event(seq: int, prev: int, *, kind: str = "progress", state: str = "PROGRESS", epoch: int = EPOCH, **more: Any):
    """An event as the hub sends it, boring where the test does not care."""
    return TaskEvent(
        v=1, type=kind, task_id="t", cursor=f"{epoch}-{seq}", seq=seq, prev=prev, attempt=1, state=State(state),
        current=seq, total=None, unit=None, stage=None, percent=None, message=None, rate=None, eta=None,
        stalled=False, ts=0.0, **more,
    )  # fmt: skip


def snapshot(seq: int, prev: int, **more: Any) -> TaskEvent:
    """The first message of a connection."""
    return event(seq, prev, kind="snapshot", **more)


def test_an_event_before_the_snapshot_is_a_gap() -> None:
    """Whoever has no snapshot does not know what came before."""
    assert Follower().feed(event(3, 2)) is Verdict.GAP


def test_events_the_snapshot_covers_are_duplicates() -> None:
    """A live event at or below the snapshot's seq tells nothing new."""
    follower = Follower()
    follower.feed(snapshot(5, 4))
    assert follower.feed(event(5, 4)) is Verdict.DUPLICATE
    assert follower.feed(event(4, 2, kind="log")) is Verdict.DUPLICATE


def test_a_conflated_progress_event_is_no_gap() -> None:
    """Progress may be skipped, each event carries the whole state: seq jumps, prev does not."""
    follower = Follower()
    follower.feed(snapshot(5, 4))
    assert follower.feed(event(9, 4)) is Verdict.DELIVER


def test_a_missing_kept_event_is_a_gap() -> None:
    """prev names a kept event that never came."""
    follower = Follower()
    follower.feed(snapshot(5, 4))
    assert follower.feed(event(9, 7)) is Verdict.GAP
    assert follower.cursor == Cursor(EPOCH, 5)


def test_another_epoch_without_a_snapshot_is_a_gap() -> None:
    """The store lost the past in the middle of a connection."""
    follower = Follower()
    follower.feed(snapshot(5, 4))
    assert follower.feed(event(6, 5, epoch=EPOCH + 1)) is Verdict.GAP


def test_the_cursor_stays_behind_what_is_still_to_come() -> None:
    """A break in the middle of a recovery resumes in the middle, not after it."""
    follower = Follower(Cursor(EPOCH, 5))
    follower.feed(snapshot(12, 9, recovered=True))
    follower.feed(event(7, 4, kind="log"))
    assert follower.cursor == Cursor(EPOCH, 7)
    follower.feed(event(9, 7, kind="log"))
    assert follower.cursor == Cursor(EPOCH, 12)


def test_a_finished_snapshot_waits_for_what_was_missed() -> None:
    """The end is delivered once all before it is."""
    follower = Follower(Cursor(EPOCH, 5))
    follower.feed(snapshot(9, 9, state="SUCCESS", recovered=True))
    assert not follower.finished
    follower.feed(event(9, 5, kind="state", state="SUCCESS"))
    assert follower.finished


def test_a_missed_end_that_was_replayed_is_not_the_end() -> None:
    """A dead letter that was sent again runs: its old FAILURE, arriving late, must not end the watch."""
    follower = Follower(Cursor(EPOCH, 5))
    follower.feed(snapshot(8, 7, state="PROGRESS", recovered=True))
    follower.feed(event(6, 5, kind="state", state="FAILURE"))
    follower.feed(event(7, 6, kind="state", state="PENDING"))
    assert not follower.finished


def test_a_lost_past_starts_anew() -> None:
    """recovered: false says that what was missed is gone; following goes on from the snapshot."""
    follower = Follower(Cursor(EPOCH, 50))
    follower.feed(snapshot(3, 2, epoch=EPOCH + 9, recovered=False))
    assert follower.feed(event(4, 2, epoch=EPOCH + 9)) is Verdict.DELIVER


def test_an_older_snapshot_does_not_turn_the_clock_back() -> None:
    """A snapshot read just before the cursor was written is dropped, and so is what it is followed by."""
    follower = Follower(Cursor(EPOCH, 12))
    assert follower.feed(snapshot(10, 9, recovered=True)) is Verdict.DUPLICATE
    assert follower.feed(event(12, 9, kind="log")) is Verdict.DUPLICATE
    assert follower.feed(event(13, 12)) is Verdict.DELIVER


@st.composite
def lives(draw: st.DrawFn) -> list[TaskEvent]:
    """The whole life of a task, as the store saw it: the first and the last event are kept ones."""
    kinds = ["state", *draw(st.lists(st.sampled_from(["progress", "progress", "log"]), max_size=20)), "state"]
    life, prev = [], 0
    for seq, kind in enumerate(kinds, start=1):
        state = "SUCCESS" if seq == len(kinds) else "PROGRESS"
        life.append(event(seq, prev, kind=kind, state=state))
        prev = seq if kind != "progress" else prev
    return life


def connection(life: list[TaskEvent], at: int, cursor: Cursor | None) -> list[TaskEvent]:
    """What a right hub sends on a connection opened after `at` events: snapshot, missed kept events, live ones."""
    now = life[at - 1]
    prev = now.seq if now.type != "progress" else now.prev
    first = snapshot(now.seq, prev, state=now.state, recovered=cursor is not None)
    missed = [e for e in life[:at] if cursor is not None and e.type != "progress" and e.seq > cursor.seq]
    return [first, *missed, *life[at:]]


@given(lives(), st.data())
def test_every_kept_event_is_delivered_once_and_in_order(life: list[TaskEvent], data: st.DataObject) -> None:
    """Whatever the network drops, doubles or cuts: kept events come once, in order, to the end."""
    follower, delivered, start, at = Follower(), [], None, 1
    for attempt in range(40):
        at = data.draw(st.integers(at, len(life)))
        stream = connection(life, at, follower.cursor)
        flaky = attempt < 20
        length = data.draw(st.integers(0, len(stream))) if flaky else len(stream)
        for item in stream[:length]:
            fate = data.draw(st.sampled_from(["once", "once", "once", "twice", "lost"])) if flaky else "once"
            verdicts = [follower.feed(item) for _ in range({"lost": 0, "once": 1, "twice": 2}[fate])]
            if item.type == "snapshot" and verdicts and start is None:
                start = item.seq
            if Verdict.DELIVER in verdicts and item.type not in ("snapshot", "progress"):
                delivered.append(item.seq)
            if Verdict.GAP in verdicts:
                break
        if follower.finished:
            break
    assert follower.finished
    assert delivered == [e.seq for e in life if e.type != "progress" and start is not None and e.seq > start]
