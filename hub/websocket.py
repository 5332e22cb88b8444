"""The WebSocket side: `/ws/task/{id}` for one task, `/ws` for many and for the feed of recent jobs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import redis
import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from headway.events import Cursor, encode
from hub import wishes
from hub.connections import UnknownTask
from hub.mailbox import Closed, Mailbox
from hub.security import host_allowed, origin_allowed
from hub.services import Services
from hub.wishes import Cancel, Ping, Rate, Subscribe, Unsubscribe, Watched, Wish

log = structlog.get_logger()

SUBPROTOCOL = "headway.v1"
JOIN_TIMEOUT = 10.0
"""Seconds for which a watcher waits for a Redis that is away; then it is told to back off and come again."""
MAX_TASKS = 1_000
"""Tasks one socket may watch."""
BATCH = 50
"""Tasks of one subscription that are joined at the same time."""
MAX_HZ = 100.0
CLOSE_TIMEOUT = 2.0
"""Seconds for which a close waits behind what a slow client has not taken yet."""


class Session:
    """One accepted socket: a loop that reads wishes, a loop that sends what is due, and one way to end."""

    def __init__(self, socket: WebSocket, services: Services, decoder: Any) -> None:
        self.socket = socket
        self.services = services
        self.mailbox = Mailbox()
        self.joined: set[str] = set()
        self._decoder = decoder

    async def run(self) -> None:
        """Serve the socket until either side ends it."""
        sending = asyncio.create_task(self._send())
        reading = asyncio.create_task(self._read())
        self.mailbox.on_overflow = sending.cancel  # it may wait on the very socket that does not take anything
        try:
            await asyncio.wait({sending, reading}, return_when=asyncio.FIRST_COMPLETED)
            ends = [task.result() for task in (reading, sending) if task.done() and not task.cancelled()]
            end = ends[0] if ends else self.mailbox.closed
        finally:
            for task in (sending, reading):
                task.cancel()
            await asyncio.gather(sending, reading, return_exceptions=True)
            for task_id in self.joined:
                self.services.connections.leave(task_id, self.mailbox)
            self.services.feed.leave(self.mailbox)
        if end is not None:
            await close(self.socket, end)

    async def join(self, task_id: str, cursor: str | None) -> None:
        """Watch a task. Raises `Closed` with the code that says why not."""
        try:
            position = Cursor.parse(cursor) if cursor else None
        except ValueError as error:
            raise Closed(4400, str(error)) from None
        try:
            async with asyncio.timeout(JOIN_TIMEOUT):
                await self.services.connections.join(task_id, self.mailbox, position)
        except UnknownTask:
            raise Closed(4404, "no such task") from None
        except (redis.RedisError, OSError, TimeoutError) as error:
            log.warning("a watcher cannot be let in", task_id=task_id, error=str(error))
            raise Closed(1013, "the progress store is away, try again") from None
        self.joined.add(task_id)

    def leave(self, task_id: str) -> None:
        """Watch a task no longer."""
        if task_id in self.joined:
            self.joined.discard(task_id)
            self.services.connections.leave(task_id, self.mailbox)

    async def obey(self, wish: Wish) -> None:
        """Do what any socket may ask for."""
        if isinstance(wish, Ping):
            self.mailbox.tell("pong", b'{"type":"pong"}')
        elif isinstance(wish, Rate):
            if not 0 < wish.hz <= MAX_HZ:
                raise Closed(4400, f"rate.hz must be above 0 and at most {MAX_HZ:g}")
            self.mailbox.hz = wish.hz

    async def _send(self) -> Closed | None:
        try:
            while True:
                for message in await self.mailbox.take():
                    await self.socket.send_text(message.data.decode())
                    if message.last and self.finishes:
                        return Closed(1000, "finished")
        except Closed as end:
            return end
        except (WebSocketDisconnect, RuntimeError):
            return None  # the client is gone: Starlette says so in either way

    finishes = False
    """Whether the end of a task ends the socket."""

    async def _read(self) -> Closed | None:
        try:
            while True:
                message = await self.socket.receive()
                if message["type"] == "websocket.disconnect":
                    return None
                await self.obey(wishes.decode(message, self._decoder))
        except Closed as end:
            return end


class TaskSession(Session):
    """`/ws/task/{id}`: one task, closed with 1000 after its end."""

    finishes = True

    async def obey(self, wish: Wish) -> None:
        if isinstance(wish, Cancel):
            self.mailbox.tell("error", encode({"type": "error", "detail": "this hub cannot cancel tasks"}))
        await super().obey(wish)


class ManySession(Session):
    """`/ws`: many tasks and the feed on one socket, which stays open when they end."""

    async def obey(self, wish: Wish) -> None:
        if isinstance(wish, Subscribe):
            if len(self.joined | {task.id for task in wish.tasks}) > MAX_TASKS:
                raise Closed(4400, f"one socket may watch at most {MAX_TASKS} tasks")
            if wish.feed is not None:
                await self._follow(wish.feed)
            await self._subscribe_all(list({task.id: task for task in wish.tasks}.values()))
        elif isinstance(wish, Unsubscribe):
            for task in wish.tasks:
                self.leave(task if isinstance(task, str) else task.id)
            if wish.feed is not None:
                self.services.feed.leave(self.mailbox)
        await super().obey(wish)

    async def _subscribe_all(self, tasks: list[Watched]) -> None:
        """Some at a time, as fast as the client takes the answers: what it asked for is not held against it."""
        for first in range(0, len(tasks), BATCH):
            await self.mailbox.emptied()
            joins = (self._subscribe(task) for task in tasks[first : first + BATCH])
            # All of them, also when one fails: a join that goes on alone would never be left again.
            for end in await asyncio.gather(*joins, return_exceptions=True):
                if end is not None:
                    raise end

    async def _subscribe(self, task: Watched) -> None:
        self.leave(task.id)
        try:
            await self.join(task.id, task.cursor)
        except Closed as refusal:
            if refusal.code == 1013:
                raise
            # One wrong task must not end the others' watch.
            answer = {"type": "error", "task_id": task.id, "code": refusal.code, "detail": refusal.reason}
            self.mailbox.tell("error", encode(answer))

    async def _follow(self, feed: str) -> None:
        if feed != "recent":
            raise Closed(4400, f"there is no feed {feed[:32]!r}: the one there is is recent")
        try:
            async with asyncio.timeout(JOIN_TIMEOUT):
                await self.services.feed.join(self.mailbox)
        except TimeoutError:
            raise Closed(1013, "the progress store is away, try again") from None


async def close(socket: WebSocket, end: Closed) -> None:
    """Close a socket, which may be gone already."""
    if socket.client_state is WebSocketState.CONNECTED and socket.application_state is WebSocketState.CONNECTED:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                # RFC 6455, 5.5: a control frame carries at most 125 bytes, 2 of them the code.
                await socket.close(end.code, end.reason.encode()[:120].decode(errors="ignore"))


async def _serve(socket: WebSocket, kind: type[Session], decoder: Any) -> None:
    services: Services = socket.app.state.services
    offered = socket.scope.get("subprotocols", [])
    # Accepted even when it is refused a moment later: a browser is shown no close code before the handshake.
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
    if not (origin_allowed(socket, services.settings) and host_allowed(socket, services.settings)):
        await close(socket, Closed(4403, "this origin is not allowed"))
        return
    if services.sockets >= services.settings.max_sockets:
        await close(socket, Closed(4429, "too many sockets"))
        return
    services.sockets += 1
    session = kind(socket, services, decoder)
    try:
        if kind is TaskSession:
            await session.join(socket.path_params["task_id"], socket.query_params.get("cursor"))
        await session.run()
    except Closed as refusal:
        await close(socket, refusal)
    except WebSocketDisconnect:
        return
    finally:
        services.sockets -= 1


async def task(socket: WebSocket) -> None:
    """`WS /ws/task/{id}`: snapshot, missed events, live events, then close 1000 after the terminal one."""
    await _serve(socket, TaskSession, wishes.one)


async def many(socket: WebSocket) -> None:
    """`WS /ws`: subscribe and unsubscribe at will."""
    await _serve(socket, ManySession, wishes.many)
