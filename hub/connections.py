"""The connection manager: rooms come with the first watcher of a task and go with the last.

A join has no gap: subscribe, wait for the acknowledgement, read the store, merge by seq. The same three steps mend a
room after a break of the link and after a lost event. Redis and sockets are behind the two protocols below.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Protocol

import redis

from headway import keys
from headway.events import Cursor
from headway.store import Snapshot
from hub.audience import Audience
from hub.backlog import Backlog
from hub.link import Listener
from hub.rooms import Room

logger = logging.getLogger(__name__)

LINGER = 5.0
"""Seconds a room without watchers stays, for one that reconnects."""
JOIN_TIMEOUT = 10.0
"""Seconds for which a watcher waits for a Redis that is away; then it is told to back off and come again."""
CONCURRENT_READS = 16
"""Rooms that read the store at the same time after a break of the link."""
RETRY = (0.1, 2.0)
"""Seconds until a room reads again from a Redis that is away: at first, and at most."""


class Channels(Protocol):
    """What the manager needs of the link."""

    async def subscribe(self, channel: str, listener: Listener) -> None: ...
    async def unsubscribe(self, channel: str, listener: Listener) -> None: ...
    def hears(self, channel: str) -> bool: ...


class Reader(Protocol):
    """What the manager needs of the store."""

    async def read(self, task_id: str, since: Cursor | None = None) -> Snapshot | None: ...


class UnknownTask(Exception):
    """Nobody has ever heard of this task, or it is so long over that the store has forgotten it."""


class _Open:
    """A room with its subscription."""

    def __init__(self, manager: Connections, task_id: str) -> None:
        loop = asyncio.get_running_loop()
        self.room = Room(task_id, lambda: manager.resync(self), loop.call_soon, manager.news.append)
        self.channel = keys.of(task_id).channel
        self.entering = 0
        self.opening: asyncio.Task[None]
        self.closing: asyncio.TimerHandle | None = None


class Connections:
    """All rooms of this process."""

    def __init__(self, channels: Channels, reader: Reader) -> None:
        self._channels = channels
        self._reader = reader
        self._open: dict[str, _Open] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading = asyncio.Semaphore(CONCURRENT_READS)
        self.news: list[Audience] = []
        """Those for whom events have come in this turn."""

    @property
    def rooms(self) -> int:
        """How many tasks are watched here."""
        return len(self._open)

    async def join(self, task_id: str, member: Backlog, cursor: Cursor | None = None) -> None:
        """Let a watcher in: its snapshot and everything after it go to its backlog, until `leave()`.

        Raises `UnknownTask`, or redis-py's errors when the store cannot be read.
        """
        place = self._enter(task_id, cursor)
        place.entering += 1
        try:
            await asyncio.shield(place.opening)
            if not place.room.admit(member, cursor) and cursor is not None:
                place.room.admit_from(member, cursor, await self._known(task_id, cursor))
        finally:
            place.entering -= 1
            self._linger(place)

    def room(self, task_id: str) -> Room | None:
        """The room of a task that is watched here, if it can say where the task stands; else None."""
        place = self._open.get(task_id)
        if place is None or not place.room.current or not self._channels.hears(place.channel):
            return None
        return place.room

    def ended_at(self, task_id: str) -> Cursor | None:
        """The cursor of a watched task's end; None while it has not ended."""
        place = self._open.get(task_id)
        return place.room.cursor if place is not None and place.room.ended else None

    def leave(self, task_id: str, member: Backlog) -> None:
        """The watcher is gone; leaving twice is harmless."""
        member.drop(task_id)
        place = self._open.get(task_id)
        if place is not None:
            place.room.audience.dismiss(member)
            self._linger(place)

    def resync(self, place: _Open) -> None:
        """Have a room read the store and tell its watchers what they missed."""
        if place.room.syncing:
            place.room.doubt()
        else:
            place.room.hold()
            self._spawn(self._resync(place))

    def turned(self) -> None:
        """The link has heard all that there is for now: deliver it."""
        for audience in self.news:
            try:
                audience.flush()
            except Exception:  # it must not silence all the others
                logger.exception("events cannot be delivered")
        self.news.clear()

    async def aclose(self) -> None:
        """End all background work; rooms hear nothing after this."""
        for place in self._open.values():
            if place.closing is not None:
                place.closing.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._open.clear()

    def _enter(self, task_id: str, cursor: Cursor | None) -> _Open:
        place = self._open.get(task_id)
        if place is None:
            place = self._open[task_id] = _Open(self, task_id)
            place.opening = self._spawn(self._load(place, cursor))
        if place.closing is not None:
            place.closing.cancel()
            place.closing = None
        return place

    async def _load(self, place: _Open, cursor: Cursor | None) -> None:
        task_id = place.room.task_id
        try:
            await self._channels.subscribe(place.channel, place.room)
            snapshot = await self._known(task_id, cursor)
        except BaseException:
            # Whoever comes next begins anew; those who wait for this one hear why it failed.
            self._forget(place)
            raise
        if not place.room.sync(snapshot, cursor):
            self.resync(place)

    async def _known(self, task_id: str, cursor: Cursor | None) -> Snapshot:
        snapshot = await self._reader.read(task_id, cursor)
        if snapshot is None:
            raise UnknownTask(task_id)
        return snapshot

    async def _resync(self, place: _Open) -> None:
        delay = RETRY[0]
        while self._open.get(place.room.task_id) is place:
            since = place.room.cursor
            try:
                async with self._reading:
                    snapshot = await self._reader.read(place.room.task_id, since)
            except (redis.RedisError, OSError) as error:
                logger.warning("task %s waits for Redis to go on: %s", place.room.task_id, error)
                await asyncio.sleep(delay)
                delay = min(RETRY[1], delay * 2)
                continue
            except Exception:
                # What the store holds is not ours. Its watchers are told, rather than left in silence.
                logger.exception("task %s cannot be read", place.room.task_id)
                self._forget(place)
                for member in place.room.members:
                    member.close(1013, "the task cannot be read at the moment")
                return
            if self._open.get(place.room.task_id) is not place:
                return  # nobody has waited for it
            if place.room.lost() if snapshot is None else place.room.sync(snapshot, since):
                return
            place.room.hold()

    def _linger(self, place: _Open) -> None:
        if place.room.members or place.entering or place.closing or self._open.get(place.room.task_id) is not place:
            return
        place.closing = asyncio.get_running_loop().call_later(LINGER, self._forget, place)

    def _forget(self, place: _Open) -> None:
        if self._open.get(place.room.task_id) is place:
            del self._open[place.room.task_id]
            place.closing = None
            self._spawn(self._close(place))

    async def _close(self, place: _Open) -> None:
        await self._channels.unsubscribe(place.channel, place.room)
        place.room.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, (UnknownTask, redis.RedisError, OSError)):
                logger.error("the work on a room failed", exc_info=error)
