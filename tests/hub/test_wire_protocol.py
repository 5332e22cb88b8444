"""RFC 6455 on a socket that was taken over: every frame whole and in its place, whatever a client sends and when."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.frames import Opcode

from headway.events import State
from tests.conditions import until
from tests.hub.conftest import TaskFactory
from tests.hub.peers import Burst, Heard, close, connecting, control, handshake, open_at, text
from tests.hub.running import Task
from tests.hub.servers import OURS, Served, on_server, served

PING, PONG = {"type": "ping"}, {"type": "pong"}


@pytest.fixture(scope="module", params=OURS)
def server(
    request: pytest.FixtureRequest, redis_url: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A hub with our protocol, on each loop, plain and over TLS."""
    with served(OURS[request.param], redis_url, database_url, tmp_path_factory.mktemp("storage")) as server:
        yield server


def codes(frames: list[Heard]) -> list[int]:
    """Of the closes among some frames, the last of which is the only one."""
    assert all(frame.opcode != Opcode.CLOSE for frame in frames[:-1]), "a frame after the close"
    return [frame.code for frame in frames[-1:]]


@on_server
async def test_a_ping_is_answered_with_its_payload(server: Served, task: Task) -> None:
    """Between the fragments of a message as well; those of the message are put together."""
    async with open_at(server.hub, f"/ws/task/{task.id}") as peer:
        await peer.event()
        peer.writer.write(control(Opcode.PING, b"one"))
        peer.writer.write(text(b'{"type":', fin=False) + control(Opcode.PING, b"two") + control(Opcode.PONG))
        assert await peer.frame() == Heard(Opcode.PONG, b"one")
        assert await peer.frame() == Heard(Opcode.PONG, b"two")
        peer.writer.write(text(b'"pi', fin=False, opcode=Opcode.CONT) + text(b'ng"}', opcode=Opcode.CONT))
        assert await peer.event() == PONG


@on_server
async def test_a_close_of_the_client_is_echoed(server: Served, task: Task, burst: Burst) -> None:
    """With its code, behind it nothing though events go on, and the connection ends."""
    with burst.running():
        for code in (1000, 1001, 3456):
            async with open_at(server.hub, f"/ws/task/{task.id}") as peer:
                for _ in range(20):
                    await peer.frame()
                peer.writer.write(close(code))
                assert codes(await peer.rest()) == [code]
    await until(lambda: server.hub.services.sockets == 0)


@on_server
async def test_behind_our_close_nothing_comes(server: Served, task: Task, burst: Burst) -> None:
    """Though events go on and the client goes on asking; its echo ends the connection."""
    async with open_at(server.hub, f"/ws/task/{task.id}") as peer:
        await peer.event()
        with burst.running():
            for _ in range(20):
                await peer.frame()
            peer.writer.write(text(b"no JSON") + text(PING) + control(Opcode.PING))
            while (heard := await peer.frame()).opcode != Opcode.CLOSE:
                pass
            assert heard.code == 4400
            peer.writer.write(text(PING) + control(Opcode.PING) + close(4400))
            assert await peer.rest() == []


@on_server
async def test_an_end_is_the_last_but_the_close(server: Served, task: Task) -> None:
    """The terminal event, then 1000, and the connection stays until the client has echoed it."""
    async with open_at(server.hub, f"/ws/task/{task.id}") as peer:
        await peer.event()
        task.succeeded()
        assert (await peer.event())["state"] == "SUCCESS"
        assert (await peer.frame()).code == 1000
        peer.writer.write(close(1000))
        assert await peer.rest() == []


@on_server
async def test_a_close_behind_other_frames_of_one_segment(server: Served, task: Task) -> None:
    """What was asked before it is answered before it, and after the echo nothing is sent."""
    for _ in range(10):
        async with open_at(server.hub, f"/ws/task/{task.id}") as peer:
            await peer.event()
            peer.writer.write(control(Opcode.PING, b"x") + text(PING) + control(Opcode.PING, b"y") + close(1000))
            frames = await peer.rest()
            assert codes(frames) == [1000]
            assert [frame.data for frame in frames if frame.opcode == Opcode.PONG] == [b"x", b"y"]


@on_server
async def test_leaving_with_the_last_wish_leaves_nothing(server: Served, new_task: TaskFactory) -> None:
    """A subscription and a close in one segment: the work that was asked for ends, and so do the older watches."""
    tasks = [new_task() for _ in range(20)]
    for task in tasks:
        task.became(State.STARTED)
    watched = [{"id": task.id} for task in tasks]
    async with open_at(server.hub, "/ws") as peer:
        peer.writer.write(text({"type": "subscribe", "tasks": watched[:10]}))
        for _ in range(10):
            await peer.event()
        peer.writer.write(text({"type": "subscribe", "tasks": watched[10:]}) + close(1000))
        assert codes(await peer.rest()) == [1000]
    rooms = server.hub.services.connections._open  # noqa: SLF001
    await until(lambda: not any(rooms[task.id].room.members for task in tasks if task.id in rooms))
    assert server.hub.services.sockets == 0


