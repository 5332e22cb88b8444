"""One open connection to Redis pub/sub: from the bytes of the socket to whoever hears the channel.

There is no task, no queue and no await between a message and its listener: this is the hot path of the hub, once for
each event there is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import hiredis
import redis

logger = logging.getLogger(__name__)

PIECE = 16 * 1024
"""Bytes given to the parser at once. It moves what is left to the front of its buffer for every KiB it has parsed, so
that a whole chunk of uvloop (256 KiB) would cost twice as much for each message in it."""

_INCOMPLETE = object()
"""What the parser answers when the next reply has not arrived in full: none of the values a reply can have."""


class Line(asyncio.Protocol):
    """A transport, taken over from whoever has connected it. Any bytes that came before are theirs."""

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        hears: dict[bytes, Callable[[bytes], None]],
        answered: Callable[[object], None],
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        """From here on `hears`, by channel, is called with the payload of each message.

        `answered` is called with every other reply, and `turned` after all that arrived at once. An exception ends the
        line, and so does an answer that makes no sense; one that is raised by who hears a channel is logged.
        """
        loop = asyncio.get_running_loop()
        self.heard = False
        """Whether a byte has arrived since this was last set to False."""
        self.lost: asyncio.Future[Exception] = loop.create_future()
        """Done when the transport is closed, and nothing is heard any more; the result is why."""
        self._reason: Exception | None = None
        self._call_soon = loop.call_soon
        self._hears = hears
        self._answered = answered
        self._turned = turned
        self._unsent: list[bytes] = []
        self._paused = False
        reader = hiredis.Reader(
            protocolError=redis.InvalidResponse, replyError=redis.ResponseError, notEnoughData=_INCOMPLETE
        )
        self._feed, self._gets = reader.feed, reader.gets
        self._transport = transport
        transport.set_protocol(self)

    def send(self, packed: bytes) -> None:
        """Send a command; those of one turn of the loop leave in one write, in their order."""
        if not self._unsent:
            self._call_soon(self._flush)
        self._unsent.append(packed)

    async def aclose(self) -> None:
        """Close at once; what has not left yet is dropped."""
        self._transport.abort()
        await asyncio.wait({self.lost})

    def data_received(self, data: bytes) -> None:
        """Hear all that is complete."""
        self.heard = True
        try:
            if len(data) <= PIECE:
                self._hear(data)
            else:
                for start in range(0, len(data), PIECE):
                    self._hear(data[start : start + PIECE])
        except Exception as error:
            self._end(error)
        finally:
            self._turned()  # also what was heard before it failed

    def _hear(self, data: bytes) -> None:
        gets, hears = self._gets, self._hears
        self._feed(data)
        while (reply := gets()) is not _INCOMPLETE:
            try:
                kind, channel, payload = reply
            except (TypeError, ValueError):  # a pong, or an error
                self._answered(reply)
                continue
            if kind == b"smessage":
                try:
                    hears[channel](payload)
                except Exception:  # it must not silence all the others
                    if channel in hears:  # else it was sent before the server had heard that nobody listens any more
                        logger.exception("a listener failed")
            else:
                self._answered(reply)

    def eof_received(self) -> None:
        """The server has hung up: there is nobody left to flush for."""
        self._end(redis.ConnectionError("the server hung up"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed, whoever closed it."""
        if not self.lost.done():
            self.lost.set_result(self._reason or exc or redis.ConnectionError("the connection was closed"))

    def pause_writing(self) -> None:
        """The server reads more slowly than it is asked."""
        self._paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._paused = False
        self._flush()

    def _flush(self) -> None:
        if self._unsent and not self._paused and not self._transport.is_closing():
            self._transport.write(b"".join(self._unsent))
            self._unsent.clear()

    def _end(self, reason: Exception) -> None:
        self._reason = self._reason or reason
        self._transport.abort()


def command(*words: bytes) -> bytes:
    """A command as it goes over the wire (RESP2)."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
