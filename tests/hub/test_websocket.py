"""The WebSocket side of a hub that runs."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from typing import Any

import pytest
import redis
import websockets

from headway.events import State, decode
from hub.wire import WRITE_LIMIT, WireProtocol
from tests.conditions import until
from tests.hub.conftest import TaskFactory
from tests.hub.running import Hub, Task, code_of, collect, stream

pytestmark = pytest.mark.usefixtures("catalogue")


async def hear(socket: Any) -> dict[str, Any]:
    """The next message."""
    message: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 10))
    return message


async def send(socket: Any, message: Any) -> None:
    """A message of the client."""
    await socket.send(json.dumps(message))


async def test_the_snapshot_comes_first_and_1000_last(hub: Hub, task: Task) -> None:
    """Snapshot, live events in order, the terminal one, then close 1000 "finished"."""
    task.progress(10)
    async with hub.socket(f"/ws/task/{task.id}") as socket:
        assert (await hear(socket))["type"] == "snapshot"
        task.said("a")
        task.said("b")
        task.succeeded()
        messages = await collect(socket)
    assert [message["type"] for message in messages] == ["log", "log", "state"]
    assert messages[-1]["result"] == {"rows": 3}
    assert (socket.close_code, socket.close_reason) == (1000, "finished")


async def test_every_message_is_an_event(hub: Hub, task: Task) -> None:
    """Snapshot and events decode as what DESIGN.md says they are."""
    async with hub.socket(f"/ws/task/{task.id}") as socket:
        first = decode(await socket.recv())
        assert (first.v, first.type, first.task_id, first.seq, first.state) == (1, "snapshot", task.id, 1, "STARTED")
        task.progress(42)
        event = decode(await socket.recv())
        assert (event.type, event.current, event.percent, event.prev) == ("progress", 42, 42.0, 1)


async def test_the_subprotocol_is_echoed(hub: Hub, task: Task) -> None:
    """Only headway.v1 is, whatever else is offered; without an offer there is none."""
    async with hub.socket(f"/ws/task/{task.id}", subprotocols=["headway.v1", "bearer.x"]) as socket:
        assert socket.subprotocol == "headway.v1"
    async with hub.socket(f"/ws/task/{task.id}") as socket:
        assert socket.subprotocol is None


async def hear_kept(socket: Any) -> dict[str, Any]:
    """The next state or log event; progress that was still on its way to the hub may come before it."""
    while (heard := await hear(socket))["type"] == "progress":
        pass
    return heard


async def test_a_cursor_brings_exactly_what_was_missed(hub: Hub, task: Task) -> None:
    """recovered: true, then each missed state and log event, and no other."""
    async with hub.socket(f"/ws/task/{task.id}") as socket:
        cursor = (await hear(socket))["cursor"]
    task.progress(10)
    missed = [task.said("a"), task.became(State.RETRY, reason="x"), task.became(State.STARTED)]
    task.progress(20)
    async with hub.socket(f"/ws/task/{task.id}?cursor={cursor}") as socket:
        snapshot = await hear(socket)
        assert snapshot["recovered"] is True
        got = [await hear_kept(socket) for _ in missed]
        assert [event["seq"] for event in got] == [position.seq for position in missed]
        live = task.said("live")
        assert (await hear_kept(socket))["seq"] == live.seq


async def test_more_missed_than_the_store_keeps_is_told(hub: Hub, task: Task) -> None:
    """recovered: false when the past is gone, and nothing made up in its place."""
    first = task.said()
    for _ in range(1_300):
        task.said()
    async with hub.socket(f"/ws/task/{task.id}?cursor={first.epoch}-{first.seq}") as socket:
        snapshot = await hear(socket)
        assert snapshot["recovered"] is False
        live = task.said("live")
        heard = await hear(socket)
        while heard["type"] == "progress":  # the newest one may have been on its way to the hub
            heard = await hear(socket)
        assert heard["seq"] == live.seq


async def test_a_long_absence_is_made_good(hub: Hub, task: Task) -> None:
    """900 missed events arrive, every one, and the socket stays open for the next."""
    first = task.said()
    for _ in range(900):
        task.said()
    async with hub.socket(f"/ws/task/{task.id}?cursor={first.epoch}-{first.seq}") as socket:
        assert (await hear(socket))["recovered"] is True
        assert [(await hear(socket))["seq"] for _ in range(900)] == list(range(3, 903))
        task.succeeded()
        assert await code_of(socket) == (1000, "finished")


@pytest.mark.parametrize("cursor", ["1-1", "9999999999999-5", "{epoch}-999"])
async def test_a_cursor_of_another_life_is_told(hub: Hub, task: Task, cursor: str) -> None:
    """Another epoch, or a seq that has not been yet: recovered false."""
    epoch = task.said().epoch
    async with hub.socket(f"/ws/task/{task.id}?cursor={cursor.format(epoch=epoch)}") as socket:
        assert (await hear(socket))["recovered"] is False


async def test_before_during_and_after_all_see_the_same_end(hub: Hub, new_task: TaskFactory) -> None:
    """WebSocket, SSE and polling, whenever they begin: the same terminal event, and every kept event's prev fits."""
    task = new_task()
    position = await hub.services.store.submit(task.id, 1.0, {"task": "simulate"})
    assert position.seq == 1

    async def socket() -> list[dict[str, Any]]:
        async with hub.socket(f"/ws/task/{task.id}") as opened:
            return await collect(opened)

    async def sse() -> list[dict[str, Any]]:
        async with hub.client.stream("GET", f"/tasks/{task.id}/events") as response:
            return [message.data async for message in stream(response) if not isinstance(message, str)]

    async def polling() -> list[dict[str, Any]]:
        answers, cursor = [], ""
        more = True
        while more:
            answer = await hub.client.get(f"/tasks/{task.id}", params={"cursor": cursor}, headers={"Prefer": "wait=20"})
            answers.append(answer.json())
            cursor = answers[-1]["cursor"]
            more = "Retry-After" in answer.headers
        return answers

    async with asyncio.TaskGroup() as group:
        watching = [group.create_task(watch()) for watch in (socket, sse, polling)]
        rooms = hub.services.connections._open  # noqa: SLF001
        await until(lambda: task.id in rooms and len(rooms[task.id].room.members) == 3)
        task.became(State.STARTED)
        for number in range(1, 60):
            task.progress(number)
            task.said(str(number))
            if number == 30:
                watching += [group.create_task(watch()) for watch in (socket, sse, polling)]
            await asyncio.sleep(0)
        task.succeeded()
        watching += [group.create_task(watch()) for watch in (socket, sse, polling)]
    ends = []
    for index, work in enumerate(watching):
        messages = work.result()
        ends.append({name: messages[-1][name] for name in ("task_id", "cursor", "state", "result", "percent", "ts")})
        if index % 3 < 2:
            kept = messages[0]["prev"]
            for message in messages[1:]:
                assert message["prev"] == kept
                kept = message["seq"] if message["type"] != "progress" else kept
    assert ends == [ends[0]] * len(ends)
    assert ends[0]["state"] == "SUCCESS"


