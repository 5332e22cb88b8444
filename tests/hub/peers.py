"""A WebSocket client that does what no library would, and sees every byte that comes back."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import redis
from websockets.frames import Frame, Opcode

from headway import keys
from headway.store import Position
from tests.hub.envelopes import Publisher, payload_of
from tests.hub.running import Hub, Task


class Heard(NamedTuple):
    """A frame of the server."""

    opcode: int
    data: bytes

    @property
    def code(self) -> int:
        """Of a close."""
        assert self.opcode == Opcode.CLOSE
        return int.from_bytes(self.data[:2], "big")

    @property
    def event(self) -> dict[str, Any]:
        """Of a message."""
        assert self.opcode == Opcode.TEXT
        event: dict[str, Any] = json.loads(self.data)
        return event


def text(message: Any, *, fin: bool = True, opcode: Opcode = Opcode.TEXT) -> bytes:
    """A client's message, or a fragment of one; anything but text as JSON."""
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    return Frame(opcode, data, fin).serialize(mask=True)


def control(opcode: Opcode, data: bytes = b"") -> bytes:
    """A client's ping, pong or close."""
    return Frame(opcode, data).serialize(mask=True)


def close(code: int) -> bytes:
    """A client's close."""
    return control(Opcode.CLOSE, code.to_bytes(2, "big"))


def handshake(path: str) -> bytes:
    """A client's request."""
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


class Peer:
    """An open connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def accepted(self) -> None:
        """Read the answer to the handshake."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 101 "), head

    async def frame(self) -> Heard:
        """The next frame; `IncompleteReadError` at the end, also in the middle of one."""
        first, size = await asyncio.wait_for(self.reader.readexactly(2), 15)
        assert first & 0x80, "a fragment"
        assert not size & 0x80, "a server does not mask"
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly({126: 2, 127: 8}[size]), "big")
        return Heard(first & 0x0F, await asyncio.wait_for(self.reader.readexactly(size), 15))

    async def event(self) -> dict[str, Any]:
        """The next message; pings are passed over."""
        while (heard := await self.frame()).opcode == Opcode.PING:
            pass
        return heard.event

    async def rest(self) -> list[Heard]:
        """Every frame until the server hangs up; half a frame is an error."""
        frames = []
        try:
            while True:
                frames.append(await self.frame())
        except ConnectionResetError:
            return frames
        except asyncio.IncompleteReadError as end:
            if end.partial:
                raise
            return frames

    async def aclose(self) -> None:
        """Drop the connection."""
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def connecting(hub: Hub, receive_buffer: int | None = None, limit: int = 2**16) -> AsyncIterator[Peer]:
    """A connection to a hub on which nothing was said yet. `limit` and `receive_buffer` are bytes taken unread."""
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", int(hub.url.rpartition(":")[2])))
    options = {"ssl": hub.trust, "server_hostname": "127.0.0.1"} if hub.trust else {}
    peer = Peer(*await asyncio.open_connection(sock=connection, limit=limit, **options))
    try:
        yield peer
    finally:
        await peer.aclose()


@contextlib.asynccontextmanager
async def open_at(hub: Hub, path: str, **options: Any) -> AsyncIterator[Peer]:
    """An accepted WebSocket."""
    async with connecting(hub, **options) as peer:
        peer.writer.write(handshake(path))
        await peer.accepted()
        yield peer


class Burst:
    """Publishes what a task's events would be, as many at once as one likes."""

    def __init__(self, client: redis.Redis, task: Task, position: Position) -> None:
        """`position` is that of the task's last event, a kept one."""
        self._client = client
        self._publisher = Publisher(task.id, position.epoch)
        self._publisher.seq = self._publisher.kept = position.seq
        self._channel = keys.of(task.id).channel

    @property
    def seq(self) -> int:
        """Of the newest event."""
        return self._publisher.seq

    def send(self, count: int, kind: str = "p", text: str = "a line") -> None:
        """Events that reach the hub in one piece."""
        with self._client.pipeline() as pipe:  # a transaction: nobody is written to before its end
            for _ in range(count):
                envelope = self._publisher.progress() if kind == "p" else self._publisher.said(text)
                pipe.execute_command("SPUBLISH", self._channel, payload_of(envelope))
            pipe.execute()

    @contextlib.contextmanager
    def running(self) -> Any:
        """Without end, until the block is left."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(0.001):
                self.send(10)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
