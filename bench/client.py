"""The load client: opens many WebSockets, counts what arrives, and never decodes it.

    python -m bench.client HOST PORT PATH SOCKETS TASKS [--first I] [--greeted] [--header LINE]…

Socket i goes to PATH with its %d replaced by i mod TASKS. It prints one JSON line when all are open, then one for each
line on its standard input: `reset` begins a new count, `report` tells the present one. It ends with its standard input.

A plain epoll loop, and frames are walked by their length: on a machine of two cores the client must leave the server
one of them. It is written for Linux, as is the accounting of the servers' CPU.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence

from bench.frames import CLOSE, PING, TEXT, frames
from bench.latency import bucket

IN_FLIGHT = 200
"""Handshakes under way at the same time."""
SAMPLE = 7
"""Above this many sockets only every 7th frame is looked at for its latency; a prime walks over all sockets."""
SAMPLE_ABOVE = 1_000
READ = 16_384
"""Bytes of one read: small enough for an allocation that costs nothing."""
PER_ADDRESS = 20_000
"""Sockets from one source address: 127.0.0.1, then 127.0.0.2…"""
IP_BIND_ADDRESS_NO_PORT = 24
"""From <linux/in.h>: the port is chosen by connect(), which may use it again for another destination."""

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    # The sample key of RFC 6455, 1.3; the floor knows its answer by heart.
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
)


class Count:
    """What has arrived since the last reset."""

    def __init__(self, sockets: int) -> None:
        self.frames = [0] * sockets
        self.bytes = 0
        self.closed = 0
        self.latency: Counter[int] = Counter()

    def told(self) -> dict[str, object]:
        """As `report` prints it. `least` and `most` are of the sockets that got the fewest and the most frames."""
        return {
            "messages": sum(self.frames),
            "bytes": self.bytes,
            "closed": self.closed,
            "least": min(self.frames),
            "most": max(self.frames),
            "latency": dict(self.latency),
        }


class Watcher:
    """One socket."""

    __slots__ = ("index", "opened", "rest", "socket")

    def __init__(self, index: int, sock: socket.socket) -> None:
        self.index = index
        self.socket = sock
        self.rest = b""
        self.opened = False


class Load:
    """All sockets of this process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.count = Count(options.sockets)
        self.open = 0
        self._poll = select.epoll()
        self._watchers: dict[int, Watcher] = {}
        self._made = 0
        self._seen = 0
        self._every = SAMPLE if options.sockets > SAMPLE_ABOVE else 1

    def connect_all(self) -> float:
        """Open everything; seconds that took. `OSError` or `SystemExit` when the server refuses."""
        began = time.monotonic()
        while self.open < self.options.sockets:
            while self._made < self.options.sockets and self._made - self.open < IN_FLIGHT:
                self._connect(self._made)
                self._made += 1
            self._turn(1.0)
        return time.monotonic() - began

    def serve(self) -> None:
        """Count, and answer the lines on standard input, until it ends."""
        commands = sys.stdin.fileno()
        self._poll.register(commands, select.EPOLLIN)
        while True:
            if not self._turn(-1, commands):
                continue
            for command in os.read(commands, 4096).split() or [b"end"]:
                if command == b"end":
                    return
                if command == b"reset":
                    self.count = Count(self.options.sockets)
                print(json.dumps(self.count.told()), flush=True)

    def _connect(self, number: int) -> None:
        options, index = self.options, self.options.first + number
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((f"127.0.0.{1 + index // PER_ADDRESS}", 0))
        refused = sock.connect_ex((options.host, options.port))
        if refused not in (0, errno.EINPROGRESS):
            raise OSError(refused, os.strerror(refused))
        self._watchers[sock.fileno()] = Watcher(number, sock)
        self._poll.register(sock.fileno(), select.EPOLLOUT)

    def _turn(self, timeout: float, commands: int = -1) -> bool:
        """One round of the loop; whether there is something on standard input."""
        asked = False
        for number, event in self._poll.poll(timeout):
            if number == commands:
                asked = True
                continue
            watcher = self._watchers[number]
            if event & select.EPOLLOUT:
                self._ask(watcher)
            else:
                self._read(watcher)
        return asked

    def _ask(self, watcher: Watcher) -> None:
        options = self.options
        path = options.path % ((options.first + watcher.index) % options.tasks) if "%" in options.path else options.path
        headers = "".join(f"{line}\r\n" for line in options.header)
        request = HANDSHAKE.format(path=path, host=options.host, port=options.port, headers=headers)
        watcher.socket.send(request.encode())
        self._poll.modify(watcher.socket.fileno(), select.EPOLLIN)

    def _read(self, watcher: Watcher) -> None:
        try:
            data = watcher.socket.recv(READ)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._lost(watcher)
            return
        data = watcher.rest + data
        if not watcher.opened:
            head, separator, data = data.partition(b"\r\n\r\n")
            if not separator:
                watcher.rest = head
                return
            self._opened(watcher, head)
        found, walked = frames(data)
        watcher.rest = data[walked:]
        for opcode, begin, end in found:
            if opcode == TEXT:
                self._text(watcher, data, begin, end)
            elif opcode == PING:
                # Masked with zeros, and at most 125 bytes long (RFC 6455, 5.5).
                watcher.socket.send(bytes((0x8A, 0x80 | (end - begin), 0, 0, 0, 0)) + data[begin:end])
            elif opcode == CLOSE:
                self._lost(watcher)
                return

    def _opened(self, watcher: Watcher, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 101"):
            sys.exit(f"the server answers a handshake with {head[:80].decode(errors='replace')!r}")
        watcher.opened = True
        self.open += not self.options.greeted

    def _text(self, watcher: Watcher, data: bytes, begin: int, end: int) -> None:
        count = self.count
        count.frames[watcher.index] += 1
        count.bytes += end - begin
        if self.open < self.options.sockets:
            # The first message says that the server has let this one in.
            self.open += self.options.greeted and count.frames[watcher.index] == 1
            return
        self._seen += 1
        if self._seen % self._every == 0:
            at = data.rfind(b'"ts":', begin, end)
            if at >= 0:
                # What follows the number, and it need not be the object's end, has no digits before the brace.
                stamp = data[at + 5 : end].split(b",", 1)[0].rstrip(b"}")
                count.latency[bucket(time.time() - float(stamp))] += 1

    def _lost(self, watcher: Watcher) -> None:
        if self.open < self.options.sockets:
            sys.exit("the server closes a socket while the others are being opened")
        self.count.closed += 1
        self._poll.unregister(watcher.socket.fileno())
        del self._watchers[watcher.socket.fileno()]
        watcher.socket.close()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = argparse.ArgumentParser("python -m bench.client", description="Open WebSockets and count.")
    arguments.add_argument("host")
    arguments.add_argument("port", type=int)
    arguments.add_argument("path")
    arguments.add_argument("sockets", type=int)
    arguments.add_argument("tasks", type=int)
    arguments.add_argument("--first", type=int, default=0, help="number of the first socket")
    arguments.add_argument("--greeted", action="store_true", help="a socket is open with its first message")
    arguments.add_argument("--header", action="append", default=[], help="a header line of the handshake")
    return arguments


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module docstring."""
    load = Load(parser().parse_args(arguments))
    seconds = load.connect_all()
    print(json.dumps({"open": load.open, "seconds": seconds}), flush=True)
    load.serve()


if __name__ == "__main__":
    main()
