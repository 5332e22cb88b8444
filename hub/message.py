"""One message to watchers, encoded and framed once for all of them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headway.events import Cursor, Envelope, encode

MessageType = Literal["snapshot", "progress", "state", "log", "error", "pong", "feed"]

TYPES: dict[bytes, MessageType] = {b"p": "progress", b"s": "state", b"t": "state", b"l": "log"}
"""The kind in an event's routing line → its type."""


class Message(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Immutable, and shared by everybody who is sent it. `gc=False`: it refers to nothing that could refer to it."""

    type: MessageType
    frame: bytes
    """The JSON object as a WebSocket frame, ready to be written."""
    task_id: str = ""
    """Empty for what is no event of a task: an answer to the watcher, or of the feed."""
    epoch: int = 0
    seq: int = 0
    prev: int = 0
    last: bool = False
    """Whether its task has ended with it."""

    @classmethod
    def of(cls, task_id: str, envelope: Envelope) -> Message:
        """A task's event."""
        return cls(
            type=TYPES[envelope.kind.encode()],
            frame=frame(envelope.data),
            task_id=task_id,
            epoch=envelope.epoch,
            seq=envelope.seq,
            prev=envelope.prev,
            last=envelope.terminal,
        )

    @classmethod
    def snapshot(
        cls, task_id: str, cursor: Cursor, kept: int, rest: bytes, recovered: bool | None, *, ended: bool
    ) -> Message:
        """A task's present; `rest` are an event's members from `attempt` on."""
        tail = b"" if recovered is None else b',"recovered":true' if recovered else b',"recovered":false'
        data = event("snapshot", task_id, cursor, kept, rest + tail)
        return cls(
            type="snapshot",
            frame=frame(data),
            task_id=task_id,
            epoch=cursor.epoch,
            seq=cursor.seq,
            prev=kept,
            last=ended,
        )

    @property
    def data(self) -> bytes:
        """The JSON object."""
        return self.frame[_HEADERS[self.frame[1]] :]

    @property
    def cursor(self) -> Cursor | None:
        """Where a watcher stands once it has it; None where it must not resume from."""
        return Cursor(self.epoch, self.seq) if self.epoch else None


def answer(type: MessageType, **content: Any) -> Message:  # noqa: A002
    """A message of this hub that is no event of a task."""
    return Message(type=type, frame=frame(encode({"type": type, **content})))


_HEADERS = dict.fromkeys(range(126), 2) | {126: 4, 127: 10}
"""The length in a frame's second byte → bytes before its payload."""


def event(type: MessageType, task_id: str, cursor: Cursor, prev: int, rest: bytes) -> bytes:  # noqa: A002
    """An event as the publish script writes it."""
    return b'{"v":1,"type":"%b","task_id":%b,"cursor":"%d-%d","seq":%d,"prev":%d,%b}' % (
        type.encode(), encode(task_id), cursor.epoch, cursor.seq, cursor.seq, prev, rest,
    )  # fmt: skip


def frame(data: bytes) -> bytes:
    """A text message as one frame of the server, unmasked: the same bytes do for every client. (RFC 6455, 5.2.)"""
    size = len(data)
    if size < 126:
        return bytes((0x81, size)) + data
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + data
    return b"\x81\x7f" + size.to_bytes(8, "big") + data