@on_server
async def test_many_wishes_of_one_segment(server: Served, new_task: TaskFactory) -> None:
    """200 messages at once, among them what takes time: none is lost, and each answer is in its place."""
    tasks = [new_task() for _ in range(20)]
    for task in tasks:
        task.became(State.STARTED)
    asked = b""
    for task in tasks:
        asked += text({"type": "subscribe", "tasks": [{"id": task.id}]}) + text(PING) * 9
    async with open_at(server.hub, "/ws") as peer:
        peer.writer.write(asked)
        for task in tasks:
            assert (await peer.event())["task_id"] == task.id
            assert [await peer.event() for _ in range(9)] == [PONG] * 9
        peer.writer.write(text(PING))
        assert await peer.event() == PONG


@on_server
async def test_what_is_wrong_ends_what_waits_behind_it(server: Served, task: Task) -> None:
    """A malformed message behind a subscription, and a wish behind that: 4400, and the wish is not granted."""
    async with open_at(server.hub, "/ws") as peer:
        subscribe = {"type": "subscribe", "tasks": [{"id": task.id}]}
        peer.writer.write(text(subscribe) + text(b"no JSON") + text(PING) + text(subscribe))
        assert (await peer.event())["type"] == "snapshot"
        assert (await peer.frame()).code == 4400
        peer.writer.write(close(4400))
        assert await peer.rest() == []


@on_server
async def test_frames_may_come_in_pieces(server: Served, task: Task) -> None:
    """A handshake and a message, byte by byte."""
    async with connecting(server.hub) as peer:
        for byte in handshake(f"/ws/task/{task.id}"):
            peer.writer.write(bytes([byte]))
            await peer.writer.drain()
            await asyncio.sleep(0)
        await peer.accepted()
        await peer.event()
        for byte in text(PING):
            peer.writer.write(bytes([byte]))
            await peer.writer.drain()
            await asyncio.sleep(0.001)  # each in a segment of its own
        assert await peer.event() == PONG


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (text(b"\xff\xfe"), 1007),
        (bytes([0x81, 2]) + b"{}", 1002),  # not masked
        (bytes([0xC1, 0x80, 0, 0, 0, 0]), 1002),  # a reserved bit
        (bytes([0x83, 0x80, 0, 0, 0, 0]), 1002),  # a reserved opcode
        (text(PING, opcode=Opcode.CONT), 1002),  # goes on with nothing
        (text(b"{", fin=False) + text(PING), 1002),  # begins anew in the middle
        (bytes([0x89, 0xFE, 0, 126]) + bytes(130), 1002),  # a ping of 126 bytes
        (close(1), 1002),
    ],
    ids=["utf-8", "unmasked", "bit", "opcode", "continuation", "unfinished", "long-ping", "close-code"],
)
@on_server
async def test_what_breaks_the_protocol_is_told(
    server: Served, task: Task, burst: Burst, sent: bytes, code: int
) -> None:
    """1002, or 1007 for what is no text; behind it nothing, and nothing is left."""
    async with open_at(server.hub, f"/ws/task/{task.id}") as peer:
        await peer.event()
        with burst.running():
            peer.writer.write(sent)
            assert codes(await peer.rest()) == [code]
    await until(lambda: server.hub.services.sockets == 0)


@on_server
async def test_who_speaks_before_the_answer_is_not_heard(server: Served, task: Task) -> None:
    """A message in the segment of the handshake: a client must wait for the answer (RFC 6455, 4.1). No harm is done."""
    async with connecting(server.hub) as peer:
        peer.writer.write(handshake(f"/ws/task/{task.id}") + text({"type": "ping"}))
        await peer.accepted()
        assert (await peer.event())["type"] == "snapshot"
        peer.writer.write(control(Opcode.PING, b"next"))
        assert await peer.frame() == Heard(Opcode.PONG, b"next")


@on_server
async def test_who_hangs_up_in_the_handshake_is_no_error(
    server: Served, task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    """At any moment of it: nothing is left, and no traceback is logged."""

    async def leave(turns: int) -> None:
        async with connecting(server.hub) as peer:
            peer.writer.write(handshake(f"/ws/task/{task.id}"))
            for _ in range(turns):
                await asyncio.sleep(0)

    with caplog.at_level(logging.WARNING):
        await asyncio.gather(*(leave(turns) for turns in range(60)))
        tasks: Any = server.hub.server.server_state
        await until(lambda: server.hub.services.sockets == 0 and not tasks.tasks)
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
