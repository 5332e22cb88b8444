"""uvicorn's WebSocket protocol, from which an app may take a socket over.

uvicorn goes on to do what it does well: the handshake, ping and pong, the closing handshake. What changes once the app
has called `attach()`: it writes frames through a `Writer`, hears the client through a plain method call, and its
endpoint returns. No coroutine, queue or scope is kept for a socket that only listens, and most of the memory of one
goes with them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Coroutine
from typing import Any, cast

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.http11 import Request
from websockets.protocol import Protocol as WebSocket
from websockets.protocol import State

from hub.backlog import Closed
from hub.beat import Beat
from hub.writer import Gathered, Listener, Writer

logger = logging.getLogger(__name__)
# Of every handshake uvicorn and websockets write two lines, with the query, where tokens may be. hub.websocket writes
# one of every socket, at its end.
logger.setLevel(logging.WARNING)

EXTENSION = "headway.wire"
"""Where an app finds its socket's protocol: in `scope["extensions"]`, when the server speaks it."""
SEND_BUFFER = 32 * 1024
"""Bytes the kernel holds for one client (Linux doubles it for its own use). What lies there is sent, however old."""
WRITE_LIMIT = 64 * 1024
"""Bytes that wait in the transport; beyond that a watcher's progress is conflated until it has drained."""
DRAINED = WRITE_LIMIT // 4
CLOSE_TIMEOUT = 5.0
"""Seconds a client has to answer a close, and to take what was sent before it; then it is cut off."""


class WireProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, which lets an app take a socket over."""

    # What uvicorn sets on each of its protocols: as slots it takes a sixth of the memory that a dictionary does. What a
    # later uvicorn adds to it goes into one.
    __slots__ = (
        "app", "app_state", "asgi_version", "client", "close_sent", "close_timeout", "close_timer", "config", "conn",
        "connections", "curr_msg_data_type", "default_headers", "disconnected", "frames", "handshake_complete",
        "handshake_initiated", "held", "initial_response", "last_ping_rtt", "logger", "loop", "out",
        "pending_ping_payload", "ping_interval", "ping_sent_at", "ping_timeout", "ping_timer", "pong_timer", "queue",
        "read_paused", "request", "response", "root_path", "scheme", "scope", "sector", "server", "tasks", "transport",
        "writable", "writer",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = self.conn.logger = logger
        self.conn.debug = False
        self.writer: Writer | None = None
        self.out: asyncio.WriteTransport | Gathered
        """Where the frames of an app go that has taken the socket over."""
        self.held = False
        """Whether nothing is read, since the client has asked for more than has been done."""
        self.sector = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvicorn's HTTP protocol hands its connection over. It and its parser refer to each other, and would stay.
        vars(cast("asyncio.Transport", transport).get_protocol()).pop("parser", None)
        super().connection_made(transport)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["extensions"][EXTENSION] = cast("dict[object, object]", self)
            # The parser that has read the request keeps it. uvicorn hands over no more than the request in its first
            # chunk, so a new one begins where that one is.
            self.conn.parser = WebSocket.parse(self.conn)
            next(self.conn.parser)
            self.out = self.transport

    def attach(self, writer: Writer) -> None:
        """Take the accepted socket over: from now on it is written through the writer and heard by its listener.

        The endpoint may return; the socket stays open until one side closes it.
        """
        _bound(self.transport)
        self.transport.set_write_buffer_limits(high=WRITE_LIMIT, low=DRAINED)
        self.writer = writer
        before, self.queue = self.queue, cast("asyncio.Queue[Any]", _Ear(writer.listener))
        if self.read_paused:
            self.transport.resume_reading()
        self.read_paused = True  # uvicorn pauses after each message unless it thinks it has; a listener takes them all
        while not before.empty():
            writer.listener.heard(cast("dict[str, Any]", before.get_nowait()))

    def hold(self) -> None:
        """Read nothing for now."""
        self.held = True
        self.transport.pause_reading()

    def release(self) -> None:
        """Read again."""
        self.held = False
        self.pending_ping_payload = None  # the answer may be among what has not been read
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what a client has asked for; the server waits for it at the end, as it does for endpoints."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def finish(self, end: Closed) -> None:
        """Close, after what has been written."""
        if self.conn.state is not State.OPEN or self.transport.is_closing():
            return
        self.conn.send_close(end.code, end.text)
        self.out.write(b"".join(self.conn.data_to_send()))
        if isinstance(self.out, Gathered):
            self.out.flush()  # a shutdown in this turn closes the transport
        self.close_sent = True
        self.close_timer = self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    def handle_ping(self) -> None:
        if self.conn.state is not State.OPEN:
            return  # the echo of a close may be behind the pong, and answers before it
        if self.transport.get_write_buffer_size() > WRITE_LIMIT:
            self.conn.data_to_send()  # dropped: who takes no answers shall not have them pile up (RFC 6455, 5.5.3)
            return
        super().handle_ping()

    def pause_writing(self) -> None:
        if self.writer is None:
            super().pause_writing()
        else:
            self.writer.pause()

    def resume_writing(self) -> None:
        if self.writer is None:
            super().resume_writing()
            return
        if self.held:
            self.pending_ping_payload = None  # it takes what it is sent; its answer nobody looks for
        self.writer.resume()

    def start_keepalive(self) -> None:
        if self.ping_interval:
            self.sector = Beat.of(self.loop, self.ping_interval).add(self)

    def stop_keepalive(self) -> None:
        if self.sector >= 0 and self.ping_interval:
            Beat.of(self.loop, self.ping_interval).remove(self, self.sector)
            self.sector = -1

    def beat(self) -> None:
        """Once every `ping_interval`: the answer to the last ping is due, and so is the next one."""
        if self.close_timer is not None:
            return  # it is about to be cut off
        if self.pending_ping_payload is None:
            self.pending_ping_payload = secrets.token_bytes(4)
            self.ping_sent_at = self.loop.time()
            if self.conn.state is State.OPEN and not self.transport.is_closing():
                self.conn.send_ping(self.pending_ping_payload)
                self.transport.write(b"".join(self.conn.data_to_send()))
        elif self.transport.is_closing() or self.transport.get_write_buffer_size() > (DRAINED if self.held else 0):
            self.transport.abort()  # it takes nothing: a close would wait behind that for ever
        elif not self.held:  # else it may well have answered: nobody has looked
            if self.writer is not None:
                self.writer.stop()
            self.keepalive_timeout()
            self.close_timer = self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    def shutdown(self) -> None:
        if self.handshake_complete and self.conn.state is not State.OPEN:
            self.transport.close()  # uvicorn would send a second close
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # Nothing refers to itself any more: all of it goes now, and not at some later garbage collection.
        del self.conn.parser
        if self.writer is not None:
            self.writer.gone()
            self.writer = None
            del self.queue

    async def run_asgi(self) -> None:
        """As uvicorn's, but that a socket which has been taken over stays open when the endpoint returns."""
        try:
            await self.app(cast("Scope", self.scope), self.receive, self.send)
        except ClientDisconnected:
            pass
        except BaseException:
            self.logger.exception("Exception in ASGI application\n")
            self.send_500_response()
            self.transport.close()
        else:
            self._returned()
        finally:
            # What only the handshake and the endpoint needed. The scope refers to this.
            del self.scope, self.request, self.response, self.app_state

    def _returned(self) -> None:
        if self.writer is not None:
            self.writable = _WRITABLE
        elif not self.handshake_complete:
            self.logger.error("ASGI callable returned without completing handshake.")
            self.send_500_response()
            self.transport.close()
        elif self.close_timer is None:
            self.transport.close()


_WRITABLE = asyncio.Event()
"""In the place of an event for each socket, on which only an endpoint would wait."""
_WRITABLE.set()


class _Ear:
    """Stands where uvicorn puts what an endpoint would receive."""

    __slots__ = ("_listener",)

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def put_nowait(self, event: dict[str, Any]) -> None:
        self._listener.heard(event)


def _bound(transport: asyncio.Transport) -> None:
    """A client that reads slowly shall find news in what it reads, and not what has lain in the kernel for minutes."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
