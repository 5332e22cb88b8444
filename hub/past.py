"""The past of a task: what a room remembers of it, and what of it somebody has missed. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from headway.events import Cursor, Envelope
from headway.store import Snapshot
from hub.message import Message, event

RECENT = 256
"""`state` and `log` events a room remembers, for watchers that come back; older ones are read from the store."""


class Past:
    """The most recent `state` and `log` events: everything after `floor`, and nothing that came before it."""

    __slots__ = ("_floor", "_recent")

    def __init__(self, floor: int = 0) -> None:
        self._floor = floor
        self._recent: deque[Message] = deque()

    def add(self, message: Message) -> None:
        """The next one."""
        self._recent.append(message)
        if len(self._recent) > RECENT:
            self._floor = self._recent.popleft().seq

    def since(self, seq: int) -> list[Message] | None:
        """What came after an event; None if that is further back than what is remembered."""
        return [message for message in self._recent if message.seq > seq] if seq >= self._floor else None


def unbroken(missed: Sequence[Message], cursor: Cursor) -> bool:
    """Whether these events are all that follow a cursor."""
    last = cursor.seq
    for index, message in enumerate(missed):
        if message.prev > last or (index and message.prev != last):
            return False
        last = message.seq
    return True


def missed_by(task_id: str, seq: int, snapshot: Snapshot) -> list[Envelope]:
    """What came after `seq`, and at its place the last progress: nobody kept it, but the snapshot is what it left."""
    missed = list(snapshot.missed)
    if snapshot.seq > max(snapshot.kept, seq):
        return [*missed, _progress(task_id, snapshot, snapshot.seq, snapshot.kept)]
    for index in reversed(range(len(missed))):
        line = missed[index]
        if line.kind != "l":
            break  # a state says it all
        if line.seq - 1 > max(line.prev, seq):
            missed.insert(index, _progress(task_id, snapshot, line.seq - 1, line.prev))
            break
    return missed


def _progress(task_id: str, snapshot: Snapshot, seq: int, prev: int) -> Envelope:
    """The newest progress, from the state that it left."""
    data = event("progress", task_id, Cursor(snapshot.epoch, seq), prev, snapshot.rest)
    return Envelope("p", snapshot.epoch, seq, prev, data)
