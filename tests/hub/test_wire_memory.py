"""What a socket costs: system calls while it is there, memory while it is idle, nothing when it has gone."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.server import free_port
from tests.conditions import eventually, until
from tests.hub.peers import Burst, close, handshake, open_at, text
from tests.hub.running import Process, Task
from tests.hub.servers import OURS, Served, on_server, served

MANY = 2_000
KIB_A_SOCKET = 12


@pytest.fixture(scope="module", params=["uvloop", "asyncio", "uvloop-tls"])
def server(
    request: pytest.FixtureRequest, redis_url: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A hub with our protocol."""
    with served(OURS[request.param], redis_url, database_url, tmp_path_factory.mktemp("storage")) as server:
        yield server


@on_server
async def test_events_of_one_turn_leave_together(server: Served, task: Task, burst: Burst) -> None:
    """What reaches the hub in one piece reaches the client in one: twenty events are not twenty system calls."""
    async with open_at(server.hub, f"/ws/task/{task.id}") as peer:
        await peer.event()
        received: list[int] = []
        protocol: Any = peer.writer.transport.get_protocol()
        hear = protocol.data_received
        protocol.data_received = lambda data: (received.append(len(data)), hear(data))
        for _ in range(10):
            await asyncio.to_thread(burst.send, 20)
            for _ in range(20):
                await peer.event()
    assert len(received) <= 20, received  # one a burst, and now and then two, when Redis is read in two pieces


def ours() -> Counter[str]:
    """Objects of what sockets consist of that only the collector can free, by their type."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        kinds = Counter(
            f"{type(thing).__module__}.{type(thing).__qualname__}"
            for thing in gc.garbage
            # The parser of uvicorn's HTTP refers to it, and goes when the handshake is done.
            if type(thing).__module__.startswith(("hub", "uvicorn.protocols.websockets", "websockets", "starlette"))
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    return kinds


@on_server
async def test_sockets_leave_no_cycles(server: Served, task: Task, burst: Burst) -> None:
    """Whoever ended it: everything of them goes at once, and the collector has no work."""

    async def come_and_go(path: str, ending: bytes | None) -> None:
        async with open_at(server.hub, path) as peer:
            peer.writer.write(text({"type": "ping"}))
            if ending is not None:
                peer.writer.write(ending)
                await peer.rest()

    paths = {f"/ws/task/{task.id}": close(1000), "/ws": None}
    state = server.hub.server.server_state
    await asyncio.gather(*(come_and_go(*item) for item in paths.items()))
    await until(lambda: not state.connections and not state.tasks)
    gc.collect()
    gc.disable()
    try:
        with burst.running():
            for _ in range(20):
                await asyncio.gather(*(come_and_go(*item) for item in paths.items()))
        await until(lambda: not state.connections and not state.tasks)
        await asyncio.sleep(0)
        left = ours()
    finally:
        gc.enable()
    assert left.total() < 10, left  # of 40 sockets


class Crowd:
    """Idle sockets, each of which has had its snapshot."""

    def __init__(self, port: int, path: str) -> None:
        self.sockets: list[socket.socket] = []
        for _ in range(MANY):
            opened = socket.create_connection(("127.0.0.1", port))
            opened.sendall(handshake(path))
            self.sockets.append(opened)
        for opened in self.sockets:
            data = b""
            while b'"snapshot"' not in data:
                more = opened.recv(4_096)
                assert more, data
                data += more

    def leave(self) -> None:
        """All of them at once."""
        for opened in self.sockets:
            opened.close()


@pytest.mark.skipif(sys.platform != "linux", reason="RSS is counted in other ways elsewhere")
def test_what_an_idle_socket_costs(redis_url: str, database_url: str, task: Task, tmp_path: Path) -> None:
    """At most 12 KiB of the process; and those that come when they have gone cost nothing more."""
    port = free_port()
    environment = {"HEADWAY_REDIS_URL": redis_url, "DATABASE_URL": database_url, "HEADWAY_STORAGE": str(tmp_path)}
    hub = Process(
        "--port", str(port), env={**environment, "HEADWAY_MAX_SOCKETS": "10000", "HEADWAY_LOG_LEVEL": "WARNING"}
    )
    path = f"/ws/task/{task.id}"
    try:
        hub.serves(port)
        process = psutil.Process(hub.process.pid)
        first = Crowd(port, path)  # takes what memory the start has left over
        before = process.memory_info().rss
        rounds = []
        for _ in range(3):
            crowd = Crowd(port, path)
            rounds.append(process.memory_info().rss)
            crowd.leave()
            eventually(lambda: process.num_fds() < MANY + 100)
        first.leave()
    finally:
        hub.kill()
    costs = [(rss - before) / MANY / 1024 for rss in rounds]
    assert costs[0] <= KIB_A_SOCKET, costs
    assert costs[2] - costs[0] <= 1, costs
