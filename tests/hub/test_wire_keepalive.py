"""The heartbeat on real sockets: who answers stays, who does not is gone after two rounds, however it was silent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.frames import Opcode

from headway.events import State
from tests.conditions import until
from tests.hub.conftest import TaskFactory
from tests.hub.peers import Burst, control, open_at, text
from tests.hub.running import Task
from tests.hub.servers import OURS, Served, on_server, served

INTERVAL = 0.3
KINDS = ("uvloop", "asyncio-tls")
"""One with and one without a layer that has a buffer of its own. What is silent for long takes long to test."""
SMALL: dict[str, Any] = {"receive_buffer": 4_096, "limit": 1_024}
"""A client that takes next to nothing unless it reads."""


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, redis_url: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A hub with our protocol that pings often."""
    kind = OURS[request.param]
    kind = kind._replace(options=(("ws_ping_interval", INTERVAL), ("ws_ping_timeout", INTERVAL)))
    with served(kind, redis_url, database_url, tmp_path_factory.mktemp("storage")) as server:
        yield server


@on_server
async def test_who_answers_stays_and_who_does_not_goes(server: Served, task: Task) -> None:
    """1011 for the silent one, behind which nothing comes; the other is asked again and again."""
    async with open_at(server.hub, f"/ws/task/{task.id}") as silent, open_at(server.hub, "/ws") as living:
        pings = set()

        async def live() -> None:
            while True:
                frame = await living.frame()
                assert frame.opcode == Opcode.PING
                pings.add(frame.data)
                living.writer.write(control(Opcode.PONG, frame.data))

        answering = asyncio.create_task(live())
        loop = asyncio.get_running_loop()
        began = loop.time()
        frames = await silent.rest()
        assert INTERVAL < loop.time() - began < INTERVAL * 6
        assert [frame.opcode for frame in frames] == [Opcode.TEXT, Opcode.PING, Opcode.CLOSE]
        assert frames[-1].code == 1011
        await until(lambda: len(pings) >= 4)
        assert not answering.done()
        answering.cancel()
        assert server.hub.services.sockets == 1


@on_server
async def test_a_pong_of_another_ping_is_no_answer(server: Served, task: Task) -> None:
    """Anybody can send pongs: only the payload shows that the ping has arrived."""
    async with open_at(server.hub, f"/ws/task/{task.id}") as peer:
        await peer.event()
        ping = await peer.frame()
        peer.writer.write(control(Opcode.PONG, b"still here") + control(Opcode.PONG))
        assert ping.opcode == Opcode.PING
        assert (await peer.rest())[-1].code == 1011


@on_server
async def test_who_takes_nothing_is_cut_off(server: Served, task: Task, burst: Burst) -> None:
    """With its buffer full a close would wait for ever. What it then reads is whole frames as far as they go."""
    async with open_at(server.hub, f"/ws/task/{task.id}", **SMALL):
        await until(lambda: server.hub.services.sockets == 1)
        with burst.running():
            await until(lambda: server.hub.services.sockets == 0)


@on_server
async def test_who_asks_for_more_and_takes_nothing_is_cut_off(server: Served, new_task: TaskFactory) -> None:
    """Also while it is not read from, since it has asked for more than was done: it is not excused for ever."""
    tasks = [new_task() for _ in range(200)]
    for task in tasks:
        task.became(State.RETRY, reason="x" * 4_000)
    async with open_at(server.hub, "/ws", **SMALL) as peer:
        peer.writer.write(text({"type": "subscribe", "tasks": [{"id": task.id} for task in tasks]}))
        peer.writer.write(text({"type": "ping"}))
        (protocol,) = server.hub.server.server_state.connections
        await until(lambda: getattr(protocol, "held", False))
        await until(lambda: server.hub.services.sockets == 0)
    rooms = server.hub.services.connections._open  # noqa: SLF001
    await until(lambda: not any(rooms[task.id].room.members for task in tasks if task.id in rooms))


@on_server
async def test_who_takes_it_slowly_is_not(server: Served, new_task: TaskFactory) -> None:
    """A large subscription over a slow line, for many rounds: its pongs cannot be seen, but that it reads can."""
    tasks = [new_task() for _ in range(400)]
    for task in tasks:
        task.became(State.RETRY, reason="x" * 4_000)
    async with open_at(server.hub, "/ws", **SMALL) as peer:
        peer.writer.write(text({"type": "subscribe", "tasks": [{"id": task.id} for task in tasks]}))
        peer.writer.write(text({"type": "ping"}))
        heard = 0
        while heard < len(tasks):
            frame = await peer.frame()
            if frame.opcode == Opcode.PING:
                peer.writer.write(control(Opcode.PONG, frame.data))
                continue
            heard += 1
            await asyncio.sleep(INTERVAL / 100)
        assert await peer.event() == {"type": "pong"}


@on_server
async def test_who_closes_and_takes_nothing_is_cut_off(server: Served, task: Task, burst: Burst) -> None:
    """The echo of its close is behind what it does not read."""
    async with open_at(server.hub, f"/ws/task/{task.id}", **SMALL) as peer:
        (protocol,) = server.hub.server.server_state.connections
        transport: Any = getattr(protocol, "transport", None)
        with burst.running():
            await until(lambda: transport.get_write_buffer_size() > 10_000)
            peer.writer.write(control(Opcode.CLOSE, b"\x03\xe8"))
            await until(lambda: not server.hub.server.server_state.connections)
