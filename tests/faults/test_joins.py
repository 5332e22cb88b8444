"""Watchers who come and go while their task talks: whoever comes misses nothing, and is told nothing twice."""

from __future__ import annotations

import asyncio
import functools
import math
import random
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import redis
import websockets

from deploy.valkey import Valkey
from headway import keys
from headway.events import TaskEvent, decode
from headway.follow import Follower, Verdict
from hub import connections, past
from tests.conditions import until
from tests.faults.conftest import TaskFactory
from tests.faults.proxies import Proxy
from tests.hub.running import Hub, Task, serving

LATE = 0.1
"""Seconds that the store's answer about a task is on its way."""
REMEMBERED = 50
"""Events a room remembers, for a test that wants watchers to come from further back: more than come within `LATE`."""
ROUNDS = 3
LINGER = 0.005
"""Seconds a room stays without watchers: rooms go and come again all the time."""


class Late:
    """Holds back what `read.lua` answers, a list of seven, and nothing else."""

    def __init__(self, seconds: Callable[[], float] = lambda: LATE) -> None:
        self.count = 0
        self._seconds = seconds

    def __call__(self, data: bytes) -> float:
        if not data.startswith(b"*7\r\n"):
            return 0.0
        self.count += 1
        return self._seconds()


@pytest.fixture
async def proxy(own_valkey: Valkey) -> AsyncIterator[Proxy]:
    """A way to Valkey on which a test may have answers wait."""
    proxy = Proxy(own_valkey.port)
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture
async def hub(
    own_valkey: Valkey, proxy: Proxy, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Hub]:
    """A hub whose rooms go at once, behind the proxy."""
    monkeypatch.setattr(connections, "LINGER", LINGER)
    url = own_valkey.url.replace(f":{own_valkey.port}/", f":{proxy.port}/")
    async with serving(HEADWAY_REDIS_URL=url, DATABASE_URL=database_url, HEADWAY_STORAGE=tmp_path) as hub:
        yield hub


class Talk(threading.Thread):
    """Lines with their numbers, and progress between them, until told to end; then the task's end."""

    def __init__(self, task: Task, pause: float) -> None:
        super().__init__(daemon=True)
        self.lines = 0
        self.task = task
        self._pause = pause
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """In the thread."""
        while not self._stop_asked.wait(self._pause):
            self.task.progress(self.lines)
            self.task.said(str(self.lines))
            self.lines += 1
        self.task.succeeded()

    async def end(self) -> None:
        """Say the last word."""
        self._stop_asked.set()
        await asyncio.to_thread(self.join)


class Visitor:
    """Watches a task over many connections; AssertionError for what it misses or is told twice."""

    def __init__(self, hub: Hub, talk: Talk) -> None:
        self.follower = Follower()
        self.visits = 0
        self.said: list[int] = []
        """The numbers of the lines."""
        self._hub = hub
        self._talk = talk
        self._path = f"/ws/task/{talk.task.id}"

    async def visit(self, lines: float = math.inf) -> None:
        """Connect with the cursor, and read until the task has ended or so many lines have been told in all."""
        cursor = f"?cursor={self.follower.cursor}" if self.follower.cursor else ""
        self.visits += 1
        async with self._hub.socket(self._path + cursor, max_queue=None) as socket:
            try:
                while len(self.said) < lines or self.follower.cursor is None:
                    self._take(decode(await asyncio.wait_for(socket.recv(), 15)), bool(cursor))
            except websockets.ConnectionClosedOK:
                assert self.follower.finished

    def _take(self, event: TaskEvent, resumed: bool) -> None:
        verdict = self.follower.feed(event)
        if event.type == "snapshot":
            assert event.recovered is True if resumed else not event.recovered
        else:
            assert verdict is Verdict.DELIVER, f"{verdict} {event}"
        if event.type == "log":
            assert event.message is not None
            self.said.append(int(event.message))

    def missed_nothing(self) -> None:
        """All lines from the first it was told to the last there was, each once and in order."""
        assert self.follower.finished
        assert self.said == list(range(self._talk.lines - len(self.said), self._talk.lines))


