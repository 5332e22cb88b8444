"""A socket for a writer, made by hand: it takes as much as a test lets it, on a loop whose time passes at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from headway.events import State
from hub.backlog import Closed
from hub.message import Message
from hub.writer import Writer
from tests.hub.envelopes import Clock, Publisher

CLOSE = b"\x88\x00"


class Transport:
    """Takes `room` bytes before it says that it is full, within the very write, as real ones do."""

    def __init__(self) -> None:
        self.room = float("inf")
        self.writes: list[bytes] = []
        self.full: Callable[[], None] = lambda: None
        self.closing = False

    def write(self, data: bytes) -> None:
        self.writes.append(bytes(data))
        self.room -= len(data)
        if self.room <= 0:
            self.full()

    def is_closing(self) -> bool:
        return self.closing


class Socket:
    """A connection and who has taken it over; `told` are the last messages, `finished` how it was closed."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.out: Any = Transport()
        self.told_after: list[int] = []
        self.told_of: list[Message] = []
        self.finished: Closed | None = None
        self.ends = False
        self.writer = Writer(self, self)
        self.out.full = self.writer.pause

    def finish(self, end: Closed) -> None:
        if self.finished is None:
            self.finished = end
            self.out.write(CLOSE)

    def heard(self, event: dict[str, Any]) -> None:
        raise AssertionError("nobody speaks")

    def told(self, message: Message) -> None:
        self.told_of.append(message)
        self.told_after.append(len(self.out.writes))
        if self.ends:
            self.writer.close(1000, "finished")

    def takes(self, size: float = float("inf")) -> None:
        """The client has read: there is room again."""
        self.out.room = size
        self.writer.resume()

    @property
    def sent(self) -> bytes:
        """All that was written."""
        return b"".join(self.out.writes)


def on_clock(test: Callable[[], Any]) -> Callable[[], None]:
    """Run a test on a loop whose time passes only when nothing is left to do."""

    def run() -> None:
        Clock.run(test)

    run.__doc__ = test.__doc__
    return run


def of(task: Publisher, kind: str = "l", text: str = "a line") -> Message:
    """The next event of a task: progress, log, state or its end."""
    make = {
        "p": task.progress,
        "l": lambda: task.said(text),
        "s": lambda: task.became(State.RETRY),
        "t": lambda: task.became(State.SUCCESS),
    }
    return Message.of(task.task_id, make[kind]())
