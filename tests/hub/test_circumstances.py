"""What a room keeps of the store's answers, and when it lets go of it."""

from __future__ import annotations

import pytest

from headway.events import Cursor, Note, State
from headway.store import Record, Snapshot
from hub.circumstances import Circumstances, parse, tag

EPOCH = 1763650000000


def record(seq: int, rev: int = 0, epoch: int = EPOCH) -> Record:
    """What the store said at a moment."""
    return Record(tag(Cursor(epoch, seq), rev), {"seq": b"%d" % seq}, [])


def snapshot(seq: int, rev: int = 0, epoch: int = EPOCH) -> Snapshot:
    """What the room went on from."""
    return Snapshot(epoch, seq, seq, State.PROGRESS, b"", [], False, rev)


@pytest.fixture
def room() -> Circumstances:
    """Of a room at 7, revision 1, that keeps a record from there."""
    room = Circumstances()
    room.synced(snapshot(7, 1))
    room.keep(record(7, 1))
    return room


@pytest.mark.parametrize(("rev", "text"), [(0, f"{EPOCH}-7"), (3, f"{EPOCH}-7.3")])
def test_a_tag_is_cursor_and_revision(rev: int, text: str) -> None:
    """And is read again."""
    assert tag(Cursor(EPOCH, 7), rev) == text
    assert parse(text) == (Cursor(EPOCH, 7), rev)


@pytest.mark.parametrize("text", ["", "x", "*", "7", f"{EPOCH}-7.x"])
def test_what_is_no_tag_is_a_value_error(text: str) -> None:
    """Clients send what they like."""
    with pytest.raises(ValueError, match=r"malformed cursor|invalid literal"):
        parse(text)


def test_a_record_lasts_while_nothing_but_progress_happens(room: Circumstances) -> None:
    """Progress and log lines are not even told."""
    for seq in (7, 8, 99):
        assert room.at(Cursor(EPOCH, seq)) == record(7, 1)


def test_a_change_of_state_makes_a_record_old(room: Circumstances) -> None:
    """It brings times, or a worker."""
    room.changed(8)
    assert room.at(Cursor(EPOCH, 8)) is None


def test_a_note_makes_a_record_old(room: Circumstances) -> None:
    """It is the next revision; one that the record has already is no news, nor is one of another life of the task."""
    for old in (Note(EPOCH, 7, 1), Note(EPOCH, 7, 0), Note(EPOCH + 1, 7, 2)):
        room.noted(old)
        assert room.rev == 1
        assert room.at(Cursor(EPOCH, 7))
    room.noted(Note(EPOCH, 7, 2))
    assert room.rev == 2
    assert room.at(Cursor(EPOCH, 7)) is None


def test_a_resync_makes_a_record_old(room: Circumstances) -> None:
    """What the room did not hear may have changed it."""
    room.synced(snapshot(9, 1))
    assert room.at(Cursor(EPOCH, 9)) is None


@pytest.mark.parametrize("late", [record(7, 1), record(8, 0), record(8, 2), record(8, 1, EPOCH + 1)])
def test_a_record_that_does_not_fit_is_not_kept(room: Circumstances, late: Record) -> None:
    """From before the last change of state, of another revision, or of another life of the task."""
    room.changed(8)
    room.keep(late)
    assert room.at(Cursor(EPOCH, 8)) is None


def test_a_record_from_ahead_waits_for_the_room(room: Circumstances) -> None:
    """The store's answer overtook the events before it: what they change is in it already."""
    room.changed(8)
    room.keep(record(10, 1))
    assert room.at(Cursor(EPOCH, 8)) is None
    room.changed(9)
    assert room.at(Cursor(EPOCH, 9)) is None
    assert room.at(Cursor(EPOCH, 10)) == record(10, 1)


def test_a_note_outlives_an_answer_that_was_on_its_way() -> None:
    """It came while the store was read, of the same life of the task."""
    room = Circumstances()
    room.noted(Note(EPOCH, 7, 4))
    room.synced(snapshot(7, 3))
    assert room.rev == 4
    room.synced(snapshot(1, 0, EPOCH + 1))
    assert room.rev == 0