async def test_ping_is_answered(hub: Hub, task: Task) -> None:
    """`pong`, on both kinds of socket."""
    async with hub.socket(f"/ws/task/{task.id}") as socket:
        await hear(socket)
        await send(socket, {"type": "ping"})
        assert await hear(socket) == {"type": "pong"}
    async with hub.socket("/ws") as socket:
        await send(socket, {"type": "ping"})
        assert await hear(socket) == {"type": "pong"}


async def test_the_rate_is_obeyed(hub: Hub, task: Task) -> None:
    """At 2 Hz a burst of progress is one message now and one half a second later; the end is not delayed."""
    async with hub.socket(f"/ws/task/{task.id}") as socket:
        await hear(socket)
        await send(socket, {"type": "rate", "hz": 2})
        await send(socket, {"type": "ping"})
        await hear(socket)
        for number in range(1, 100):
            task.progress(number)
            await asyncio.sleep(0.005)
        task.succeeded()
        messages = await collect(socket)
    assert 1 <= sum(message["type"] == "progress" for message in messages) <= 4
    assert messages[-1]["state"] == "SUCCESS"


async def test_an_unknown_task_is_4404(hub: Hub) -> None:
    """Never PENDING; and nothing of it stays."""
    async with hub.socket("/ws/task/nobody") as socket:
        assert await code_of(socket) == (4404, "no such task")
    await until(lambda: "nobody" not in hub.services.connections._open)  # noqa: SLF001


