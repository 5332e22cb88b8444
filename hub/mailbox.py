"""What one watcher has yet to be sent: everything that must arrive, and the newest of what may be skipped.

Nothing here knows of sockets or Redis. A slow watcher costs itself freshness: progress is conflated per task, latest
wins; `state` and `log` events keep their order, up to a bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from headway.events import Cursor, Envelope

MAX_PENDING = 2_000
"""Messages that may wait for one watcher; one that falls behind further is told to come back with its cursor (4408).

More than a room replays after a break of the link, which is no watcher's fault. What a watcher has asked for with its
cursor does not count: if it did, who has missed much would come back for ever.
"""


class Closed(Exception):
    """Nothing more will come: `code` is a close code of DESIGN.md's table, `reason` says why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Outgoing:
    """One message to send. `cursor` is where the watcher stands once it has it, None where it must not resume from."""

    __slots__ = ("cursor", "data", "last", "type")

    def __init__(self, type: str, data: bytes, cursor: Cursor | None = None, *, last: bool = False) -> None:  # noqa: A002
        self.type = type
        self.data = data
        self.cursor = cursor
        self.last = last
        """Whether its task has ended with it."""


_TYPES = {"p": "progress", "s": "state", "t": "state", "l": "log"}


def _outgoing(envelope: Envelope) -> Outgoing:
    return Outgoing(_TYPES[envelope.kind], envelope.data, envelope.cursor, last=envelope.terminal)


class Mailbox:
    """The messages of one watcher, which may watch many tasks. `hz` bounds its progress messages a second."""

    def __init__(self, hz: float | None = None) -> None:
        self._hz = hz
        self._queue: deque[Outgoing] = deque()
        self._progress: dict[str, Outgoing] = {}
        self._seen: dict[str, Cursor] = {}
        self._kept = 0
        self._replayed = 0
        self._closed: Closed | None = None
        self._wake = asyncio.Event()
        self._emptied: asyncio.Future[None] | None = None
        self.on_overflow: Callable[[], object] | None = None
        """Called when the watcher turns out too slow, also while its socket still waits to send."""
        self._due = 0.0

    @property
    def hz(self) -> float | None:
        """Progress messages a second, at most; None for no limit."""
        return self._hz

    @hz.setter
    def hz(self, hz: float | None) -> None:
        self._hz = hz
        self._due = 0.0  # the pause that is under way was the old rate's
        self._wake.set()

    def open(self, task_id: str, position: Cursor, snapshot: bytes, missed: Sequence[Envelope], *, ended: bool) -> None:
        """Begin to watch a task: its snapshot first, then what the watcher's cursor had missed.

        `position` is the snapshot's. While missed events follow it, the snapshot is nothing to resume from.
        """
        self._seen[task_id] = position
        self._progress.pop(task_id, None)
        self._append(Outgoing("snapshot", snapshot, None if missed else position, last=ended and not missed))
        if self._closed is None:
            self._queue.extend(map(_outgoing, missed))
            self._replayed += len(missed)

    def drop(self, task_id: str) -> None:
        """Stop watching a task."""
        self._seen.pop(task_id, None)
        self._progress.pop(task_id, None)

    def push(self, task_id: str, envelope: Envelope) -> None:
        """A task's next event; what the watcher has been told already is passed over."""
        seen = self._seen.get(task_id)
        if self._closed is not None or seen is None or (seen.epoch == envelope.epoch and envelope.seq <= seen.seq):
            return
        self._seen[task_id] = envelope.cursor
        if envelope.kept:
            self._progress.pop(task_id, None)  # what it says comes before this event, and stays there
            self._append(_outgoing(envelope))
            return
        waiting = self._progress.get(task_id)
        if waiting is None:
            self._progress[task_id] = waiting = _outgoing(envelope)
            self._queue.append(waiting)
            self._wake.set()
        else:
            waiting.data, waiting.cursor = envelope.data, envelope.cursor

    def tell(self, type: str, data: bytes) -> None:  # noqa: A002
        """A message that is no event of a task: an answer to the watcher, or of the feed."""
        self._append(Outgoing(type, data))

    def close(self, code: int, reason: str) -> None:
        """End it after what is waiting; too slow a watcher (4408) gets nothing more."""
        if self._closed is None:
            self._closed = Closed(code, reason)
        self._wake.set()

    @property
    def closed(self) -> Closed | None:
        """Why nothing more will come; None while it may."""
        return self._closed

    async def take(self) -> list[Outgoing]:
        """Wait for messages; all that are due, in order. Raises `Closed` after the last."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            urgent = self._kept or self._replayed or self._closed is not None
            pause = self._due - loop.time() if self._hz and not urgent else 0.0
            if self._queue and pause <= 0:
                return self._drain(loop.time())
            if self._closed is not None:
                raise self._closed
            try:
                async with asyncio.timeout(pause if self._queue else None):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def emptied(self) -> None:
        """Wait until nothing waits that must arrive: whoever asks for more paces itself with this."""
        while (self._kept or self._replayed) and self._closed is None:
            if self._emptied is None:
                self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._emptied)

    def _drain(self, now: float) -> list[Outgoing]:
        batch = list(self._queue)
        self._clear()
        if self._hz and any(message.type == "progress" for message in batch):
            self._due = now + 1 / self._hz
        return batch

    def _clear(self) -> None:
        self._queue.clear()
        self._progress.clear()
        self._kept = self._replayed = 0
        if self._emptied is not None:
            self._emptied.set_result(None)
            self._emptied = None

    def _append(self, message: Outgoing) -> None:
        if self._closed is not None:
            return
        if self._kept >= MAX_PENDING:
            self.close(4408, "too slow: connect again with the cursor of the last event")
            self._clear()
            if self.on_overflow is not None:
                self.on_overflow()
            return
        self._kept += 1
        self._queue.append(message)
        self._wake.set()
