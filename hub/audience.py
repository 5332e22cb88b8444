"""The watchers of a room, and what is on its way to them: who gets which event, and in which write. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from hub.backlog import Backlog
from hub.crowd import SLICE, Crowd
from hub.message import Message
from hub.writer import CHUNK

Position = tuple[int, int]
"""Epoch and `seq`."""


class Audience:
    """What the room brings in one turn of the loop leaves in one write for each socket.

    `present` makes the snapshot for those who have to begin again; `soon` calls back when others have had their turn;
    `arrived` is told that there is something to deliver, and has `flush()` called when no more comes in this turn.
    """

    __slots__ = ("_ahead", "_arrived", "_before", "_crowd", "_everybody", "_fresh", "_present", "_size", "members")

    def __init__(
        self,
        present: Callable[[], Message],
        soon: Callable[[Callable[[], None]], object],
        arrived: Callable[[Audience], object],
    ) -> None:
        self.members: set[Backlog] = set()
        self._present = present
        self._arrived = arrived
        self._crowd = Crowd(self._push, soon)
        self._fresh: list[Message] = []
        self._size = 0
        """Bytes of what is fresh."""
        self._everybody: tuple[Backlog, ...] = ()
        """The members, when an event is simply for all of them; empty when it has to be looked at who gets it."""
        self._ahead: dict[Backlog, Position] = {}
        """Members that know more than what comes next, as the store or a snapshot has told them: up to where."""
        self._before: dict[Backlog, Position] = {}
        """Who was ahead when the store was asked."""

    def bring(self, message: Message) -> None:
        """The room's next event."""
        self._fresh.append(message)
        if len(self._fresh) == 1:
            self._arrived(self)
        self._size += len(message.frame)
        if self._size > CHUNK:
            self.flush()

    def flush(self) -> None:
        """Deliver what is fresh."""
        fresh = self._fresh
        if not fresh:
            return
        self._fresh, self._size = [], 0
        last = fresh.pop() if fresh[-1].last else None  # it ends sockets, when all else has been written
        if not (self._everybody or self._ahead or self._crowd) and len(self.members) <= SLICE:
            self._everybody = tuple(self.members)
        if self._everybody and fresh:
            data = fresh[0].frame if len(fresh) == 1 else b"".join([message.frame for message in fresh])
            for member in self._everybody:
                through = member.through
                if through is not None:
                    through.write(data)
                else:
                    for message in fresh:
                        member.push(message)
            fresh = []
        for message in fresh if last is None else [*fresh, last]:
            if not self._deliver(message):
                break  # everybody has been told where the task stands, with these events in it

    def let_in(
        self, member: Backlog, snapshot: Message, missed: Sequence[Message] = (), *, ahead: bool = False
    ) -> None:
        """One more watcher. `ahead`: its snapshot may be newer than what the room will bring next."""
        self.members.add(member)
        self._everybody = ()
        self._ahead.pop(member, None)
        if ahead or self._crowd:  # what is still being delivered is in the snapshot
            self._ahead[member] = (snapshot.epoch, snapshot.seq)
        if missed:
            # Nobody may resume from a snapshot that missed events follow: they would be passed over.
            snapshot = msgspec.structs.replace(snapshot, epoch=0, last=False)
        member.open(snapshot, missed)

    def dismiss(self, member: Backlog) -> None:
        """A watcher is gone; twice is harmless."""
        self.members.discard(member)
        self._everybody = ()
        self._ahead.pop(member, None)

    def restart(self) -> None:
        """Tell all where the task stands, and that what they have missed cannot be told."""
        self._crowd.clear()
        self._ahead.clear()
        self._crowd.deliver(self._present(), tuple(self.members))

    def asked(self) -> None:
        """The store is about to be asked where the task stands."""
        self._before = dict(self._ahead)

    def answered(self, position: Position) -> None:
        """It has answered. Who was ahead of that before it was asked knows what the store has lost since."""
        for member, told in self._before.items():
            if told > position and self._ahead.get(member) == told:
                del self._ahead[member]
                member.open(self._present())
        self._before = {}

    def close(self) -> None:
        """Nothing is delivered any more, and nothing refers to itself."""
        self._crowd = Crowd(lambda *_: None, lambda _: None)
        self._present = _nothing

    def _deliver(self, message: Message) -> bool:
        """To each member that has not been told yet; False if all are told to begin again instead."""
        members = tuple(self.members)
        if len(members) <= SLICE and not self._crowd:
            self._push(message, members)
        elif not self._crowd.deliver(message, members):
            # Far more comes than can be delivered: nobody is told half of it as if it were all.
            self.restart()
            return False
        return True

    def _push(self, message: Message, members: Iterable[Backlog]) -> None:
        present, ahead = self.members, self._ahead
        for member in members:
            if member not in present:
                continue  # it has left since the event came
            if ahead and member in ahead:
                if (message.epoch, message.seq) <= ahead[member]:
                    continue
                del ahead[member]
            if message.type == "snapshot":
                member.open(message)
            else:
                member.push(message)


def _nothing() -> Message:
    raise RuntimeError("the room is closed")
