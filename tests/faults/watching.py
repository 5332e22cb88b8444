"""Watchers on bare sockets, whose reading is in the hands of a test, and which believe nothing that they are told."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import selectors
import socket
import struct
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

TEXT, CLOSE, PING = 1, 8, 9
"""Opcodes. (RFC 6455, 5.2.)"""
CUT = 0
"""In the place of a close code: the connection ended without one."""

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_EVENT = re.compile(rb'\{"v":1,"type":"(\w+)","task_id":"([^"]*)","cursor":"(\d+)-\d+","seq":(\d+),"prev":(\d+),')


class Event(NamedTuple):
    """What of an event says where it belongs."""

    type: str
    task_id: str
    epoch: int
    seq: int
    prev: int
    recovered: bool | None


@functools.lru_cache(256)
def event_of(data: bytes) -> Event | None:
    """The event in a message, the same bytes for many; None for an answer that is none."""
    head = _EVENT.match(data)
    if head is None:
        return None
    recovered = json.loads(data).get("recovered") if head[1] == b"snapshot" else None
    return Event(head[1].decode(), head[2].decode(), int(head[3]), int(head[4]), int(head[5]), recovered)


class Chain:
    """What one watcher has been told of one task; AssertionError for what is missing, doubled or out of order."""

    def __init__(self) -> None:
        self.epoch = self.seq = 0
        self.kept = -1
        """`seq` of the last state or log event; -1 before the snapshot."""
        self.counts: Counter[str] = Counter()
        self.restarts = 0
        """How often it was told that it cannot know what it has missed."""
        self.newest = b""
        """The last message but log lines, which do not say the task's state."""

    def add(self, event: Event, data: bytes) -> None:
        """The next message of the task."""
        self.counts[event.type] += 1
        if event.type != "log":
            self.newest = data
        if event.type == "snapshot":
            assert self.kept < 0 or event.recovered is False, f"a second snapshot: {data!r:.200}"
            self.restarts += event.recovered is False
            self.epoch, self.kept = event.epoch, event.prev
        else:
            assert event.epoch == self.epoch, f"of another life: {data!r:.200}"
            assert event.seq > self.seq, f"after {self.seq}: {data!r:.200}"
            assert event.prev == self.kept, f"after {self.kept}: {data!r:.200}"
            if event.type != "progress":
                self.kept = event.seq
        self.seq = event.seq


class Watcher:
    """One WebSocket. Nothing is read unless somebody calls `read()`, which also answers pings."""

    def __init__(self, port: int, path: str, *, buffer: int | None = None) -> None:
        """`buffer` are the bytes that the kernel holds for it; `begin()` has to follow."""
        self.socket = socket.socket()
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(HANDSHAKE.format(path=path, port=port).encode())
        self.chains: defaultdict[str, Chain] = defaultdict(Chain)
        self.answers: list[bytes] = []
        """Messages that are no events."""
        self.code: int | None = None
        """How it ended."""
        self.rest = b""
        """The beginning of a frame, whose end has not come."""

    def begin(self) -> Watcher:
        """Take the server's part of the handshake, and not a byte more."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
            assert head, "no answer to a handshake"
        assert head.startswith(b"HTTP/1.1 101"), head
        return self

    @property
    def chain(self) -> Chain:
        """Of the only task it watches."""
        (chain,) = self.chains.values()
        return chain

    def read(self, size: int = 65_536) -> None:
        """Take what is there, or wait for it."""
        try:
            data = self.socket.recv(size)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.code = CUT
            return
        data, offset = self.rest + data, 0
        for opcode, begin, end in frames(data):
            offset = end
            if opcode == TEXT:
                self._told(data[begin:end])
            elif opcode == PING:
                with contextlib.suppress(OSError):  # the server may be gone
                    # Masked with zeros, and at most 125 bytes long. (RFC 6455, 5.3, 5.5.)
                    self.socket.send(bytes((0x8A, 0x80 | (end - begin), 0, 0, 0, 0)) + data[begin:end])
            else:
                assert opcode == CLOSE, f"opcode {opcode}"
                (self.code,) = struct.unpack_from("!H", data, begin)
                return
        self.rest = data[offset:]

    def read_all(self) -> Watcher:
        """Until the server ends it; then it is closed here, too."""
        while self.code is None:
            self.read()
        self.socket.close()
        return self

    def send(self, message: object) -> None:
        """Ask for something."""
        data = json.dumps(message).encode()
        size = bytes((0x80 | len(data),)) if len(data) < 126 else b"\xfe" + struct.pack("!H", len(data))
        self.socket.sendall(b"\x81" + size + bytes(4) + data)

    def vanish(self) -> None:
        """Reset the connection: no FIN, no close frame."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _told(self, data: bytes) -> None:
        event = event_of(data)
        if event is None:
            self.answers.append(data)
        else:
            self.chains[event.task_id].add(event, data)


def frames(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The whole frames at the beginning of what a server sent: opcode, begin and end of the payload of each."""
    offset, size = 0, len(data)
    while size - offset >= 2:
        assert data[offset] in (0x81, 0x88, 0x89), f"no frame begins with {data[offset : offset + 20]!r}"
        length, head = data[offset + 1], {126: 4, 127: 10}.get(data[offset + 1], 2)
        assert length < 128, "a server does not mask"
        if size - offset < head:
            return
        if head > 2:
            length = int.from_bytes(data[offset + 2 : offset + head], "big")
        end = offset + head + length
        if end > size:
            return
        yield data[offset] & 15, offset + head, end
        offset = end


def opened(port: int, path: str, count: int) -> Iterator[Watcher]:
    """Many watchers of one address, some handshakes at a time."""
    for first in range(0, count, 100):
        some = [Watcher(port, path) for _ in range(min(100, count - first))]
        for watcher in some:
            yield watcher.begin()


class Reading(threading.Thread):
    """Reads for some watchers, as fast as it can, from `with` to its end, which raises what was wrong with it."""

    def __init__(self, watchers: Iterable[Watcher]) -> None:
        super().__init__(daemon=True)
        self.watchers = list(watchers)
        self.error: Exception | None = None
        self._stop_asked = threading.Event()

    def __enter__(self) -> Reading:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_asked.set()
        self.join()
        for watcher in self.watchers:
            watcher.socket.close()
        if self.error is not None:
            raise self.error

    def run(self) -> None:
        """In the thread."""
        try:
            with selectors.DefaultSelector() as ready:
                for watcher in self.watchers:
                    watcher.socket.setblocking(False)
                    ready.register(watcher.socket, selectors.EVENT_READ, watcher)
                while not self._stop_asked.is_set():
                    for key, _ in ready.select(0.05):
                        key.data.read()
                        if key.data.code is not None:
                            ready.unregister(key.fileobj)
        except Exception as error:
            self.error = error
