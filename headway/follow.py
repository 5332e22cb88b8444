"""Whether a watcher has seen everything: the pure half of the client.

DESIGN.md, "Events": `seq` orders a task's events, `prev` names the kept event (`state` or `log`) before each, so every
client can check for itself that nothing was lost, and a `cursor` says where to go on after a break.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from headway.events import Cursor

if TYPE_CHECKING:
    from headway.events import State, TaskEvent


class Verdict(enum.Enum):
    """What to do with an event that has just arrived."""

    DELIVER = "deliver"
    DUPLICATE = "duplicate"
    """Seen before; drop it."""
    GAP = "gap"
    """A kept event before it never came: connect again with the cursor, which brings it."""


class Follower:
    """Turns what arrives, over any number of connections, into one sequence without gap or repetition.

    `cursor` is where to resume: every kept event up to it has been delivered (None: nothing has been heard yet).
    """

    def __init__(self, cursor: Cursor | None = None) -> None:
        self.cursor = cursor
        self._latest: tuple[int, State] | None = None
        # A snapshot that says "recovered" is followed by what was missed. Until those are here, the cursor must stay
        # behind them, or a second break in the middle would lose the rest.
        self._recovering: TaskEvent | None = None

    @property
    def finished(self) -> bool:
        """Whether the task has ended and everything up to its end has been delivered."""
        return self._latest is not None and self._latest[1].terminal and self._recovering is None

    def feed(self, event: TaskEvent) -> Verdict:
        """Judge the next event of the connection. Raises ValueError for an event whose cursor is malformed."""
        cursor = Cursor.parse(event.cursor)
        return self._snapshot(event, cursor) if event.type == "snapshot" else self._event(event, cursor)

    def _snapshot(self, event: TaskEvent, cursor: Cursor) -> Verdict:
        here = self.cursor
        if event.recovered is not True or here is None or here.epoch != cursor.epoch:
            # The first one, or the past is gone and the story starts anew here.
            self.cursor, self._latest, self._recovering = cursor, (event.seq, event.state), None
            return Verdict.DELIVER
        if event.seq < here.seq:
            # Read before the cursor was written (a shared or cached snapshot): showing it would turn the clock back.
            return Verdict.DUPLICATE
        self._latest = (event.seq, event.state)
        self._recovering = event if event.prev > here.seq else None
        if self._recovering is None:
            self.cursor = cursor
        return Verdict.DELIVER

    def _event(self, event: TaskEvent, cursor: Cursor) -> Verdict:
        if self.cursor is None or cursor.epoch != self.cursor.epoch:
            return Verdict.GAP
        if event.seq <= self.cursor.seq:
            return Verdict.DUPLICATE
        if event.prev > self.cursor.seq:
            return Verdict.GAP
        self.cursor = cursor
        if self._latest is None or event.seq >= self._latest[0]:
            self._latest = (event.seq, event.state)
        if self._recovering is not None and event.seq >= self._recovering.prev:
            self.cursor = max(cursor, Cursor.parse(self._recovering.cursor))
            self._recovering = None
        return Verdict.DELIVER
