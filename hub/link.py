"""The one Redis pub/sub connection of a process.

It speaks on a bare redis-py connection, not through its `PubSub`: that one subscribes again in silence after a break,
and never notices a half-open connection. Here every SSUBSCRIBE is acknowledged to whoever asked, a connection that is
silent for too long is given up, and after every break each listener is told that it may have missed something.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from typing import Any, Protocol

import redis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection

logger = logging.getLogger(__name__)

PING_INTERVAL = 1.0
"""Seconds of silence before the server is asked whether it is there."""
SILENCE_LIMIT = 3.0
"""Seconds of silence after which the connection is taken for dead."""
BACKOFF = (0.05, 1.0)
"""Seconds until the next connection is tried: at first, and at most."""


class Listener(Protocol):
    """Who hears a channel."""

    def received(self, payload: bytes) -> None:
        """A message."""

    def restored(self) -> None:
        """The subscription holds again after a break: messages may have been lost before this moment."""


class Link:
    """Subscriptions to sharded channels, one listener each. `run()` must be running."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._pool: Any = client.connection_pool  # its make_connection() is not annotated
        self._connection: AbstractConnection | None = None
        self._listeners: dict[bytes, Listener] = {}
        self._asked: dict[bytes, deque[asyncio.Future[None]]] = {}
        """Who waits for the acknowledgement of which SSUBSCRIBE; the server answers in the order of the questions."""
        self._broken: set[bytes] = set()
        self._heard = 0.0
        self.connected = asyncio.Event()

    async def subscribe(self, channel: str, listener: Listener) -> None:
        """Listen to a channel; returns when the server has acknowledged it, however long Redis is away until then."""
        name = channel.encode()
        self._listeners[name] = listener
        asked = asyncio.get_running_loop().create_future()
        self._asked.setdefault(name, deque()).append(asked)
        await self._send(b"SSUBSCRIBE", name)
        await asked

    async def unsubscribe(self, channel: str, listener: Listener) -> None:
        """Stop listening, unless somebody else has taken the channel over meanwhile."""
        name = channel.encode()
        if self._listeners.get(name) is listener:
            del self._listeners[name]
            self._broken.discard(name)
            await self._send(b"SUNSUBSCRIBE", name)

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        delay = BACKOFF[0]
        while True:
            connection: AbstractConnection = self._pool.make_connection()
            try:
                async with asyncio.timeout(SILENCE_LIMIT):
                    await connection.connect()  # type: ignore[no-untyped-call]  # redis-py has not annotated it
                await self._restore(connection)
                delay = BACKOFF[0]
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._listen(connection))
                    tasks.create_task(self._watch(connection))
            except* (redis.RedisError, OSError, TimeoutError) as errors:
                logger.warning("the link to Redis is down: %s", errors.exceptions[0])
            finally:
                self._connection = None
                self.connected.clear()
                with contextlib.suppress(redis.RedisError, OSError):
                    await connection.disconnect(nowait=True)
            await asyncio.sleep(delay)
            delay = min(BACKOFF[1], delay * 2)

    async def _restore(self, connection: AbstractConnection) -> None:
        """Ask for every subscription again. One acknowledgement a channel answers everybody who waits for it."""
        self._heard = asyncio.get_running_loop().time()
        self._broken = set(self._listeners)
        self._connection = connection
        if self._listeners:
            await connection.send_command(b"SSUBSCRIBE", *self._listeners, check_health=False)
        self.connected.set()

    async def _listen(self, connection: AbstractConnection) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            reply = await connection.read_response(disable_decoding=True, timeout=math.inf)
            self._heard = clock()
            if not isinstance(reply, list) or len(reply) != 3:
                continue  # a pong
            kind, channel, payload = reply
            if kind == b"smessage":
                listener = self._listeners.get(channel)
                if listener is not None:
                    listener.received(payload)
            elif kind == b"ssubscribe":
                self._acknowledged(channel)
            elif kind == b"sunsubscribe" and channel in self._listeners and not self._asked.get(channel):
                raise redis.ConnectionError("the server dropped a subscription")  # its slot has moved

    def _acknowledged(self, channel: bytes) -> None:
        asked = self._asked.get(channel, deque())
        restored = channel in self._broken
        # The first acknowledgement after a break counts for all that were asked on the connection that broke.
        for _ in range(len(asked) if restored else min(1, len(asked))):
            future = asked.popleft()
            if not future.done():
                future.set_result(None)
        if not asked:
            self._asked.pop(channel, None)
        if restored:
            self._broken.discard(channel)
            self._listeners[channel].restored()

    async def _watch(self, connection: AbstractConnection) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(PING_INTERVAL)
            silent = clock() - self._heard
            if silent > SILENCE_LIMIT:
                raise redis.ConnectionError(f"no answer for {silent:.1f} s")
            if silent >= PING_INTERVAL / 2:
                await connection.send_command(b"PING", check_health=False)

    async def _send(self, command: bytes, channel: bytes) -> None:
        """Send on the current connection; when it is away, `_restore` asks for what is listened to by then."""
        connection = self._connection
        if connection is None:
            return
        try:
            await connection.send_command(command, channel, check_health=False)
        except (redis.RedisError, OSError) as error:
            logger.warning("the link to Redis broke while sending: %s", error)  # the listening side ends with it
