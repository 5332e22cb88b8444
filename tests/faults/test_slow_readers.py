"""Watchers who read slowly, or nothing at all: they cost themselves, and nobody else."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deploy.valkey import Valkey
from hub import __main__ as command
from hub.backlog import MAX_BYTES, MAX_PENDING
from hub.beat import SECTORS
from hub.rooms import Room
from tests.conditions import eventually, until
from tests.faults.conftest import HubProcess, TaskFactory
from tests.faults.watching import CUT, Reading, Watcher
from tests.hub.running import Hub, Task, serving

MIB = 1024 * 1024
SMALL = 4_096
"""Bytes the kernel shall hold for a watcher who reads slowly."""
INTERVAL = 1.0
"""Seconds between two pings, where a test cannot wait for the real ones."""
TOO_SLOW = 4408
LINE = "x" * (MAX_BYTES // MAX_PENDING - 250)
"""Of lines that are so long, both bounds of a backlog are reached at about the same time."""

BURST = 50
"""Lines said at once."""
ENOUGH = MAX_PENDING * 11 // 10 // BURST
"""Bursts that are too much for a backlog."""
QUICK = 0.1
"""Seconds after which one who reads has the news, and who asks `/healthz` its answer."""


@pytest.fixture
async def hub(
    own_valkey: Valkey, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Hub]:
    """A hub to look into, which pings often."""
    monkeypatch.setattr(command, "PING_INTERVAL", INTERVAL)
    async with serving(HEADWAY_REDIS_URL=own_valkey.url, DATABASE_URL=database_url, HEADWAY_STORAGE=tmp_path) as hub:
        yield hub


async def watcher(hub: Hub, task: Task, buffer: int | None = None) -> Watcher:
    """One who has been let in."""
    port = int(hub.url.rpartition(":")[2])
    opened = hub.services.connections._open  # noqa: SLF001
    before = len(opened[task.id].room.members) if task.id in opened else 0
    watcher = await asyncio.to_thread(lambda: Watcher(port, f"/ws/task/{task.id}", buffer=buffer).begin())
    await until(lambda: task.id in opened and len(opened[task.id].room.members) > before)
    return watcher


def room_of(hub: Hub, task: Task) -> Room:
    """The task's room."""
    return hub.services.connections._open[task.id].room  # noqa: SLF001


def protocols(hub: Hub) -> weakref.WeakSet[Any]:
    """What is left of the hub's sockets. They must go by themselves: nobody calls the garbage collector meanwhile."""
    return weakref.WeakSet(hub.server.server_state.connections)


def test_the_real_pings_find_a_dead_reader_within_30_seconds() -> None:
    """Asked after one round and given up after two, of which the first may begin a sector late."""
    assert command.PING_INTERVAL * (2 + 1 / SECTORS) < 30
    assert command.STALLED <= 30_000


@pytest.mark.parametrize("chatty", [True, False])
async def test_who_reads_nothing_is_cut_off(hub: Hub, started: TaskFactory, chatty: bool) -> None:
    """By the second ping, whether it has been sent much or nothing; then nothing is left of it."""
    task = started()
    stalled = await watcher(hub, task, SMALL)
    with Reading([await watcher(hub, task)]) as reading:
        room, gone = room_of(hub, task), protocols(hub)
        began = time.monotonic()
        gc.disable()
        try:
            while len(room.members) == 2:
                # Progress is conflated: nobody is ever too slow for it.
                await asyncio.to_thread(lambda: [task.progress(number) for number in range(300 if chatty else 1)])
                assert time.monotonic() - began < 10 * INTERVAL
            await until(lambda: len(gone) == 1)
        finally:
            gc.enable()
        assert hub.services.sockets == 1
        last = (await asyncio.to_thread(task.said)).seq
        await until(lambda: reading.watchers[0].chain.seq == last)
    stalled.socket.close()


async def test_one_byte_a_second_is_a_well_formed_beginning(hub: Hub, started: TaskFactory) -> None:
    """Of all there was: nothing in it is missing, doubled or out of order until it is cut off."""
    task = started()
    slow = await watcher(hub, task, SMALL)
    with Reading([await watcher(hub, task)]) as reading:
        room = room_of(hub, task)
        while len(room.members) == 2:
            last = (await asyncio.to_thread(lambda: [task.said(LINE) for _ in range(100)]))[-1].seq
            await until(lambda last=last: reading.watchers[0].chain.seq == last)  # type: ignore[misc]
            await asyncio.to_thread(slow.read, 1)
            await asyncio.sleep(INTERVAL / 4)
            assert last < 10_000
        assert reading.watchers[0].chain.restarts == 0
        await asyncio.to_thread(slow.read_all)
    assert slow.code in (CUT, TOO_SLOW)
    assert 1 < slow.chain.seq < last
    assert slow.chain.counts["log"] == slow.chain.seq - 1


class Crossfire:
    """Tasks that talk, a stalled watcher of each, and a quick one of all."""

    def __init__(self, hub: HubProcess, tasks: list[Task], quick: Watcher) -> None:
        self.late: list[float] = []
        """Seconds after which the quick one had the last of a burst of lines."""
        self.peak = 0
        """Bytes of memory the hub took."""
        self._hub = hub
        self._tasks = tasks
        self._quick = quick

    def stall(self, bursts: int) -> list[Watcher]:
        """New watchers who read nothing while so many bursts of lines are said."""
        hub = self._hub
        stalled = [Watcher(hub.port, f"/ws/task/{task.id}", buffer=SMALL).begin() for task in self._tasks]
        for burst in range(bursts):
            for task in self._tasks:
                task.progress(burst)
                last = [task.said(LINE).seq for _ in range(BURST)][-1]
                said, chain = time.perf_counter(), self._quick.chains[task.id]
                eventually(lambda chain=chain, last=last: chain.seq == last)  # type: ignore[misc]
                self.late.append(time.perf_counter() - said)
            self.peak = max(self.peak, hub.rss)
        return stalled


def test_the_others_do_not_feel_those_who_read_nothing(hub_process: HubProcess, started: TaskFactory) -> None:
    """Each line comes at once, the hub answers meanwhile, and the memory of those who stalled is used again."""
    tasks = [started() for _ in range(5)]
    quick = Watcher(hub_process.port, "/ws").begin()
    quick.send({"type": "subscribe", "tasks": [{"id": task.id} for task in tasks]})
    with Reading([quick]), hub_process.pulse() as pulse:
        eventually(lambda: len(quick.chains) == len(tasks) and pulse.times)
        base, sockets = hub_process.rss, hub_process.sockets
        first = Crossfire(hub_process, tasks, quick)
        stalled = first.stall(ENOUGH)
        eventually(lambda: hub_process.sockets <= sockets, timeout=25)
        second = Crossfire(hub_process, tasks, quick)
        stalled += second.stall(ENOUGH)
    assert pulse.usual < QUICK
    assert sorted(first.late + second.late)[-len(first.late) // 10] < QUICK
    for chain in quick.chains.values():
        assert (chain.counts["log"], chain.restarts) == (2 * ENOUGH * BURST, 0)
    for watcher in stalled:
        watcher.read_all()
        assert watcher.code in (CUT, TOO_SLOW)
        assert watcher.chain.counts["log"] < MAX_PENDING
    assert first.peak - base < len(tasks) * (MAX_BYTES + 2 * MIB)
    assert second.peak - first.peak < (first.peak - base) / 3
