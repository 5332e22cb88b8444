"""What one watcher has yet to be sent: everything that must arrive, and the newest of what may be skipped.

Pure: no socket, no Redis, no clock. A slow watcher costs itself freshness: progress is conflated per task, latest wins;
`state` and `log` events keep their order, up to a bound. Its heirs say how the messages leave: `hub.mailbox` for who
fetches them (SSE, polls, any ASGI server), `hub.writer` for sockets of our own protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from hub.message import Message

MAX_PENDING = 2_000
"""Messages that may wait for one watcher; one that falls behind further is told to come back with its cursor (4408).

More than a room replays after a break of the link, which is no watcher's fault. What a watcher has asked for with its
cursor does not count: if it did, who has missed much would come back for ever.
"""
MAX_BYTES = 8 * 1024 * 1024
"""Bytes of all that waits for one watcher, what it has asked for with its cursor apart."""
TOO_SLOW = "too slow: connect again with the cursor of the last event"


class Closed(Exception):
    """Nothing more will come: `code` is a close code of DESIGN.md's table, `reason` says why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason

    @property
    def text(self) -> str:
        """As much of the reason as a close frame holds: 125 bytes, 2 of them the code. (RFC 6455, 5.5.)"""
        return self.reason.encode()[:123].decode(errors="ignore")


class Out(Protocol):
    """Where frames go."""

    def write(self, frame: bytes, /) -> None: ...


class _Entry:
    """A place in the queue. That of progress can be taken by newer progress."""

    __slots__ = ("message", "replayed")

    def __init__(self, message: Message, *, replayed: bool = False) -> None:
        self.message = message
        self.replayed = replayed


class Backlog:
    """The messages of one watcher, which may watch many tasks. Most watchers never have any: it is empty until then."""

    __slots__ = ("_bytes", "_closed", "_due", "_hz", "_kept", "_progress", "_queue", "_replayed", "through")

    def __init__(self, hz: float | None = None) -> None:
        self.through: Out | None = None
        """Where progress may be written as it comes, which is what `push()` would do; None when it has to be kept."""
        self._hz = hz
        self._due = 0.0
        self._queue: deque[_Entry] | None = None
        self._progress: dict[str, _Entry] | None = None
        self._kept = 0
        self._replayed = 0
        self._bytes = 0
        self._closed: Closed | None = None

    @property
    def hz(self) -> float | None:
        """Progress messages a second, at most; None for no limit."""
        return self._hz

    @hz.setter
    def hz(self, hz: float | None) -> None:
        self._hz = hz
        self._due = 0.0  # the pause that is under way was the old rate's
        self._arrived()

    @property
    def closed(self) -> Closed | None:
        """Why nothing more will come; None while it may."""
        return self._closed

    @property
    def urgent(self) -> bool:
        """Whether something waits that no rate holds back."""
        return self._kept > 0 or self._replayed > 0 or self._closed is not None

    def open(self, snapshot: Message, missed: Sequence[Message] = ()) -> None:
        """Begin to watch a task: its snapshot first, then what the watcher's cursor had missed."""
        if self._progress is not None:
            self._progress.pop(snapshot.task_id, None)
        self._keep(snapshot, missed)

    def drop(self, task_id: str) -> None:
        """Stop watching a task: newer progress of another watch of it takes no place from this one."""
        if self._progress is not None:
            self._progress.pop(task_id, None)

    def push(self, message: Message) -> None:
        """A task's next event."""
        if self._closed is not None:
            return
        if message.type != "progress":
            self.drop(message.task_id)  # what it says comes before this event, and stays there
            self._keep(message)
            return
        if self._progress is None:
            self._progress = {}
        entry = self._progress.get(message.task_id)
        if entry is None:
            self._progress[message.task_id] = self._append(message)
        else:
            self._bytes += len(message.frame) - len(entry.message.frame)
            entry.message = message
        if self._bytes > MAX_BYTES:
            self._overflow()
        elif entry is None:
            self._arrived()

    def tell(self, message: Message) -> None:
        """A message that is no event of a task."""
        self._keep(message)

    def close(self, code: int, reason: str) -> None:
        """End it after what is waiting; the first reason stays."""
        if self._closed is None:
            self._closed = Closed(code, reason)
            self._arrived()

    def _arrived(self) -> None:
        """Something may be due now."""

    def _emptied(self) -> None:
        """Nothing waits that must arrive."""

    def _overflowed(self) -> None:
        """The watcher is too slow: nothing of what waited will be sent."""

    def _pause(self, now: float) -> float:
        """Seconds until what waits may be sent."""
        return 0.0 if self._hz is None or self.urgent else max(0.0, self._due - now)

    def _sent_progress(self, now: float) -> None:
        """The rate counts from here."""
        if self._hz is not None:
            self._due = now + 1 / self._hz

    def _pop(self) -> Message:
        """The next message, of which there is one."""
        entry = self._entries().popleft()
        message = entry.message
        if entry.replayed:
            self._replayed -= 1
            return message
        self._bytes -= len(message.frame)
        if message.type != "progress":
            self._kept -= 1
            return message
        if self._progress is not None and self._progress.get(message.task_id) is entry:
            del self._progress[message.task_id]
        return message

    def _keep(self, message: Message, replayed: Sequence[Message] = ()) -> None:
        if self._closed is not None:
            return
        self._append(message)
        self._kept += 1
        if replayed:
            self._entries().extend([_Entry(missed, replayed=True) for missed in replayed])
            self._replayed += len(replayed)
        if self._kept > MAX_PENDING or self._bytes > MAX_BYTES:
            self._overflow()
        else:
            self._arrived()

    def _append(self, message: Message) -> _Entry:
        entry = _Entry(message)
        self._entries().append(entry)
        self._bytes += len(message.frame)
        return entry

    def _entries(self) -> deque[_Entry]:
        if self._queue is None:
            self._queue = deque()
        return self._queue

    def _overflow(self) -> None:
        self._closed = Closed(4408, TOO_SLOW)
        self._clear()
        self._overflowed()
        self._arrived()

    def _clear(self) -> None:
        """Give back all memory."""
        self._queue = self._progress = None
        self._kept = self._replayed = self._bytes = 0
        self._emptied()
