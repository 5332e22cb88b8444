"""The WebSocket side: `/ws/task/{id}` for one task, `/ws` for many and for the feed of recent jobs.

On our own server a session takes its socket over (`hub.wire`) and is called when something happens. On any other ASGI
server two tasks serve the same session through plain `receive` and `send`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import Any

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from hub import wishes
from hub.backlog import Closed
from hub.mailbox import Mailbox
from hub.message import Message
from hub.security import host_allowed, origin_allowed
from hub.services import Services
from hub.session import ManySession, Session, TaskSession, Work
from hub.wire import EXTENSION, WireProtocol
from hub.writer import Gathered, Writer

log = structlog.get_logger()
access = structlog.get_logger("hub.access")

SUBPROTOCOL = "headway.v1"
CLOSE_TIMEOUT = 2.0
"""Seconds for which a plain close waits behind what a slow client has not taken yet."""


class _Attached:
    """A session that has taken its socket over. One thing at a time: what the client asks for meanwhile waits."""

    __slots__ = (
        "_began",
        "_busy",
        "_gone",
        "_protocol",
        "_request_id",
        "_services",
        "_session",
        "_waiting",
        "_work",
        "_writer",
    )

    def __init__(self, protocol: WireProtocol, services: Services, kind: type[Session]) -> None:
        self._protocol = protocol
        self._services = services
        self._began = time.monotonic()
        self._request_id = structlog.contextvars.get_contextvars().get("request_id")
        self._gone = False
        self._busy = True
        self._work: asyncio.Task[None] | None = None
        self._waiting: deque[dict[str, Any]] | None = None
        if kind.gathers:
            protocol.out = Gathered(protocol.loop, protocol.transport)
        self._writer = Writer(protocol, self)
        self._session = kind(services, self._writer)

    async def begin(self, socket: WebSocket) -> None:
        """Do what the address asks for, in the endpoint's own task; all that follows comes by `heard()`."""
        work = self._session.begin(socket)
        self._protocol.attach(self._writer)
        if work is None:
            self._done()
        else:
            await self._do(work)

    def heard(self, event: dict[str, Any]) -> None:
        if event["type"] == "websocket.disconnect":
            self._lost(event.get("code", 1005))
        elif self._writer.closed is not None:
            return  # said too late
        elif self._busy:
            if self._waiting is None:
                self._waiting = deque()
                self._protocol.hold()  # this and what has been read already is all that waits
            self._waiting.append(event)
        else:
            self._hear(event)

    def told(self, message: Message) -> None:
        if self._session.finishes:
            self._writer.close(1000, "finished")

    def _hear(self, event: dict[str, Any]) -> None:
        try:
            work = self._session.obey(wishes.decode(event, self._session.decoder))
        except Closed as end:
            self._writer.close(end.code, end.reason)
        else:
            if work is not None:
                self._busy = True
                self._work = self._protocol.spawn(self._do(work))

    async def _do(self, work: Work) -> None:
        try:
            await work
        except Closed as end:
            self._writer.close(end.code, end.reason)
        except Exception:
            log.exception("a socket failed", request_id=self._request_id)
            self._writer.close(1011, "internal error")
        finally:
            self._done()

    def _done(self) -> None:
        self._busy, self._work = False, None
        if self._gone:
            self._session.end()
            return
        while self._waiting and not self._busy:
            self.heard(self._waiting.popleft())
        if self._waiting is not None and not self._waiting:
            self._waiting = None
            self._protocol.release()

    def _lost(self, code: int) -> None:
        if self._gone:
            return
        self._gone = True
        self._services.sockets -= 1
        closed = self._writer.closed
        access.info(
            "request",
            method="WS",
            **self._session.names,
            request_id=self._request_id,
            code=code if closed is None else closed.code,
            seconds=round(time.monotonic() - self._began, 4),
        )
        self._writer.stop()
        if self._work is not None:
            self._protocol.loop.call_soon(self._work.cancel)  # it may not have begun, and would never end its session
        if not self._busy:
            self._session.end()


async def _converse(socket: WebSocket, session: Session, mailbox: Mailbox) -> None:
    """Serve a session through plain `receive` and `send`, until either side ends it."""

    async def send() -> Closed | None:
        try:
            while True:
                for message in await mailbox.take():
                    await socket.send_text(message.data.decode())
                    if message.last and session.finishes:
                        return Closed(1000, "finished")
        except Closed as end:
            return end
        except (WebSocketDisconnect, RuntimeError):
            return None  # the client is gone: Starlette says so in either way

    async def read() -> Closed | None:
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return None
                work = session.obey(wishes.decode(message, session.decoder))
                if work is not None:
                    await work
        except Closed as end:
            return end

    sending, reading = asyncio.create_task(send()), asyncio.create_task(read())
    mailbox.on_overflow = sending.cancel  # it may wait on the very socket that does not take anything
    try:
        await asyncio.wait({sending, reading}, return_when=asyncio.FIRST_COMPLETED)
        ends = [task.result() for task in (reading, sending) if task.done() and not task.cancelled()]
        end = ends[0] if ends else mailbox.closed
    finally:
        for task in (sending, reading):
            task.cancel()
        await asyncio.gather(sending, reading, return_exceptions=True)
    if end is not None:
        await close(socket, end)


async def close(socket: WebSocket, end: Closed) -> None:
    """Close a socket, which may be gone already."""
    if socket.client_state is WebSocketState.CONNECTED and socket.application_state is WebSocketState.CONNECTED:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await socket.close(end.code, end.text)


def _refusal(socket: WebSocket, services: Services) -> Closed | None:
    """Why a socket may not watch at all."""
    if not (origin_allowed(socket, services.settings) and host_allowed(socket, services.settings)):
        return Closed(4403, "this origin is not allowed")
    if services.sockets >= services.settings.max_sockets:
        return Closed(4429, "too many sockets")
    return None


async def _serve(socket: WebSocket, kind: type[Session]) -> None:
    services: Services = socket.app.state.services
    offered = socket.scope.get("subprotocols", [])
    # Accepted even when it is refused a moment later: a browser is shown no close code before the handshake.
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
    if refusal := _refusal(socket, services):
        await close(socket, refusal)
        return
    services.sockets += 1
    protocol = socket.scope.get("extensions", {}).get(EXTENSION)
    if protocol is not None:
        await _Attached(protocol, services, kind).begin(socket)
        return
    mailbox = Mailbox()
    session = kind(services, mailbox)
    try:
        if work := session.begin(socket):
            await work
        await _converse(socket, session, mailbox)
    except Closed as end:
        await close(socket, end)
    except WebSocketDisconnect:
        return
    finally:
        session.end()
        services.sockets -= 1


async def task(socket: WebSocket) -> None:
    """`WS /ws/task/{id}`: snapshot, missed events, live events, then close 1000 after the terminal one."""
    await _serve(socket, TaskSession)


async def many(socket: WebSocket) -> None:
    """`WS /ws`: subscribe and unsubscribe at will."""
    await _serve(socket, ManySession)
