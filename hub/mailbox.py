"""A backlog whose messages are fetched: for event streams, polls, and sockets of any ASGI server but our own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hub.backlog import Backlog
from hub.message import Message


class Mailbox(Backlog):
    """The messages of one watcher, for one reader to `take()`."""

    __slots__ = ("_empty", "_wake", "on_overflow")

    def __init__(self, hz: float | None = None) -> None:
        super().__init__(hz)
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.on_overflow: Callable[[], object] | None = None
        """Called when the watcher turns out too slow, also while its socket still waits to send."""

    async def take(self) -> list[Message]:
        """Wait for messages; all that are due, in order. Raises `Closed` after the last."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            pause = self._pause(loop.time())
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
        await self._empty.wait()

    def _drain(self, now: float) -> list[Message]:
        batch = []
        while self._queue:
            batch.append(self._pop())
        self._clear()
        if any(message.type == "progress" for message in batch):
            self._sent_progress(now)
        return batch

    def _arrived(self) -> None:
        if self._closed is not None:
            self._empty.set()
        elif self.urgent:
            self._empty.clear()
        self._wake.set()

    def _emptied(self) -> None:
        self._empty.set()

    def _overflowed(self) -> None:
        if self.on_overflow is not None:
            self.on_overflow()