@pytest.mark.parametrize("cursor", ["x", "1", "1-", "-1-1", "1-1-1", "1.5-2", "%00", "\u0661-1", "9" * 40 + "-1"])
async def test_a_malformed_cursor_is_4400(hub: Hub, task: Task, cursor: str) -> None:
    """With what a well-formed one looks like."""
    async with hub.socket(f"/ws/task/{task.id}?cursor={cursor}") as socket:
        code, reason = await code_of(socket)
    assert code == 4400
    assert "malformed cursor" in reason


@pytest.mark.parametrize("path", ["/ws", "/ws/task/{id}"])
@pytest.mark.parametrize(
    "message",
    [
        b"\x00\x01",
        "",
        "hello",
        "[]",
        "{}",
        '{"type":"dance"}',
        '{"type":"rate"}',
        '{"type":"rate","hz":0}',
        '{"type":"rate","hz":-1}',
        '{"type":"rate","hz":"fast"}',
        '{"type":"rate","hz":1e999}',
        '{"type":"ping","x":' + "[" * 50_000 + "]" * 50_000 + "}",
        '{"type":"ping","x":"' + "y" * 300_000 + '"}',
    ],
    ids=lambda message: str(message)[:24],
)
async def test_a_message_that_makes_no_sense_is_4400(hub: Hub, task: Task, path: str, message: str | bytes) -> None:
    """Binary, oversize, not JSON, of no known type, with wrong members: said why, and the socket is closed."""
    async with hub.socket(path.format(id=task.id)) as socket:
        await socket.send(message)
        code, reason = await code_of(socket)
    assert code == 4400
    assert reason


async def test_a_message_beyond_all_measure_is_1009(hub: Hub, task: Task) -> None:
    """More than is received at all."""
    async with hub.socket(f"/ws/task/{task.id}", max_size=None) as socket:
        await socket.send("x" * 2_000_000)
        assert (await code_of(socket))[0] == 1009


async def test_cancel_says_that_it_cannot(hub: Hub, task: Task) -> None:
    """Not a malformed message: an honest answer, and the watch goes on."""
    async with hub.socket(f"/ws/task/{task.id}") as socket:
        await hear(socket)
        await send(socket, {"type": "cancel"})
        assert (await hear(socket))["type"] == "error"
        task.succeeded()
        assert await code_of(socket) == (1000, "finished")