async def test_rooms_that_go_while_somebody_comes(
    hub: Hub, proxy: Proxy, started: TaskFactory, own_valkey: Valkey
) -> None:
    """The last watcher leaves and the first joins again, at any moment: nobody misses or doubles anything."""
    task, chance = started(), random.Random(1)
    talk = Talk(task, 0.004)
    talk.start()
    proxy.late = Late(lambda: chance.uniform(0, 2 * LINGER))

    async def come_and_go() -> Visitor:
        visitor = Visitor(hub, talk)
        while not visitor.follower.finished:
            await visitor.visit(len(visitor.said) + chance.randrange(4))
            await asyncio.sleep(chance.uniform(0, 3 * LINGER))
        return visitor

    visiting = [asyncio.create_task(come_and_go()) for _ in range(2)]
    await until(lambda: talk.lines > 400, timeout=30)
    await talk.end()
    async with asyncio.timeout(20):
        visitors = await asyncio.gather(*visiting)
    for visitor in visitors:
        visitor.missed_nothing()
        assert visitor.visits > 20
    await until(lambda: hub.services.connections.rooms == 0)
    with redis.Redis.from_url(own_valkey.url) as client:
        await until(lambda: _listeners(client, task) == 0)


def _has_heard(visitor: Visitor, lines: int) -> bool:
    return len(visitor.said) > lines


def _listeners(client: redis.Redis, task: Task) -> int:
    (_, count) = client.execute_command("PUBSUB", "SHARDNUMSUB", keys.of(task.id).channel)
    return int(count)


async def test_events_while_the_snapshot_is_on_its_way(hub: Hub, proxy: Proxy, started: TaskFactory) -> None:
    """Watchers of new rooms are told each exactly once, however late the store's answer is."""
    proxy.late = late = Late()
    talks = [Talk(started(), 0.005) for _ in range(5)]
    for talk in talks:
        talk.start()
    visitors = [Visitor(hub, talk) for talk in talks for _ in range(4)]
    visiting = [asyncio.create_task(visitor.visit()) for visitor in visitors]
    await until(lambda: all(len(visitor.said) > 50 for visitor in visitors), timeout=20)
    for talk in talks:
        await talk.end()
    await asyncio.gather(*visiting)
    for visitor in visitors:
        visitor.missed_nothing()
    assert late.count >= len(talks)


async def test_events_while_the_missed_ones_are_on_their_way(
    hub: Hub, proxy: Proxy, started: TaskFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cursor from before what the room remembers: the store's answer and the room's events are merged, each once."""
    monkeypatch.setattr(past, "RECENT", REMEMBERED)
    talk = Talk(started(), 0.005)
    talk.start()
    staying = Visitor(hub, talk)
    watching = asyncio.create_task(staying.visit())
    proxy.late = late = Late()
    visitors = [Visitor(hub, talk) for _ in range(5)]
    for round_ in range(1, ROUNDS + 1):
        await asyncio.gather(*(visitor.visit(20 * round_) for visitor in visitors))
        await until(functools.partial(_has_heard, staying, len(staying.said) + 2 * REMEMBERED))
    await talk.end()
    await asyncio.gather(watching, *(visitor.visit() for visitor in visitors))
    for visitor in (staying, *visitors):
        visitor.missed_nothing()
    assert late.count >= ROUNDS * len(visitors)


async def test_events_while_a_room_reads_the_store_again(
    hub: Hub, proxy: Proxy, started: TaskFactory, own_valkey: Valkey
) -> None:
    """The link breaks again and again, and each answer that mends a room is late: each event is told once."""
    talk = Talk(started(), 0.005)
    visitor = Visitor(hub, talk)
    talk.start()
    watching = asyncio.create_task(visitor.visit())
    proxy.late = late = Late()
    with redis.Redis.from_url(own_valkey.url) as client:
        for round_ in range(1, 6):
            await until(functools.partial(_has_heard, visitor, 20 * round_))
            client.client_kill_filter(_type="pubsub", skipme=True)
    await until(functools.partial(_has_heard, visitor, 120))
    await talk.end()
    await watching
    visitor.missed_nothing()
    assert late.count >= 5
