"""What a watcher is promised, over every transport: our own protocol on either loop, plain and TLS, and others'."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from headway.events import State
from tests.conditions import until
from tests.hub.conftest import TaskFactory
from tests.hub.peers import Burst
from tests.hub.running import Hub, Task, code_of, collect
from tests.hub.servers import OTHERS, OURS, Served, on_server, served

pytestmark = [
    # uvicorn's oldest WebSocket server goes out of use. It is here as one that knows nothing of ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::uvicorn.config.UvicornDeprecationWarning"),
]
KINDS = OURS | OTHERS


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, redis_url: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A hub on each kind of server."""
    with served(KINDS[request.param], redis_url, database_url, tmp_path_factory.mktemp("storage")) as server:
        yield server


async def hear(socket: Any) -> dict[str, Any]:
    """The next message."""
    message: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 10))
    return message


async def send(socket: Any, **message: Any) -> None:
    """A message of the client."""
    await socket.send(json.dumps(message))


def watched(hub: Hub, task: Task) -> bool:
    """Whether anybody watches a task."""
    opened = hub.services.connections._open.get(task.id)  # noqa: SLF001
    return opened is not None and bool(opened.room.members)


@on_server
async def test_from_the_snapshot_to_the_end(server: Served, task: Task) -> None:
    """Snapshot, every event in order, then close 1000 "finished" behind the terminal one."""
    async with server.hub.socket(f"/ws/task/{task.id}") as socket:
        assert (await hear(socket))["type"] == "snapshot"
        said = [task.said(str(number)).seq for number in range(20)]
        end = task.succeeded().seq
        assert [message["seq"] for message in await collect(socket)] == [*said, end]
        assert (socket.close_code, socket.close_reason) == (1000, "finished")
    await until(lambda: server.hub.services.sockets == 0)


@on_server
async def test_what_was_missed_comes_first(server: Served, task: Task) -> None:
    """A cursor brings the missed events, and 1000 when the task has ended meanwhile."""
    first = task.said("a")
    missed = [task.said("x" * 500).seq for _ in range(200)] + [task.succeeded().seq]
    async with server.hub.socket(f"/ws/task/{task.id}?cursor={first.epoch}-{first.seq}") as socket:
        snapshot, *messages = await collect(socket)
    assert snapshot["recovered"] is True
    assert [message["seq"] for message in messages] == missed
    assert socket.close_code == 1000


@on_server
async def test_many_tasks_on_one_socket(server: Served, new_task: TaskFactory) -> None:
    """Every snapshot, an error for the one that is not there, every end; and then the socket still answers."""
    tasks = {task.id: task for task in (new_task() for _ in range(120))}
    for task in tasks.values():
        task.became(State.STARTED)
    async with server.hub.socket("/ws") as socket:
        await send(socket, type="subscribe", tasks=[{"id": task_id} for task_id in [*tasks, "nobody"]])
        heard = {message["task_id"]: message for message in [await hear(socket) for _ in range(len(tasks) + 1)]}
        assert heard.pop("nobody")["code"] == 4404
        assert heard.keys() == tasks.keys()
        for task in tasks.values():
            task.succeeded()
        assert {(await hear(socket))["task_id"] for _ in tasks} == tasks.keys()
        await send(socket, type="ping")
        assert await hear(socket) == {"type": "pong"}
    await until(lambda: not any(watched(server.hub, task) for task in tasks.values()))


@on_server
async def test_the_rate_is_obeyed(server: Served, task: Task, burst: Burst) -> None:
    """A stream of progress at 4 Hz is a few messages, and a log line does not wait for its turn."""
    async with server.hub.socket(f"/ws/task/{task.id}") as socket:
        await hear(socket)
        await send(socket, type="rate", hz=4)
        await send(socket, type="ping")
        await hear(socket)
        loop = asyncio.get_running_loop()
        began, progress = loop.time(), 0
        with burst.running():
            while loop.time() < began + 1:
                progress += (await hear(socket))["type"] == "progress"
        assert 2 <= progress <= 6


@on_server
async def test_what_is_not_understood_is_told(server: Served, task: Task) -> None:
    """4400 for what makes no sense, also between events; 4404 for what is not there."""
    async with server.hub.socket("/ws/task/nobody") as socket:
        assert await code_of(socket) == (4404, "no such task")
    async with server.hub.socket(f"/ws/task/{task.id}") as socket:
        await hear(socket)
        await socket.send("no JSON")
        code, reason = await code_of(socket)
    assert code == 4400
    assert reason.startswith("malformed message")
    await until(lambda: server.hub.services.sockets == 0)


@on_server
async def test_who_vanishes_leaves_nothing(server: Served, task: Task, burst: Burst) -> None:
    """Reset, hung up or closed, while events run: the room is empty."""
    with burst.running():
        for leave in (lambda s: s.transport.abort(), lambda s: s.transport.close(), lambda s: s.close(3001)):
            sockets = [await server.hub.socket(f"/ws/task/{task.id}", max_queue=None) for _ in range(10)]
            for socket in sockets:
                await hear(socket)
            for socket in sockets:
                if (closing := leave(socket)) is not None:
                    await closing
            await until(lambda: server.hub.services.sockets == 0)
            assert not watched(server.hub, task)


@on_server
async def test_who_reads_late_finds_the_newest(server: Served, task: Task, burst: Burst) -> None:
    """Far more progress than any buffer holds costs a reader that pauses the old, and nothing else."""
    async with server.hub.socket(f"/ws/task/{task.id}", max_queue=1) as socket:
        await hear(socket)
        socket.transport.pause_reading()
        for _ in range(30):
            await asyncio.to_thread(burst.send, 1_000)
        newest = burst.seq
        room = server.hub.services.connections._open[task.id].room  # noqa: SLF001
        await until(lambda: room.seq == newest)
        socket.transport.resume_reading()
        seqs = []
        while not seqs or seqs[-1] != newest:
            seqs.append((await hear(socket))["seq"])
        assert seqs == sorted(set(seqs))
        assert len(seqs) < 29_000
