"""The one Redis pub/sub connection of a process.

redis-py connects: addresses, AUTH, TLS, Sentinel are its business. Then a `Line` takes its transport over, and calls
the listener of each message. redis-py's own `PubSub` costs many times as much for each message, subscribes again in
silence after a break, and never notices a half-open connection. Here every SSUBSCRIBE is acknowledged to whoever asked,
a connection that is silent for too long is given up, and after every break each listener is told that it may have
missed something.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import redis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection

from hub.line import Line, command

logger = logging.getLogger(__name__)

PING_INTERVAL = 1.0
"""Seconds between two questions whether the server is there."""
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


class _Question:
    """One SSUBSCRIBE of a channel on its way, and whoever waits for its acknowledgement."""

    __slots__ = ("renewal", "waiting")

    def __init__(self, waiting: list[asyncio.Future[None]], *, renewal: bool) -> None:
        self.waiting = waiting
        self.renewal = renewal
        """Whether the listener had this channel before the connection broke."""


class Link:
    """Subscriptions to sharded channels, one listener each. `run()` must be running."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._pool: Any = client.connection_pool  # its make_connection() is not annotated
        self._listeners: dict[bytes, Listener] = {}
        self._hears: dict[bytes, Callable[[bytes], None]] = {}
        """The `received` of each listener, looked up once and not for each message."""
        self._asked: dict[bytes, deque[_Question]] = {}
        """What has been asked of each channel; the server answers in the order of the questions."""
        self._line: Line | None = None
        self.turned: Callable[[], None] = lambda: None
        """Called when the listeners have heard all that has arrived at once."""
        self.connected = asyncio.Event()

    async def subscribe(self, channel: str, listener: Listener) -> None:
        """Listen to a channel; returns when the server has acknowledged it, however long Redis is away until then."""
        name = channel.encode()
        self._listeners[name] = listener
        self._hears[name] = listener.received
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(name, deque()).append(_Question([asked], renewal=False))
        self._send(b"SSUBSCRIBE", name)
        await asked

    async def unsubscribe(self, channel: str, listener: Listener) -> None:
        """Stop listening, unless somebody else has taken the channel over meanwhile."""
        name = channel.encode()
        if self._listeners.get(name) is listener:
            del self._listeners[name], self._hears[name]
            if not self.connected.is_set():
                self._give_up(name)
            self._send(b"SUNSUBSCRIBE", name)

    def hears(self, channel: str) -> bool:
        """Whether what is published there arrives: not before the acknowledgement, nor during a break."""
        name = channel.encode()
        return self.connected.is_set() and name in self._listeners and name not in self._asked

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        clock = asyncio.get_running_loop().time
        delay = BACKOFF[0]
        while True:
            connection: AbstractConnection = self._pool.make_connection()
            # The limit below holds instead: redis-py's own is a wait_for(), which may lose a cancel (Python 3.11).
            connection.socket_timeout = None
            opened = math.inf
            try:
                async with asyncio.timeout(SILENCE_LIMIT):
                    await connection.connect()  # type: ignore[no-untyped-call]  # redis-py has not annotated it
                opened = clock()
                await self._converse(await self._take_over(connection))
            except (redis.RedisError, OSError) as error:  # TimeoutError is an OSError
                logger.warning("the link to Redis is down: %s", str(error) or repr(error))
            except Exception:
                logger.exception("the link to Redis failed")
            finally:
                with contextlib.suppress(redis.RedisError, OSError):
                    await connection.disconnect(nowait=True)
            if clock() - opened > SILENCE_LIMIT:  # not for one that is refused as soon as it is open, again and again
                delay = BACKOFF[0]
            await asyncio.sleep(delay)
            delay = min(BACKOFF[1], delay * 2)

    async def _take_over(self, connection: AbstractConnection) -> Line:
        writer = connection._writer  # noqa: SLF001  # redis-py has no other way to its transport
        # Nothing is due after the handshake: what is there was not asked for, or is the end of the stream.
        if writer is None or writer.is_closing() or await connection.can_read():
            raise redis.ConnectionError("the server hung up, or spoke before it was asked")
        return Line(writer.transport, self._hears, self._answered, self.turned)

    async def _converse(self, line: Line) -> None:
        """Restore the subscriptions and see that the server stays there; raises why it did not."""
        silent = 0.0
        try:
            self._line = line
            self._restore()
            while not line.lost.done():
                line.heard = False
                line.send(command(b"PING"))
                await asyncio.wait({line.lost}, timeout=PING_INTERVAL)
                # Counted by the pings and not by the clock: a hub that stood still itself has not listened meanwhile.
                silent = 0.0 if line.heard else silent + PING_INTERVAL
                if silent >= SILENCE_LIMIT:
                    raise redis.ConnectionError(f"no answer for {silent:g} s")
            raise line.lost.result()
        finally:
            self.connected.clear()
            self._line = None
            await line.aclose()

    def _restore(self) -> None:
        """Ask for every subscription again, on a new connection that knows of none."""
        self.connected.set()
        for name in [name for name in self._asked if name not in self._listeners]:
            self._give_up(name)
        for name in self._listeners:
            questions = self._asked.pop(name, ())
            waiting = [asked for question in questions for asked in question.waiting if not asked.done()]
            # Somebody still waits for the first acknowledgement: there was nothing to miss before it.
            self._asked[name] = deque([_Question(waiting, renewal=not waiting)])
            self._send(b"SSUBSCRIBE", name)

    def _give_up(self, name: bytes) -> None:
        """Nobody listens there any more, and no answer will come from the connection that broke."""
        for question in self._asked.pop(name, ()):
            for asked in question.waiting:
                asked.cancel()

    def _answered(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise reply
        if not isinstance(reply, list) or len(reply) != 3:
            return  # a pong
        kind, channel, _ = reply
        if kind == b"ssubscribe":
            self._acknowledged(channel)
        elif kind == b"sunsubscribe" and channel in self._listeners and not self._asked.get(channel):
            raise redis.ConnectionError("the server dropped a subscription")  # its slot has moved

    def _acknowledged(self, channel: bytes) -> None:
        questions = self._asked[channel]
        question = questions.popleft()
        if not questions:
            del self._asked[channel]
        for asked in question.waiting:
            if not asked.done():
                asked.set_result(None)
        listener = self._listeners.get(channel)
        if question.renewal and listener is not None:
            try:
                listener.restored()
            except Exception:
                logger.exception("a listener failed")

    def _send(self, *words: bytes) -> None:
        """Send on the current connection; when it is away, `_restore` asks for what is listened to by then."""
        if self._line is not None:
            self._line.send(command(*words))
