"""What a WebSocket watches and may ask for, whoever carries its messages (`hub.websocket`)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar

import redis
import structlog
from starlette.websockets import WebSocket

from headway.events import Cursor
from hub import wishes
from hub.backlog import Closed
from hub.connections import JOIN_TIMEOUT, UnknownTask
from hub.mailbox import Mailbox
from hub.message import answer
from hub.services import Services
from hub.wishes import Cancel, Ping, Rate, Subscribe, Unsubscribe, Watched, Wish
from hub.writer import Writer

log = structlog.get_logger()

MAX_TASKS = 1_000
"""Tasks one socket may watch."""
BATCH = 50
"""Tasks of one subscription that are joined at the same time."""
MAX_HZ = 100.0

Work = Coroutine[Any, Any, None]


PONG = answer("pong")


class Session:
    """One accepted socket: what it watches, and what it may ask for. `out` is where its messages go."""

    __slots__ = ("out", "services")

    decoder: ClassVar[Any]
    finishes: ClassVar[bool] = False
    """Whether the end of a task ends the socket."""
    gathers: ClassVar[bool] = False
    """Whether what leaves in one turn may come from several rooms."""

    def __init__(self, services: Services, out: Mailbox | Writer) -> None:
        self.services = services
        self.out = out

    @property
    def names(self) -> dict[str, str]:
        """What the socket goes by in the log."""
        return {"path": "/ws"}

    def begin(self, socket: WebSocket) -> Work | None:
        """What the socket asks for by its address."""

    def obey(self, wish: Wish) -> Work | None:
        """Do what any socket may ask for; what takes time is returned. Raises `Closed` for what nobody may."""
        if isinstance(wish, Ping):
            self.out.tell(PONG)
        elif isinstance(wish, Rate):
            if not 0 < wish.hz <= MAX_HZ:
                raise Closed(4400, f"rate.hz must be above 0 and at most {MAX_HZ:g}")
            self.out.hz = wish.hz
        return None

    def end(self) -> None:
        """Watch nothing any more."""

    async def join(self, task_id: str, cursor: str | None) -> None:
        """Watch a task. Raises `Closed` with the code that says why not."""
        try:
            position = Cursor.parse(cursor) if cursor else None
        except ValueError as error:
            raise Closed(4400, str(error)) from None
        try:
            async with asyncio.timeout(JOIN_TIMEOUT):
                await self.services.connections.join(task_id, self.out, position)
        except UnknownTask:
            raise Closed(4404, "no such task") from None
        except (redis.RedisError, OSError, TimeoutError) as error:
            log.warning("a watcher cannot be let in", task_id=task_id, error=str(error))
            raise Closed(1013, "the progress store is away, try again") from None


class TaskSession(Session):
    """`/ws/task/{id}`: one task, closed with 1000 after its end."""

    __slots__ = ("task_id",)

    decoder = wishes.one
    finishes = True

    @property
    def names(self) -> dict[str, str]:
        return {"path": f"/ws/task/{self.task_id}", "task_id": self.task_id}

    def begin(self, socket: WebSocket) -> Work | None:
        self.task_id: str = socket.path_params["task_id"]
        return self.join(self.task_id, socket.query_params.get("cursor"))

    def obey(self, wish: Wish) -> Work | None:
        if isinstance(wish, Cancel):
            self.out.tell(answer("error", detail="this hub cannot cancel tasks"))
        return super().obey(wish)

    def end(self) -> None:
        self.services.connections.leave(self.task_id, self.out)


class ManySession(Session):
    """`/ws`: many tasks and the feed on one socket, which stays open when they end."""

    __slots__ = ("joined",)

    decoder = wishes.many
    gathers = True

    def __init__(self, services: Services, out: Mailbox | Writer) -> None:
        super().__init__(services, out)
        self.joined: set[str] = set()

    def obey(self, wish: Wish) -> Work | None:
        if isinstance(wish, Subscribe):
            if len(self.joined | {task.id for task in wish.tasks}) > MAX_TASKS:
                raise Closed(4400, f"one socket may watch at most {MAX_TASKS} tasks")
            return self._subscribe_all(wish)
        if isinstance(wish, Unsubscribe):
            for task in wish.tasks:
                self._leave(task if isinstance(task, str) else task.id)
            if wish.feed is not None:
                self.services.feed.leave(self.out)
        return super().obey(wish)

    def end(self) -> None:
        for task_id in self.joined:
            self.services.connections.leave(task_id, self.out)
        self.joined.clear()
        self.services.feed.leave(self.out)

    async def _subscribe_all(self, wish: Subscribe) -> None:
        """Some at a time, as fast as the client takes the answers: what it asked for is not held against it."""
        if wish.feed is not None:
            await self._follow(wish.feed)
        tasks = list({task.id: task for task in wish.tasks}.values())
        for first in range(0, len(tasks), BATCH):
            await self.out.emptied()
            if self.out.closed is not None:
                return  # too slow for what it has asked for, or gone
            joins = (self._subscribe(task) for task in tasks[first : first + BATCH])
            # All of them, also when one fails: a join that goes on alone would never be left again.
            for end in await asyncio.gather(*joins, return_exceptions=True):
                if end is not None:
                    raise end

    async def _subscribe(self, task: Watched) -> None:
        self._leave(task.id)
        try:
            await self.join(task.id, task.cursor)
        except Closed as refusal:
            if refusal.code == 1013:
                raise
            # One wrong task must not end the others' watch.
            self.out.tell(answer("error", task_id=task.id, code=refusal.code, detail=refusal.reason))
        else:
            self.joined.add(task.id)

    def _leave(self, task_id: str) -> None:
        if task_id in self.joined:
            self.joined.discard(task_id)
            self.services.connections.leave(task_id, self.out)

    async def _follow(self, feed: str) -> None:
        if feed != "recent":
            raise Closed(4400, f"there is no feed {feed[:32]!r}: the one there is is recent")
        try:
            async with asyncio.timeout(JOIN_TIMEOUT):
                await self.services.feed.join(self.out)
        except TimeoutError:
            raise Closed(1013, "the progress store is away, try again") from None
