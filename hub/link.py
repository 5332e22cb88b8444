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
from collections.abc import Callable
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
        self._asked: dict[bytes, deque[_Question]] = {}
        """What has been asked of each channel; the server answers in the order of the questions."""
        self._outbox: asyncio.Queue[tuple[bytes, ...]] = asyncio.Queue()
        """Commands for the current connection. One task sends them: whoever is cancelled half-way disturbs no order."""
        self._heard = 0.0
        self.connected = asyncio.Event()

    async def subscribe(self, channel: str, listener: Listener) -> None:
        """Listen to a channel; returns when the server has acknowledged it, however long Redis is away until then."""
        name = channel.encode()
        self._listeners[name] = listener
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(name, deque()).append(_Question([asked], renewal=False))
        self._send(b"SSUBSCRIBE", name)
        await asked

    async def unsubscribe(self, channel: str, listener: Listener) -> None:
        """Stop listening, unless somebody else has taken the channel over meanwhile."""
        name = channel.encode()
        if self._listeners.get(name) is listener:
            del self._listeners[name]
            if not self.connected.is_set():
                self._give_up(name)
            self._send(b"SUNSUBSCRIBE", name)

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        clock = asyncio.get_running_loop().time
        delay = BACKOFF[0]
        while True:
            connection: AbstractConnection = self._pool.make_connection()
            opened = math.inf
            try:
                async with asyncio.timeout(SILENCE_LIMIT):
                    await connection.connect()  # type: ignore[no-untyped-call]  # redis-py has not annotated it
                # `_watch` is the time limit: redis-py's own is a wait_for(), which may lose a cancel (Python 3.11).
                connection.socket_timeout = None
                opened = clock()
                async with asyncio.TaskGroup() as tasks:
                    self._restore()
                    tasks.create_task(self._speak(connection))
                    tasks.create_task(self._listen(connection))
                    tasks.create_task(self._watch())
            except* (redis.RedisError, OSError, TimeoutError) as errors:
                logger.warning("the link to Redis is down: %s", errors.exceptions[0])
            except* Exception:
                # An answer that makes no sense, or a bug: it may cost this connection, and never all watchers theirs.
                logger.exception("the link to Redis failed")
            finally:
                self.connected.clear()
                with contextlib.suppress(redis.RedisError, OSError):
                    await connection.disconnect(nowait=True)
            if clock() - opened > SILENCE_LIMIT:  # not for one that is refused as soon as it is open, again and again
                delay = BACKOFF[0]
            await asyncio.sleep(delay)
            delay = min(BACKOFF[1], delay * 2)

    def _restore(self) -> None:
        """Ask for every subscription again, on a new connection that knows of none."""
        self._heard = asyncio.get_running_loop().time()
        self._outbox = asyncio.Queue()
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

    async def _speak(self, connection: AbstractConnection) -> None:
        while True:
            commands = [await self._outbox.get()]
            while not self._outbox.empty():
                commands.append(self._outbox.get_nowait())
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)

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
                    _tell(listener.received, payload)
            elif kind == b"ssubscribe":
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
            _tell(listener.restored)

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(PING_INTERVAL)
            silent = clock() - self._heard
            if silent > SILENCE_LIMIT:
                raise redis.ConnectionError(f"no answer for {silent:.1f} s")
            if silent >= PING_INTERVAL / 2:
                self._send(b"PING")

    def _send(self, *command: bytes) -> None:
        """Send on the current connection; when it is away, `_restore` asks for what is listened to by then."""
        if self.connected.is_set():
            self._outbox.put_nowait(command)


def _tell(hear: Callable[..., None], *message: bytes) -> None:
    """Call a listener. One that fails must not silence all the others."""
    try:
        hear(*message)
    except Exception:
        logger.exception("a listener failed")