@pytest.mark.parametrize("path", ["/ws", "/ws/task/{id}"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://[::1", "http://127.0.0.1:1"])
async def test_a_foreign_origin_is_4403(hub: Hub, task: Task, path: str, origin: str) -> None:
    """Any page can open a socket to any address: only the listed and the own origin may."""
    async with hub.socket(path.format(id=task.id), origin=origin) as socket:
        assert (await code_of(socket))[0] == 4403


async def test_own_and_listed_origins_may_watch(hub: Hub, task: Task) -> None:
    """The page of this hub, and those of HEADWAY_ORIGINS."""
    for origin in (hub.url, "https://page.example"):
        async with hub.socket(f"/ws/task/{task.id}", origin=origin) as socket:
            assert (await hear(socket))["type"] == "snapshot"


async def test_too_many_sockets_are_4429(hub: Hub, task: Task) -> None:
    """One more than the limit is told to back off; when another has gone, there is room again."""
    opened = [await hub.socket(f"/ws/task/{task.id}") for _ in range(hub.services.settings.max_sockets)]
    for socket in opened:
        await hear(socket)
    async with hub.socket(f"/ws/task/{task.id}") as socket:
        assert (await code_of(socket))[0] == 4429
    for socket in opened:
        await socket.close()
    await until(lambda: hub.services.sockets == 0)
    async with hub.socket(f"/ws/task/{task.id}") as socket:
        assert (await hear(socket))["type"] == "snapshot"


async def test_one_socket_watches_many_tasks(hub: Hub, new_task: TaskFactory) -> None:
    """Each with its snapshot and its events; their ends do not end the socket."""
    tasks = [new_task() for _ in range(20)]
    for task in tasks:
        task.became(State.STARTED)
    async with hub.socket("/ws") as socket:
        await send(socket, {"type": "subscribe", "tasks": [{"id": task.id} for task in tasks]})
        snapshots = [await hear(socket) for _ in tasks]
        assert {message["task_id"] for message in snapshots} == {task.id for task in tasks}
        for task in tasks:
            task.succeeded()
        ends = [await hear(socket) for _ in tasks]
        assert {message["task_id"] for message in ends if message["state"] == "SUCCESS"} == {task.id for task in tasks}
        await send(socket, {"type": "ping"})
        assert await hear(socket) == {"type": "pong"}


async def test_a_thousand_tasks_and_not_one_more(hub: Hub, new_task: TaskFactory) -> None:
    """1,000 a socket; the 1,001st is refused, with the number."""
    tasks = [new_task() for _ in range(1_000)]
    for task in tasks:
        task.became(State.STARTED)
    watched = [{"id": task.id} for task in tasks]
    async with hub.socket("/ws") as socket:
        await send(socket, {"type": "subscribe", "tasks": watched})
        assert {(await hear(socket))["task_id"] for _ in tasks} == {task.id for task in tasks}
        await send(socket, {"type": "subscribe", "tasks": [{"id": "one-more"}]})
        code, reason = await code_of(socket)
    assert code == 4400
    assert "1000" in reason
    async with hub.socket("/ws") as socket:
        await send(socket, {"type": "subscribe", "tasks": [*watched, {"id": "one-more"}]})
        assert (await code_of(socket))[0] == 4400


async def test_unsubscribing_ends_a_tasks_events(hub: Hub, new_task: TaskFactory) -> None:
    """By id or as it was subscribed; the others go on, and the room is empty."""
    first, second, third = tasks = [new_task() for _ in range(3)]
    for task in tasks:
        task.became(State.STARTED)
    async with hub.socket("/ws") as socket:
        await send(socket, {"type": "subscribe", "tasks": [{"id": task.id} for task in tasks]})
        for _ in tasks:
            await hear(socket)
        await send(socket, {"type": "unsubscribe", "tasks": [first.id, {"id": second.id}, "never-subscribed"]})
        await send(socket, {"type": "ping"})
        assert await hear(socket) == {"type": "pong"}
        for task in tasks:
            task.said()
        assert (await hear(socket))["task_id"] == third.id
        assert not hub.services.connections._open[first.id].room.members  # noqa: SLF001


async def test_subscribing_with_a_cursor_recovers(hub: Hub, task: Task) -> None:
    """As the socket of one task does; said twice in one message it is one subscription."""
    position = task.said("a")
    task.said("b")
    cursor = f"{position.epoch}-{position.seq}"
    async with hub.socket("/ws") as socket:
        watched = {"id": task.id, "cursor": cursor}
        await send(socket, {"type": "subscribe", "tasks": [watched, watched]})
        assert (await hear(socket))["recovered"] is True
        assert (await hear(socket))["message"] == "b"
        await send(socket, {"type": "ping"})
        assert await hear(socket) == {"type": "pong"}


async def test_one_wrong_task_does_not_end_the_others(hub: Hub, task: Task) -> None:
    """An unknown id and a malformed cursor get an error entry with the code; the rest is watched."""
    wanted = [{"id": "nobody"}, {"id": task.id, "cursor": None}, {"id": "x", "cursor": "zzz"}]
    async with hub.socket("/ws") as socket:
        await send(socket, {"type": "subscribe", "tasks": wanted})
        messages = {message["task_id"]: message for message in [await hear(socket) for _ in wanted]}
    assert messages["nobody"]["code"] == 4404
    assert messages["x"]["code"] == 4400
    assert messages[task.id]["type"] == "snapshot"


async def test_the_feed_tells_of_every_task(hub: Hub, new_task: TaskFactory) -> None:
    """Every change of state, of tasks nobody asked for by name; no progress, no log lines."""
    async with hub.socket("/ws") as socket:
        await send(socket, {"type": "subscribe", "feed": "recent"})
        assert await hear(socket) == {"type": "feed", "feed": "recent", "recovered": True}
        task = new_task()
        task.became(State.STARTED)
        task.progress()
        task.said()
        task.failed()
        assert [(await hear(socket))["state"] for _ in range(2)] == ["STARTED", "FAILURE"]
        await send(socket, {"type": "unsubscribe", "feed": "recent"})
        await send(socket, {"type": "ping"})
        assert await hear(socket) == {"type": "pong"}


async def test_there_is_one_feed(hub: Hub) -> None:
    """Another name is refused with the one there is."""
    async with hub.socket("/ws") as socket:
        await send(socket, {"type": "subscribe", "feed": "everything"})
        code, reason = await code_of(socket)
    assert code == 4400
    assert "recent" in reason


async def test_a_client_that_vanishes_leaves_nothing(hub: Hub, task: Task) -> None:
    """Its connection is reset: the room forgets it, and the others are not disturbed."""
    async with hub.socket(f"/ws/task/{task.id}") as staying:
        await hear(staying)
        socket = await hub.socket(f"/ws/task/{task.id}")
        await hear(socket)
        room = hub.services.connections._open[task.id].room  # noqa: SLF001
        assert len(room.members) == 2
        socket.transport.abort()
        await until(lambda: len(room.members) == 1)
        task.succeeded()
        assert await code_of(staying) == (1000, "finished")
    await until(lambda: hub.services.sockets == 0)


async def test_an_unknown_path_is_no_socket(hub: Hub) -> None:
    """Refused at the handshake."""
    with pytest.raises(websockets.InvalidStatus) as refused:
        await hub.socket("/ws/nothing")
    assert refused.value.response.status_code in (403, 404)


async def test_a_client_that_reads_nothing_costs_only_itself(hub: Hub, task: Task, redis_url: str) -> None:
    """It is told 4408 or dropped; who reads sees everything, meanwhile and after."""
    stalled = await hub.socket(f"/ws/task/{task.id}", max_queue=1)
    stalled.transport.pause_reading()
    async with hub.socket(f"/ws/task/{task.id}", max_queue=None) as reader:
        await hear(reader)
        room = hub.services.connections._open[task.id].room  # noqa: SLF001
        await until(lambda: len(room.members) == 2)
        got: list[int] = []

        async def read() -> None:
            while True:
                got.append((await hear(reader))["seq"])

        reading = asyncio.create_task(read())
        with redis.Redis.from_url(redis_url):
            for _ in range(4_000):
                if len(room.members) < 2:
                    break
                await asyncio.to_thread(lambda: [task.said("x" * 20_000) for _ in range(50)])
                await until(lambda: len(got) > 0 and got[-1] == room.cursor.seq)
        assert len(room.members) == 1
        assert reading.done() is False
        assert got == list(range(2, 2 + len(got)))
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    stalled.transport.abort()
    await until(lambda: hub.services.sockets == 0)


async def test_pings_that_nobody_hears_answered_pile_up_nowhere(hub: Hub, task: Task) -> None:
    """A flood of them by a client that reads nothing: what waits for it stays within the limit of a socket."""
    address = hub.url.removeprefix("http://")
    plain = sockets.socket()
    plain.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
    plain.setblocking(False)
    host, _, port = address.partition(":")
    loop = asyncio.get_running_loop()
    await loop.sock_connect(plain, (host, int(port)))
    request = f"GET /ws/task/{task.id} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    await loop.sock_sendall(plain, (request + key).encode())
    rooms = hub.services.connections._open  # noqa: SLF001
    await until(lambda: task.id in rooms and len(rooms[task.id].room.members) == 1)
    (connection,) = [one for one in hub.server.server_state.connections if isinstance(one, WireProtocol)]
    pings = (b"\x89\xfd\x00\x00\x00\x00" + b"p" * 125) * 500
    largest = 0
    for _ in range(20):
        await asyncio.wait_for(loop.sock_sendall(plain, pings), 10)
        largest = max(largest, connection.transport.get_write_buffer_size())
    plain.close()
    assert WRITE_LIMIT < largest < 4 * WRITE_LIMIT
    await until(lambda: hub.services.sockets == 0)
