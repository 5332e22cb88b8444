"""The last step of an event's way: from a room to a socket.

Frames of a server are not masked (RFC 6455, 5.1), so an event that was framed once is written as it is to every socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from hub.backlog import Backlog, Closed
from hub.message import Message

CHUNK = 32 * 1024
"""Bytes that are handed over at once: between two of them a transport can say that it is enough."""


class Listener(Protocol):
    """Who has taken a socket over."""

    def heard(self, event: dict[str, Any]) -> None:
        """`websocket.receive` and, once or more, `websocket.disconnect`, as ASGI has them."""

    def told(self, message: Message) -> None:
        """The last message of a task has been written."""


class Socket(Protocol):
    """What a writer needs of a socket."""

    loop: asyncio.AbstractEventLoop
    out: asyncio.WriteTransport | Gathered
    """Where frames go."""

    def finish(self, end: Closed) -> None:
        """Close, after what has been written; once is enough."""


class Gathered:
    """A transport's write() that gathers the frames of one turn of the loop, of any number of rooms, into one."""

    __slots__ = ("_frames", "_loop", "_size", "_transport")

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.WriteTransport) -> None:
        self._loop = loop
        self._transport = transport
        self._frames: list[bytes] = []
        self._size = 0

    def write(self, frame: bytes) -> None:
        """At the end of this turn; sooner when it is much, so that the transport can say that it is enough."""
        if not self._frames:
            self._loop.call_soon(self.flush)
        self._frames.append(frame)
        self._size += len(frame)
        if self._size >= CHUNK:
            self.flush()

    def flush(self) -> None:
        """Now."""
        frames, self._frames, self._size = self._frames, [], 0
        if frames and not self._transport.is_closing():
            self._transport.write(b"".join(frames))


class Writer(Backlog):
    """Sends one socket its messages: straight through, or, when it takes none, what its backlog makes of them."""

    __slots__ = ("_empty", "_out", "_paused", "_socket", "_timer", "listener")

    def __init__(self, socket: Socket, listener: Listener) -> None:
        super().__init__()
        self._socket = socket
        self._out = socket.out
        self.listener = listener
        self._timer: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event | None = None
        self._paused = False
        self.through = self._out

    def push(self, message: Message) -> None:
        if self.through is not None:
            self.through.write(message.frame)
            if message.last:
                self.listener.told(message)
        else:
            super().push(message)

    def open(self, snapshot: Message, missed: Sequence[Message] = ()) -> None:
        if self.through is not None and not missed:
            self.push(snapshot)
        else:
            super().open(snapshot, missed)

    def tell(self, message: Message) -> None:
        if self.through is not None:
            self.through.write(message.frame)
        else:
            super().tell(message)

    async def emptied(self) -> None:
        """Wait until nothing waits that must arrive: whoever asks for more paces itself with this."""
        if self.urgent and self._closed is None:
            if self._empty is None:
                self._empty = asyncio.Event()
            await self._empty.wait()

    def pause(self) -> None:
        """The transport's buffer is full."""
        self._paused = True
        self.through = None

    def resume(self) -> None:
        """The transport's buffer has drained."""
        self._paused = False
        self._flush()

    def stop(self) -> None:
        """The connection is being closed: nothing is written any more, nor waits."""
        self._paused = True
        self.close(1006, "gone")
        self._clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def gone(self) -> None:
        """The connection is lost. It is told once, and of nothing after that."""
        self.stop()
        del self.listener, self._socket, self._out  # which refer to this

    def _arrived(self) -> None:
        self.through = None
        if not self._paused:
            self._flush()

    def _flush(self) -> None:
        """Send what is due, as far as the transport takes it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = self._socket.loop
        if self._queue and (pause := self._pause(loop.time())):
            self._timer = loop.call_later(pause, self._flush)
            return
        while self._queue and not self._paused:
            if self._write_some():
                self._sent_progress(loop.time())
        if self._paused:
            return
        self._clear()
        if self._closed is not None:
            self._socket.finish(self._closed)
        else:
            self.through = self._out if self._hz is None else None

    def _write_some(self) -> bool:
        """One chunk, in one write; whether there was progress in it."""
        messages: list[Message] = []
        size = 0
        while self._queue and size < CHUNK:
            messages.append(self._pop())
            size += len(messages[-1].frame)
        self._out.write(b"".join([message.frame for message in messages]))
        for message in messages:
            if message.last:
                self.listener.told(message)  # not before it is written: the listener may close
        return any(message.type == "progress" for message in messages)

    def _emptied(self) -> None:
        if self._empty is not None:
            self._empty.set()
            self._empty = None

    def _overflowed(self) -> None:
        if self._closed is not None:
            self._socket.finish(self._closed)  # behind what the transport holds, and with a time limit
