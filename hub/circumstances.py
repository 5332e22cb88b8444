"""What a room knows of its task besides the events: a record of the store, for as long as nothing in it has changed.

Pure. A change of state makes the record old, and so does a note; progress and log lines leave it as it is. So a poll of
a watched task asks the store once after each change of state, and not for each poll.
"""

from __future__ import annotations

from headway.events import Cursor, Note
from headway.store import Record, Snapshot


class Circumstances:
    """Of one room, which tells it what it hears in the order of the channel."""

    __slots__ = ("_epoch", "_heard", "_record", "_seq", "_since", "rev")

    def __init__(self) -> None:
        self.rev = 0
        """How often the task's details or children have changed without an event."""
        self._epoch = 0
        self._since = 0
        """`seq` of the last change of state: a record from before lacks what it brought."""
        self._heard = Note(0, 0, 0)
        self._record: Record | None = None
        self._seq = 0

    def synced(self, snapshot: Snapshot) -> None:
        """The room goes on from what the store says."""
        self._epoch, self._since, self.rev = snapshot.epoch, snapshot.seq, snapshot.rev
        self._record = None
        self.noted(self._heard)  # it may be newer than the answer, which was on its way

    def noted(self, note: Note) -> None:
        """A note from the channel."""
        self._heard = note
        if note.epoch == self._epoch and note.rev > self.rev:
            self.rev = note.rev
            self._record = None

    def changed(self, seq: int) -> None:
        """A change of state, the event `seq`, from the channel or from what was missed."""
        self._since = max(self._since, seq)
        if seq > self._seq:
            self._record = None

    def keep(self, record: Record) -> None:
        """The store's answer to a poll: kept, unless the room is ahead of it or has yet to hear of a change in it."""
        position, rev = parse(record.tag)
        if position.epoch == self._epoch and position.seq >= self._since and rev == self.rev:
            self._record, self._seq = record, position.seq

    def at(self, cursor: Cursor) -> Record | None:
        """A record that is true where the room stands; None if the store has to be asked."""
        return self._record if cursor.seq >= self._seq else None


def tag(cursor: Cursor, rev: int) -> str:
    """The tag of a task's resource, as `Record` has it."""
    return f"{cursor}.{rev}" if rev else str(cursor)


def parse(text: str) -> tuple[Cursor, int]:
    """Cursor and revision of a tag; `ValueError` if it is none of ours."""
    cursor, _, rev = text.partition(".")
    return Cursor.parse(cursor), int(rev or 0)
