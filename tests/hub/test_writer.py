"""The writer: straight through while the socket takes it, and nothing lost, late or out of order when it does not."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

from hub.backlog import MAX_PENDING
from hub.message import Message, answer
from hub.writer import CHUNK, Gathered
from tests.hub.envelopes import Publisher
from tests.hub.writing import CLOSE, Socket, Transport, of, on_clock


def frames(*messages: Message) -> bytes:
    """One after the other."""
    return b"".join(message.frame for message in messages)


@on_clock
async def test_messages_pass_straight_through() -> None:
    """Each is written as it comes, as the very bytes that were framed: nothing waits and nothing is copied."""
    socket, task = Socket(), Publisher()
    messages = [of(task, kind) for kind in "plsp"] + [answer("pong")]
    for message in messages[:-1]:
        socket.writer.push(message)
    socket.writer.tell(messages[-1])
    assert socket.out.writes == [message.frame for message in messages]
    assert socket.writer._queue is None  # noqa: SLF001


@on_clock
async def test_a_full_socket_is_given_nothing() -> None:
    """Progress is conflated, what must arrive keeps its order, and all of it comes in one write when there is room."""
    socket, task = Socket(), Publisher()
    socket.writer.pause()
    messages = [of(task, kind) for kind in "ppplppsp"]
    for message in messages:
        socket.writer.push(message)
    assert socket.out.writes == []
    socket.takes()
    assert socket.out.writes == [frames(*(messages[index] for index in (2, 3, 5, 6, 7)))]
    socket.writer.push(last := of(task))
    assert socket.out.writes[1:] == [last.frame]


@on_clock
async def test_a_backlog_leaves_in_chunks() -> None:
    """No further than the socket takes it: the rest can still be conflated."""
    socket, tasks = Socket(), [Publisher(f"t{number}") for number in range(400)]
    socket.writer.pause()
    for task in tasks:
        socket.writer.push(of(task, "p"))
    socket.takes(CHUNK * 1.5)
    assert [CHUNK <= len(write) < CHUNK + 1_000 for write in socket.out.writes] == [True, True]
    newest = of(tasks[-1], "p")
    socket.writer.push(newest)
    socket.takes()
    assert socket.sent.endswith(newest.frame)
    assert socket.sent.count(b'"t399"') == 1


@on_clock
async def test_too_much_closes_at_once() -> None:
    """4408 is written the moment the bound is passed, without waiting for room, and all memory is given back."""
    socket, task = Socket(), Publisher()
    socket.writer.pause()
    for _ in range(MAX_PENDING):
        socket.writer.push(of(task))
    assert socket.finished is None
    socket.writer.push(of(task))
    assert socket.finished is not None
    assert socket.finished.code == 4408
    assert socket.out.writes == [CLOSE]
    socket.writer.push(of(task))
    socket.takes()
    assert socket.out.writes == [CLOSE]
    assert socket.writer._queue is None  # noqa: SLF001


@on_clock
async def test_a_rate_holds_back_progress_only() -> None:
    """Progress waits for its turn, the newest of each task; a log line does not, and takes along what was before it."""
    socket, tasks = Socket(), [Publisher(f"t{number}") for number in range(3)]
    socket.writer.hz = 1
    for task in tasks:
        socket.writer.push(of(task, "p"))
    assert len(socket.out.writes) == 1  # the first of them: nobody has been sent any yet
    for task in tasks:
        socket.writer.push(of(task, "p"))
    await asyncio.sleep(0.9)
    assert len(socket.out.writes) == 1
    await asyncio.sleep(0.2)
    assert socket.sent.count(b'"progress"') == 4
    assert all(task_id in socket.sent for task_id in (b'"t1"', b'"t2"'))
    socket.writer.push(of(tasks[0], "p"))
    socket.writer.push(log := of(tasks[1]))
    assert socket.sent.endswith(log.frame)
    assert socket.sent.count(b'"progress"') == 5


@on_clock
async def test_a_rate_counts_also_what_fills_the_socket() -> None:
    """Progress after which the socket is full was sent all the same: the next one is due a second later."""
    socket, task = Socket(), Publisher()
    socket.writer.hz = 1
    socket.out.room = 1
    socket.writer.push(of(task, "p"))
    socket.takes()
    socket.writer.push(of(task, "p"))
    await asyncio.sleep(0.9)
    assert len(socket.out.writes) == 1
    await asyncio.sleep(0.2)
    assert len(socket.out.writes) == 2


@on_clock
async def test_a_new_rate_counts_at_once() -> None:
    """Also the end of any: what was held back is sent, and from then on messages pass straight through."""
    socket, task = Socket(), Publisher()
    socket.writer.hz = 0.001
    socket.writer.push(of(task, "p"))
    socket.writer.push(of(task, "p"))
    assert len(socket.out.writes) == 1
    socket.writer.hz = 100
    assert len(socket.out.writes) == 2
    socket.writer.push(of(task, "p"))
    socket.writer.hz = None
    socket.writer.push(of(task, "p"))
    assert len(socket.out.writes) == 4


@on_clock
async def test_a_close_comes_after_what_is_waiting() -> None:
    """The first reason stays, and nothing is written behind it."""
    socket, task = Socket(), Publisher()
    socket.writer.pause()
    socket.writer.push(waiting := of(task))
    socket.writer.close(1001, "going away")
    socket.writer.close(1000, "another")
    for late in (socket.writer.push, socket.writer.tell, socket.writer.open):
        late(of(task))
    assert socket.out.writes == []
    socket.takes()
    assert socket.out.writes == [waiting.frame, CLOSE]
    assert socket.finished is not None
    assert socket.finished.code == 1001
    socket.writer.hz = 5
    socket.takes()
    assert socket.out.writes == [waiting.frame, CLOSE]


@on_clock
async def test_the_end_is_told_when_it_is_written() -> None:
    """A listener that closes then closes behind the last event, on a free socket, a full one and one with a rate."""
    for full, hz in ((False, None), (True, None), (False, 0.1), (True, 0.1)):
        socket, task = Socket(), Publisher()
        socket.ends = True
        socket.writer.hz = hz
        if full:
            socket.writer.pause()
        socket.writer.push(last := of(task, "t"))
        if full:
            assert socket.told_of == []
            socket.takes()
        assert (socket.told_of, socket.told_after) == ([last], [1])
        assert socket.sent == last.frame + CLOSE


@on_clock
async def test_several_ends_in_one_write() -> None:
    """All are told, and the close comes after all of them and what stood between."""
    socket, tasks = Socket(), [Publisher(f"t{number}") for number in range(3)]
    socket.ends = True
    socket.writer.pause()
    messages = [of(task, "t") for task in tasks]
    for message in messages:
        socket.writer.push(message)
    socket.takes()
    assert socket.sent == frames(*messages) + CLOSE
    assert socket.told_of == messages


@on_clock
async def test_emptied_waits_for_what_must_arrive() -> None:
    """Not for progress that a rate holds back; and for nobody who is gone or too slow."""
    socket, task = Socket(), Publisher()
    await socket.writer.emptied()
    for end in (socket.takes, lambda: socket.writer.stop()):
        socket.writer.pause()
        socket.writer.push(of(task))
        pacing = asyncio.ensure_future(socket.writer.emptied())
        await asyncio.sleep(1)
        assert not pacing.done()
        end()
        await pacing
    await socket.writer.emptied()
    slow = Socket()
    slow.writer.hz = 0.001
    slow.writer.push(of(task, "p"))
    slow.writer.push(of(task, "p"))
    await slow.writer.emptied()
    slow.writer.stop()


@on_clock
async def test_who_is_gone_leaves_nothing() -> None:
    """No timer, no message and no cycle; whoever still speaks to it speaks to nobody."""
    socket, task = Socket(), Publisher()
    writer, left = socket.writer, weakref.ref(socket)
    writer.hz = 0.001
    for kind in "pp":
        writer.push(of(task, kind))
    writer.gone()
    for late in (writer.push, writer.tell, writer.open):
        late(of(task))
    writer.pause()
    writer.drop("t1")
    writer.close(1000, "too late")
    writer.hz = 5
    await writer.emptied()
    assert len(socket.out.writes) == 1
    gc.disable()
    try:
        socket.out.full = lambda: None
        del socket
        assert left() is None
    finally:
        gc.enable()


@on_clock
async def test_frames_of_one_turn_are_gathered() -> None:
    """One write for all of them, in order; sooner when it is much; none once the transport is closing."""
    transport: Any = Transport()
    out = Gathered(asyncio.get_running_loop(), transport)
    for frame in (b"a", b"b", b"c"):
        out.write(frame)
    assert transport.writes == []
    await asyncio.sleep(0)
    assert transport.writes == [b"abc"]
    out.write(b"d")
    out.write(b"x" * CHUNK)
    assert transport.writes[1:] == [b"d" + b"x" * CHUNK]
    out.write(b"e")
    transport.closing = True
    await asyncio.sleep(0)
    assert len(transport.writes) == 2
