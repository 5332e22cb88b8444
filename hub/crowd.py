"""Delivery to a crowd, a slice at a time: an event for 10,000 watchers must not keep everybody else waiting."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from hub.backlog import Backlog
from hub.message import Message

SLICE = 1_000
"""Watchers that are sent a message in one turn of the loop: some milliseconds."""
MAX_BEHIND = 16
"""Messages that wait for the crowd before progress is conflated: more come than this process can deliver."""
MAX_WAITING = 256
"""Messages that may wait at all."""


class Crowd:
    """Messages on their way to those who were there when they came, in order."""

    __slots__ = ("_push", "_soon", "_waiting")

    def __init__(
        self, push: Callable[[Message, Iterable[Backlog]], None], soon: Callable[[Callable[[], None]], object]
    ) -> None:
        """`push` delivers to some; `soon` calls back when others have had their turn."""
        self._push = push
        self._soon = soon
        self._waiting: deque[tuple[Message, Iterator[Backlog]]] = deque()

    def __bool__(self) -> bool:
        """Whether something is on its way."""
        return bool(self._waiting)

    def deliver(self, message: Message, members: Sequence[Backlog]) -> bool:
        """Deliver after what is on its way; False if that is too much."""
        behind = len(self._waiting)
        if behind >= MAX_BEHIND and message.type == self._waiting[-1][0].type == "progress":
            self._waiting.pop()  # nobody has got it yet
        elif behind >= MAX_WAITING:
            return False
        self._waiting.append((message, iter(members)))
        if not behind:
            self._go_on()
        return True

    def clear(self) -> None:
        """Nothing is delivered any more of what was on its way."""
        self._waiting.clear()

    def _go_on(self) -> None:
        if not self._waiting:
            return
        message, members = self._waiting[0]
        some = list(itertools.islice(members, SLICE))
        self._push(message, some)
        if len(some) < SLICE:
            self._waiting.popleft()
        if self._waiting:
            self._soon(self._go_on)
