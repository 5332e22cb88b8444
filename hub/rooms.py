"""A room: one watched task in this process, its newest state, its recent past and its watchers.

Pure: the connection manager does the waiting. A room takes events only as an unbroken chain: `prev` of each names the
last `state` or `log` event before it, so a lost one is noticed at the next, and the manager reads the store again.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable

from headway.events import Cursor, Envelope, encode
from headway.store import Snapshot
from hub.mailbox import Mailbox

RECENT = 256
"""`state` and `log` events a room remembers, for watchers that come back; older ones are read from the store."""
MAX_WAITING = 10_000
"""Events that may arrive while the store is being read; beyond that it is read once more."""


class Verdict(enum.Enum):
    """What became of an event."""

    APPLIED = enum.auto()
    OLD = enum.auto()
    GAP = enum.auto()
    """Something before it is missing: read the store."""


class Room:
    """One watched task."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.members: set[Mailbox] = set()
        self.cursor = Cursor(0, 0)
        self.kept = 0
        self.ended = False
        self.syncing = True
        """Whether events wait until the store has been read."""
        self._rest = b""
        self._latest = b""
        self._recent: deque[Envelope] = deque()
        self._floor = 0
        self._waiting: list[Envelope] = []
        self._overrun = False

    @property
    def loaded(self) -> bool:
        """Whether the task's state is known."""
        return self.cursor.epoch > 0

    def feed(self, envelope: Envelope) -> Verdict:
        """An event from the channel."""
        if self.syncing:
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append(envelope)
            else:
                self._overrun = True
            return Verdict.APPLIED
        if envelope.epoch == self.cursor.epoch and envelope.seq <= self.cursor.seq:
            return Verdict.OLD
        if envelope.epoch != self.cursor.epoch or envelope.prev != self.kept:
            return Verdict.GAP
        self._apply(envelope)
        return Verdict.APPLIED

    def sync(self, snapshot: Snapshot, since: Cursor | None) -> bool:
        """Go on from what the store says; False if events were lost meanwhile and it has to be read once more.

        `since` is the cursor the snapshot was read with. Watchers are sent what they missed; if that cannot be told, a
        snapshot that says so.
        """
        current = snapshot.epoch == self.cursor.epoch and snapshot.seq >= self.cursor.seq
        if not self.loaded:
            self._adopt(snapshot, since)
        elif current and snapshot.recovered and since == self.cursor:
            for envelope in self._missed(snapshot):
                self._apply(envelope)
        else:
            self._adopt(snapshot, None)
            for member in self.members:
                member.open(self.task_id, self.cursor, self.snapshot(recovered=False), (), ended=self.ended)
        return self._catch_up()

    def doubt(self) -> None:
        """The link was broken while the store is being read: the answer may be from before, so it is read once more."""
        self._overrun = True

    def lost(self) -> bool:
        """The store does not know the task any more: stay as it is until somebody speaks of it again."""
        return self._catch_up()

    def admit(self, mailbox: Mailbox, cursor: Cursor | None) -> bool:
        """Let a watcher in with what its cursor has missed; False if that is further back than the room remembers."""
        if cursor is None:
            self._enter(mailbox, self.snapshot(), ())
        elif cursor.epoch != self.cursor.epoch:
            self._enter(mailbox, self.snapshot(recovered=False), ())
        elif self._floor <= cursor.seq <= self.cursor.seq:
            missed = [envelope for envelope in self._recent if envelope.seq > cursor.seq]
            self._enter(mailbox, self.snapshot(recovered=True), missed)
        else:
            return False
        return True

    def admit_from(self, mailbox: Mailbox, cursor: Cursor, snapshot: Snapshot) -> None:
        """Let a watcher in whose cursor the store was asked about: its answer and the room's events, merged by seq."""
        if snapshot.epoch < self.cursor.epoch:
            # The store has lost the task's past since it was asked.
            self._enter(mailbox, self.snapshot(recovered=False), ())
            return
        if snapshot.epoch > self.cursor.epoch or snapshot.seq > self.cursor.seq:
            # The room is behind the store: what it hears next and the watcher has seen by then is passed over.
            position = Cursor(snapshot.epoch, snapshot.seq)
            data = _event("snapshot", self.task_id, position, snapshot.kept, snapshot.rest, snapshot.recovered)
            missed = snapshot.missed if snapshot.recovered else []
            self.members.add(mailbox)
            mailbox.open(self.task_id, position, data, missed, ended=snapshot.state.terminal)
            return
        missed = [*snapshot.missed, *(envelope for envelope in self._recent if envelope.seq > snapshot.kept)]
        recovered = snapshot.recovered and self._floor <= snapshot.kept and _unbroken(missed, cursor)
        self._enter(mailbox, self.snapshot(recovered=recovered), missed if recovered else ())

    def snapshot(self, *, recovered: bool | None = None) -> bytes:
        """The task's present as a `snapshot` event."""
        if self._latest:
            # An event's members from "attempt" on are its whole state. The key cannot occur earlier: a task id that
            # contains it has its quotes escaped.
            self._rest, self._latest = self._latest[self._latest.index(b'"attempt":') : -1], b""
        return _event("snapshot", self.task_id, self.cursor, self.kept, self._rest, recovered)

    def _enter(self, mailbox: Mailbox, snapshot: bytes, missed: Iterable[Envelope]) -> None:
        self.members.add(mailbox)
        mailbox.open(self.task_id, self.cursor, snapshot, tuple(missed), ended=self.ended)

    def _adopt(self, snapshot: Snapshot, since: Cursor | None) -> None:
        self.cursor = Cursor(snapshot.epoch, snapshot.seq)
        self.kept = snapshot.kept
        self.ended = snapshot.state.terminal
        self._rest, self._latest = snapshot.rest, b""
        self._recent.clear()
        self._floor = snapshot.kept
        if snapshot.recovered and since is not None:
            self._recent.extend(snapshot.missed[-RECENT:])
            self._floor = since.seq if len(snapshot.missed) <= RECENT else snapshot.missed[-RECENT - 1].seq

    def _apply(self, envelope: Envelope) -> None:
        self.cursor = envelope.cursor
        if envelope.kept:
            self.kept = envelope.seq
            self._recent.append(envelope)
            if len(self._recent) > RECENT:
                self._floor = self._recent.popleft().seq
        if envelope.kind != "l":
            self._latest = envelope.data
            self.ended = envelope.terminal
        for member in self.members:
            member.push(self.task_id, envelope)

    def _missed(self, snapshot: Snapshot) -> list[Envelope]:
        """What was missed, and at its place the last progress: nobody kept it, but the snapshot is what it left."""
        missed = list(snapshot.missed)
        if snapshot.seq > max(snapshot.kept, self.cursor.seq):
            return [*missed, _progress(self.task_id, snapshot, snapshot.seq, snapshot.kept)]
        for index in reversed(range(len(missed))):
            line = missed[index]
            if line.kind != "l":
                break  # a state says it all
            if line.seq - 1 > max(line.prev, self.cursor.seq):
                missed.insert(index, _progress(self.task_id, snapshot, line.seq - 1, line.prev))
                break
        return missed

    def _catch_up(self) -> bool:
        self.syncing = False
        waiting, self._waiting = self._waiting, []
        complete, self._overrun = not self._overrun, False
        for envelope in waiting:
            if self.feed(envelope) is Verdict.GAP:
                complete = False
        return complete


def _unbroken(missed: list[Envelope], cursor: Cursor) -> bool:
    """Whether these events are all that follow a cursor."""
    last = cursor.seq
    for index, envelope in enumerate(missed):
        if envelope.prev > last or (index and envelope.prev != last):
            return False
        last = envelope.seq
    return True


def _progress(task_id: str, snapshot: Snapshot, seq: int, prev: int) -> Envelope:
    """The newest progress, which nobody kept, from the state that it left."""
    data = _event("progress", task_id, Cursor(snapshot.epoch, seq), prev, snapshot.rest)
    return Envelope("p", snapshot.epoch, seq, prev, data)


def _event(type: str, task_id: str, cursor: Cursor, prev: int, rest: bytes, recovered: bool | None = None) -> bytes:  # noqa: A002
    tail = b"" if recovered is None else b',"recovered":true' if recovered else b',"recovered":false'
    return b'{"v":1,"type":"%b","task_id":%b,"cursor":"%d-%d","seq":%d,"prev":%d,%b%b}' % (
        type.encode(), encode(task_id), cursor.epoch, cursor.seq, cursor.seq, prev, rest, tail,
    )  # fmt: skip
