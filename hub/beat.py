"""The heartbeat of all sockets of a process, on one timer: one for each would be a tenth of a socket's memory."""

from __future__ import annotations

import asyncio
import logging
import weakref
from typing import Protocol

logger = logging.getLogger(__name__)

SECTORS = 16
"""Parts of a round: sockets that were opened at the same time are not all asked at the same time for ever."""


class Member(Protocol):
    """Who has a heart."""

    def beat(self) -> None:
        """Once every round."""


class Beat:
    """Calls each member once every `interval` seconds. Its timer runs only while there are any."""

    def __init__(self, interval: float) -> None:
        self._pause = interval / SECTORS
        self._sectors: list[set[Member]] = [set() for _ in range(SECTORS)]
        self._now = 0
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop, interval: float) -> Beat:
        """The one of a loop, for this interval in seconds."""
        beats = _beats.setdefault(loop, {})
        if interval not in beats:
            beats[interval] = cls(interval)
        return beats[interval]

    def add(self, member: Member) -> int:
        """Call a member from now on, for the first time after a whole round; what to give to `remove()`."""
        self._sectors[self._now].add(member)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._next)
        return self._now

    def remove(self, member: Member, sector: int) -> None:
        """Call it no longer."""
        self._sectors[sector].discard(member)

    def _next(self) -> None:
        self._now = (self._now + 1) % SECTORS
        for member in tuple(self._sectors[self._now]):
            try:
                member.beat()
            except Exception:  # one heart that fails must not stop all the others
                logger.exception("a heartbeat failed")
        self._timer = None
        if any(self._sectors):
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._next)


_beats: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[float, Beat]] = weakref.WeakKeyDictionary()
