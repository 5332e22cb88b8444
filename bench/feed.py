"""What is published, and at what pace: the same events, as evenly, to every server.

An event is what `Store.publish` makes of a worker's report. Headway gets it through its own script, as from a worker;
the peers get the same bytes, ready made, through PUBLISH or their HTTP publisher. All commands are pipelined, since
one synchronous call at a time ends at 20,000 a second; `tests/bench/test_feed.py` holds them to what the store does.
"""

from __future__ import annotations

import hashlib
import re
import select
import socket
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import hiredis
import redis

from headway import keys
from headway.events import Amount, Report, State
from headway.store import KEEP, Store, source

TICK = (0.0002, 0.001)
"""Seconds between two looks at the clock, at least and at most. Events come as evenly as the clock allows: workers know
nothing of each other, so that a burst would be the benchmark's own."""
BURSTS = 200
"""A burst is at most this part of a second's events, also after a pause of the machine: nobody is flooded."""
PATIENCE = 10.0
"""Seconds for the server's last answers."""
TOTAL = 1_000_000

STATUS = re.compile(rb"HTTP/1\.1 (\d)")

Encode = Callable[[int, int, float], bytes]
"""The command that publishes the n-th event of a task: task number, n, Unix seconds."""


def named(server: str) -> str:
    """The task ids of a server, as long as Celery's, with a %d for the number: no server hears another one's events."""
    return f"%08d-6f1c-4a51-9d3b-{hashlib.sha1(server.encode(), usedforsecurity=False).hexdigest()[:12]}"


def due(elapsed: float, rate: float, sent: int, total: int) -> int:
    """How many events to send now: those whose time has come, and no more than one burst."""
    burst = max(1, int(rate / BURSTS))
    return max(0, min(int(elapsed * rate) + 1 - sent, burst, total - sent))


def amount(number: int) -> tuple[bytes, bytes]:
    """The `amount` and the `percent` of an event, as JSON."""
    members = b'"current":%d,"total":%d,"unit":"rows","stage":null' % (number, TOTAL)
    return members, b"%.4f" % (number / TOTAL * 100)


MESSAGE = b'"importing rows"'
PACE = b'"rate":812.3,"eta":0.71'


def event(task_id: bytes, number: int, ts: float) -> bytes:
    """The n-th progress event of a task, n counted from 1: what watchers of any server are sent."""
    members, percent = amount(number)
    seq = number + 1  # the start was the first
    return (
        b'{"v":1,"type":"progress","task_id":"%b","cursor":"1763650000000-%d","seq":%d,"prev":1,"attempt":1,'
        b'"state":"PROGRESS",%b,"percent":%b,"message":%b,%b,"stalled":false,"ts":%.6f}'
        % (task_id, seq, seq, members, percent, MESSAGE, PACE, ts)
    )


def bulk(*words: bytes) -> bytes:
    """Words of a Redis command."""
    return b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def packed(*words: bytes) -> bytes:
    """A Redis command."""
    return b"*%d\r\n" % len(words) + bulk(*words)


def published(names: str) -> Encode:
    """PUBLISH, on the channels of the tutorials."""

    def command(task: int, number: int, ts: float) -> bytes:
        task_id = (names % task).encode()
        return packed(b"PUBLISH", b"task:" + task_id, event(task_id, number, ts))

    return command


def scripted(names: str, tasks: int) -> Encode:
    """The store's `publish` script, the constant part of each task's command made beforehand."""
    sha = hashlib.sha1(source("publish").encode(), usedforsecurity=False).hexdigest().encode()
    heads = []
    for task in range(tasks):
        name = names % task
        script = bulk(b"EVALSHA", sha, b"5", *(key.encode() for key in keys.of(name)[:5]))
        heads.append(b"*23\r\n" + script + bulk(b'"%b"' % name.encode(), b"progress", b"PROGRESS", b"1", b""))
    tail = bulk(MESSAGE, PACE, b"", *(b"%d" % limit for limit in KEEP))

    def command(task: int, number: int, ts: float) -> bytes:
        members, percent = amount(number)
        return heads[task] + bulk(b"%.6f" % ts, members, percent) + tail

    return command


def begin_all(url: str, names: str, tasks: int) -> None:
    """Start the tasks, so that there is something to watch."""
    with redis.Redis.from_url(url) as client:
        store = Store(client)
        for task in range(tasks):
            started = Report(type="state", state=State.STARTED, ts=time.time(), amount=Amount())
            store.publish(names % task, started, attempt="+")


class RedisLane:
    """A connection to Redis on which commands are answered when they are answered."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port))
        self._reader = hiredis.Reader()
        self.socket.sendall(packed(b"AUTH", (parts.password or "").encode()))
        self.take(self.socket.recv(4096))

    def take(self, data: bytes) -> int:
        """How many answers there are in what the server sent; `redis.RedisError` for one that refuses."""
        self._reader.feed(data)
        answers = 0
        while (reply := self._reader.gets()) is not False:
            if isinstance(reply, hiredis.ReplyError) or (isinstance(reply, list) and reply[0] == -1):
                raise redis.RedisError(f"an event is refused: {reply}")
            answers += 1
        return answers


class HttpLane:
    """A kept connection to an HTTP publisher, pipelined."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self._rest = b""

    def take(self, data: bytes) -> int:
        """How many answers begin in what the server sent; `OSError` for one that refuses."""
        data = self._rest + data
        statuses = STATUS.findall(data)
        if any(status != b"2" for status in statuses):
            raise OSError(f"an event is refused: {data[:200]!r}")
        self._rest = data[-9:]  # one byte less than what is looked for
        return len(statuses)


class Publisher:
    """Sends the events of many tasks in turn."""

    def __init__(self, lanes: Sequence[RedisLane | HttpLane], encode: Encode, tasks: int) -> None:
        self.tasks = tasks
        self._lanes = {lane.socket.fileno(): lane for lane in lanes}
        self._encode = encode
        self._numbers = [0] * tasks
        self._next = 0
        self._unanswered = 0

    def run(self, rate: float, seconds: float) -> int:
        """Publish for a while; how many events that were. All of them have been answered when it returns."""
        total = int(rate * seconds)
        tick = min(max(TICK[0], 1 / rate), TICK[1])
        sent, began = 0, time.perf_counter()
        while sent < total:
            batch = due(time.perf_counter() - began, rate, sent, total)
            if batch:
                self._send(batch)
                sent += batch
            self._take(0)
            time.sleep(tick)
        while self._unanswered:
            self._take(PATIENCE)
        return total

    def close(self) -> None:
        """Let go of the connections."""
        for lane in self._lanes.values():
            lane.socket.close()

    def _send(self, batch: int) -> None:
        lanes = list(self._lanes.values())
        commands: list[list[bytes]] = [[] for _ in lanes]
        for _ in range(batch):
            task = self._next
            self._next = (task + 1) % self.tasks
            self._numbers[task] += 1
            # A task stays on its lane: its events keep their order.
            commands[task % len(lanes)].append(self._encode(task, self._numbers[task], time.time()))
        for lane, some in zip(lanes, commands, strict=True):
            lane.socket.sendall(b"".join(some))
        self._unanswered += batch

    def _take(self, timeout: float) -> None:
        ready = select.select(list(self._lanes), [], [], timeout)[0]
        if timeout and not ready:
            raise TimeoutError("the server does not answer its publisher")
        for number in ready:
            data = self._lanes[number].socket.recv(65_536)
            if not data:
                raise ConnectionError("the server has closed its publisher's connection")
            self._unanswered -= self._lanes[number].take(data)
