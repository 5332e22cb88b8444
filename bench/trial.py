"""A server that runs, sockets on it, and windows of publishing in which everything is counted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import redis

from bench import accounting, load
from bench.feed import Publisher
from bench.load import Aim, Heard
from bench.servers import Server, Stage

QUIET = 0.05
"""Share of a processor below which a server is taken to have nothing to do."""
LOOK = 0.2
"""Seconds over which that is looked at."""


class Window(NamedTuple):
    """What one window of publishing has cost and brought."""

    cpu: float
    """Seconds of the server's processes, in the kernel and outside."""
    expected: int
    heard: Heard
    client: float
    """Share of a processor that a client process used."""

    @property
    def delivery_us(self) -> float:
        """CPU of the server for each message that arrived."""
        return self.cpu / max(1, self.heard.messages) * 1e6

    @property
    def delivered(self) -> float:
        """Messages that arrived, of those that should have."""
        return self.heard.messages / self.expected


class Room:
    """Open sockets, `sockets / tasks` of them on each task, and what publishes to them."""

    def __init__(self, server: Server, sockets: load.Load, aim: Aim, publisher: Publisher) -> None:
        self.sockets = sockets
        self._server = server
        self._aim = aim
        self._publisher = publisher

    def window(self, rate: float, seconds: float) -> Window:
        """Publish so many events a second, and see what it costs and what arrives."""
        server, sockets = self._server, self.sockets
        sockets.reset()
        began, cpu, client = time.perf_counter(), accounting.cpu(server.pids), accounting.cpu(sockets.pids)
        expected = self._publisher.run(rate, seconds) * self._aim.sockets // self._aim.tasks
        heard = sockets.heard(expected)
        used = accounting.cpu(server.pids) - cpu
        share = (accounting.cpu(sockets.pids) - client) / len(sockets.pids) / (time.perf_counter() - began)
        return Window(used, expected, heard, share)


class Trial:
    """A server that runs, and what is done to it."""

    def __init__(self, server: Server, stage: Stage) -> None:
        self.server = server
        self._stage = stage

    @contextmanager
    def room(self, sockets: int, tasks: int) -> Iterator[Room]:
        """Open sockets, wait until the server is done with that, and close them in the end."""
        server = self.server
        aim = Aim(server.port, server.path, sockets, tasks, server.headers, server.greeted)
        opened = load.opened(aim)
        try:
            publisher = server.publisher(self._stage, tasks)
            try:
                self.settle()
                yield Room(server, opened, aim, publisher)
            finally:
                publisher.close()
        finally:
            opened.close()

    def settle(self, timeout: float = 10.0) -> None:
        """Wait until the server has nothing to do."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            before = self.cpu()
            time.sleep(LOOK)
            if self.cpu() - before < LOOK * QUIET:
                return

    def cpu(self) -> float:
        """Seconds of CPU the server has used."""
        return accounting.cpu(self.server.pids)

    def rss(self) -> int:
        """Bytes of memory it has resident."""
        return accounting.rss(self.server.pids)

    def reads(self) -> int:
        """Scripts that Redis has run: the hub reads a task with one. One that it had yet to be sent did not run."""
        with redis.Redis.from_url(self._stage.redis_url) as client:
            stats = client.info("commandstats")
        calls = [stats.get(f"cmdstat_{name}", {}) for name in ("eval", "evalsha", "evalsha_ro")]
        return sum(int(call.get("calls", 0)) - int(call.get("failed_calls", 0)) for call in calls)


@contextmanager
def running(server: Server, stage: Stage) -> Iterator[Trial]:
    """The server, started and idle."""
    server.start(stage)
    try:
        trial = Trial(server, stage)
        trial.settle()
        yield trial
    finally:
        server.stop()
