"""A room: one watched task in this process, its newest state, its recent past and its watchers.

Pure: the connection manager does the waiting. A room takes events only as an unbroken chain: `prev` of each names the
last `state` or `log` event before it, so a lost one is noticed at the next, and the manager reads the store again.
What it takes it frames once, and hands the same message to every watcher.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable

from headway.events import NOTE, Cursor, Envelope, Note
from headway.store import Snapshot
from hub.audience import Audience
from hub.backlog import Backlog
from hub.circumstances import Circumstances
from hub.message import Message, frame
from hub.past import Past, missed_by, unbroken

logger = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Events that may arrive while the store is being read; beyond that it is read once more."""


class Verdict(enum.Enum):
    """What became of an event."""

    APPLIED = enum.auto()
    OLD = enum.auto()
    GAP = enum.auto()
    """Something before it is missing: read the store."""


class Room:
    """One watched task, which listens to the task's channel itself.

    `doubtful` is called when the store has to be read; see `Audience` for `soon` and `arrived`.
    """

    __slots__ = (
        "_chain", "_doubtful", "_forgotten", "_latest", "_overrun", "_past", "_rest", "_snapshots", "_waiting",
        "audience", "circumstances", "ended", "epoch", "kept", "seq", "syncing", "task_id",
    )  # fmt: skip

    def __init__(
        self,
        task_id: str,
        doubtful: Callable[[], None] = lambda: None,
        soon: Callable[[Callable[[], None]], object] = lambda call: call(),
        arrived: Callable[[Audience], object] = lambda audience: audience.flush(),
    ) -> None:
        self.task_id = task_id
        self.audience = Audience(lambda: self.snapshot(recovered=False), soon, arrived)
        self.epoch = self.seq = self.kept = 0
        self.ended = False
        self.syncing = True
        """Whether events wait until the store has been read."""
        self.circumstances = Circumstances()
        self._forgotten = False
        self._doubtful = doubtful
        self._chain = b"p"
        """How the routing line of the next progress event begins, unless something is missing before it."""
        self._rest = b""
        self._latest: Message | None = None
        self._snapshots: dict[bool | None, Message] = {}
        self._past = Past()
        self._waiting: list[Envelope] = []
        self._overrun = False

    @property
    def members(self) -> set[Backlog]:
        """Who watches."""
        return self.audience.members

    @property
    def cursor(self) -> Cursor:
        """Where the room stands."""
        return Cursor(self.epoch, self.seq)

    @property
    def loaded(self) -> bool:
        """Whether the task's state is known."""
        return self.epoch > 0

    @property
    def current(self) -> bool:
        """Whether the room can say by itself where the task stands."""
        return self.loaded and not self.syncing and not self._forgotten

    def received(self, payload: bytes) -> None:
        """A message of the channel."""
        try:
            # Nearly all there is, and all that has to be cheap: progress whose chain is unbroken.
            if payload.startswith(self._chain) and not self.syncing:
                start = len(self._chain)
                end = payload.index(b"\n", start)
                seq = int(payload[start:end])
                if seq > self.seq:
                    self.seq = seq
                    self._latest = message = Message(
                        type="progress",
                        frame=frame(payload[end + 1 :]),
                        task_id=self.task_id,
                        epoch=self.epoch,
                        seq=seq,
                        prev=self.kept,
                    )
                    self.audience.bring(message)
            elif payload.startswith(NOTE):
                self.circumstances.noted(Note.parse(payload))
            elif self.feed(Envelope.parse(payload)) is Verdict.GAP:
                self._doubtful()
        except ValueError as error:
            logger.warning("ignored on the channel of task %s: %s", self.task_id, error)

    def restored(self) -> None:
        """The subscription holds again after a break: events may have been lost."""
        self._doubtful()

    def feed(self, envelope: Envelope) -> Verdict:
        """An event from the channel."""
        if self.syncing:
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append(envelope)
            else:
                self._overrun = True
            return Verdict.APPLIED
        if envelope.epoch == self.epoch and envelope.seq <= self.seq:
            return Verdict.OLD
        if envelope.epoch != self.epoch or envelope.prev != self.kept:
            return Verdict.GAP
        self._apply(envelope)
        return Verdict.APPLIED

    def sync(self, snapshot: Snapshot, since: Cursor | None) -> bool:
        """Go on from what the store says; False if events were lost meanwhile and it has to be read once more.

        `since` is the cursor the snapshot was read with. Watchers are sent what they missed; if that cannot be told, a
        snapshot that says so.
        """
        current = snapshot.epoch == self.epoch and snapshot.seq >= self.seq
        if not self.loaded:
            self._adopt(snapshot, since)
        elif current and snapshot.recovered and since == self.cursor:
            for envelope in missed_by(self.task_id, self.seq, snapshot):
                self._apply(envelope)
        else:
            self._adopt(snapshot, None)
            self.audience.restart()
        self.circumstances.synced(snapshot)
        self._forgotten = False
        self.audience.flush()
        self.audience.answered((snapshot.epoch, snapshot.seq))
        return self._catch_up()

    def hold(self) -> None:
        """The store is about to be read: what comes meanwhile waits."""
        self.syncing = True
        self.audience.asked()

    def doubt(self) -> None:
        """The link was broken while the store is being read: the answer may be from before, so it is read once more."""
        self._overrun = True

    def lost(self) -> bool:
        """The store does not know the task any more: stay as it is until somebody speaks of it again."""
        self._forgotten = True
        return self._catch_up()

    def admit(self, member: Backlog, cursor: Cursor | None) -> bool:
        """Let a watcher in with what its cursor has missed; False if that is further back than the room remembers."""
        if cursor is None:
            self.audience.let_in(member, self.snapshot())
        elif cursor.epoch != self.epoch:
            self.audience.let_in(member, self.snapshot(recovered=False))
        elif cursor.seq > self.seq or (missed := self._past.since(cursor.seq)) is None:
            return False
        else:
            self.audience.let_in(member, self.snapshot(recovered=True), missed)
        return True

    def admit_from(self, member: Backlog, cursor: Cursor, snapshot: Snapshot) -> None:
        """Let a watcher in whose cursor the store was asked about: its answer and the room's events, merged by seq."""
        if snapshot.epoch < self.epoch:
            # The store has lost the task's past since it was asked.
            self.audience.let_in(member, self.snapshot(recovered=False))
            return
        missed = [Message.of(self.task_id, envelope) for envelope in snapshot.missed]
        if (snapshot.epoch, snapshot.seq) > (self.epoch, self.seq):
            # The room is behind the store: what it hears next and the watcher has seen by then is passed over.
            position = Cursor(snapshot.epoch, snapshot.seq)
            told = Message.snapshot(
                self.task_id, position, snapshot.kept, snapshot.rest, snapshot.recovered, ended=snapshot.state.terminal
            )
            self.audience.let_in(member, told, missed if snapshot.recovered else (), ahead=True)
            return
        since = self._past.since(snapshot.kept)
        missed += since or ()
        recovered = snapshot.recovered and since is not None and unbroken(missed, cursor)
        self.audience.let_in(member, self.snapshot(recovered=recovered), missed if recovered else ())

    def close(self) -> None:
        """Nobody comes any more. What it remembers goes now, and not at some later garbage collection."""
        self._doubtful = lambda: None
        self.audience.close()

    def snapshot(self, recovered: bool | None = None) -> Message:
        """The task's present as a `snapshot` event: one for all who come before the next event."""
        told = self._snapshots.get(recovered)
        if told is None or (told.epoch, told.seq) != (self.epoch, self.seq):
            if self._latest is not None:
                # An event's members from "attempt" on are its whole state. The key cannot occur earlier: a task id that
                # contains it has its quotes escaped.
                data, self._latest = self._latest.data, None
                self._rest = data[data.index(b'"attempt":') : -1]
            told = Message.snapshot(self.task_id, self.cursor, self.kept, self._rest, recovered, ended=self.ended)
            self._snapshots[recovered] = told
        return told

    def _adopt(self, snapshot: Snapshot, since: Cursor | None) -> None:
        self._moved(snapshot.epoch, snapshot.seq, snapshot.kept)
        self.ended = snapshot.state.terminal
        self._rest, self._latest = snapshot.rest, None
        self._snapshots.clear()
        self._past = Past(snapshot.kept)
        if snapshot.recovered and since is not None:
            self._past = Past(since.seq)
            for envelope in snapshot.missed:
                self._past.add(Message.of(self.task_id, envelope))

    def _moved(self, epoch: int, seq: int, kept: int) -> None:
        self.epoch, self.seq, self.kept = epoch, seq, kept
        self._chain = b"p %d %d " % (epoch, kept)

    def _apply(self, envelope: Envelope) -> None:
        message = Message.of(self.task_id, envelope)
        self._moved(envelope.epoch, envelope.seq, envelope.seq if envelope.kept else self.kept)
        if envelope.kept:
            self._past.add(message)
        if envelope.kind != "l":
            self._latest = message
            self.ended = envelope.terminal
        if message.type == "state":
            self.circumstances.changed(envelope.seq)
        self.audience.bring(message)

    def _catch_up(self) -> bool:
        self.syncing = False
        waiting, self._waiting = self._waiting, []
        complete, self._overrun = not self._overrun, False
        for envelope in waiting:
            if self.feed(envelope) is Verdict.GAP:
                complete = False
        self.audience.flush()
        return complete
