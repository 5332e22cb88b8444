"""The connection manager: joins without a gap, whatever happens at each of its awaits."""

from __future__ import annotations

import asyncio
import gc

import pytest
import redis

from headway.events import Cursor, State
from hub import connections
from hub.backlog import Closed
from hub.connections import LINGER, UnknownTask
from hub.mailbox import Mailbox
from hub.rooms import Room
from tests.hub.envelopes import Clock, Publisher, Watcher
from tests.hub.fakes import Server, settle


@pytest.fixture
def task() -> Publisher:
    """A task that has started."""
    task = Publisher()
    task.became(State.STARTED)
    return task


async def told(watcher: Watcher) -> Watcher:
    """The watcher, once it has read what is due."""
    taking = asyncio.ensure_future(watcher.mailbox.take())
    await settle()
    if taking.done():
        watcher.read(taking.result())
    else:
        taking.cancel()
    return watcher


def test_an_event_while_the_snapshot_is_on_its_way_is_told_once(task: Publisher) -> None:
    """Published after the acknowledgement: it follows the snapshot or is in it, never both, never neither."""

    async def work() -> None:
        server, watcher = Server(task), Watcher()
        joining = asyncio.ensure_future(server.connections.join("t1", watcher.mailbox))
        await settle()
        server.acknowledge()
        await settle()
        server.publish("t1", task.said("in the snapshot"))
        server.serve()
        server.publish("t1", task.became(State.SUCCESS))
        server.deliver()
        server.deliver()
        server.reply()
        await joining
        assert (await told(watcher)).kept == task.kept
        assert watcher.state["state"] == "SUCCESS"
        await server.connections.aclose()

    Clock.run(work)


def test_nothing_is_read_before_the_acknowledgement(task: Publisher) -> None:
    """Subscribe, acknowledgement, snapshot: in this order there is no gap."""

    async def work() -> None:
        server = Server(task)
        joining = asyncio.ensure_future(server.connections.join("t1", Mailbox()))
        await settle()
        assert (server.counts["subscribe"], server.counts["read"]) == (1, 0)
        joining.cancel()
        await server.connections.aclose()

    Clock.run(work)


def test_many_joins_cause_one_subscription_and_one_read(task: Publisher) -> None:
    """10,000 sockets of one task cost Redis what one costs."""

    async def work() -> None:
        server, watchers = Server(task), [Watcher() for _ in range(200)]
        joining = [asyncio.ensure_future(server.connections.join("t1", watcher.mailbox)) for watcher in watchers]
        await settle()
        server.acknowledge()
        await settle()
        server.serve()
        server.reply()
        await asyncio.gather(*joining)
        await server.connections.join("t1", Mailbox())
        assert server.counts == {"subscribe": 1, "unsubscribe": 0, "read": 1}
        for watcher in watchers:
            assert (await told(watcher)).kept == 1
        await server.connections.aclose()

    Clock.run(work)


def test_an_unknown_task_is_refused_and_leaves_nothing(task: Publisher) -> None:
    """No room, no subscription, no task of the loop; asking again asks again."""

    async def work() -> None:
        server = Server(task, eager=True)
        for number in range(100):
            with pytest.raises(UnknownTask):
                await server.connections.join(f"nobody-{number}", Mailbox())
        await settle()
        assert server.connections.rooms == 0
        assert server.subscribed == {}
        assert not server.connections._tasks  # noqa: SLF001

    Clock.run(work)


def test_a_failed_read_is_told_to_all_who_wait_and_to_nobody_after(task: Publisher) -> None:
    """Redis away: everybody who joined hears why; the next one begins anew."""

    async def work() -> None:
        server = Server(task)
        joining = [asyncio.ensure_future(server.connections.join("t1", Mailbox())) for _ in range(3)]
        await settle()
        server.acknowledge()
        await settle()
        server.fail()
        ends = await asyncio.gather(*joining, return_exceptions=True)
        assert [type(end) for end in ends] == [redis.ConnectionError] * 3
        await settle()
        assert server.subscribed == {}
        server.eager = True
        await server.connections.join("t1", Mailbox())
        await server.connections.aclose()

    Clock.run(work)


def test_a_room_waits_for_one_who_reconnects(task: Publisher) -> None:
    """Left and joined again within the linger: nothing is subscribed or read again, nothing is missed."""

    async def work() -> None:
        server, watcher = Server(task, eager=True), Watcher()
        await server.connections.join("t1", watcher.mailbox)
        await told(watcher)
        server.connections.leave("t1", watcher.mailbox)
        await asyncio.sleep(LINGER - 1)
        server.publish("t1", task.said())
        server.deliver()
        watcher.mailbox = Mailbox()
        await server.connections.join("t1", watcher.mailbox, watcher.cursor)
        await asyncio.sleep(LINGER * 2)
        assert (await told(watcher)).kept == 2
        assert watcher.restarts == 0
        assert server.counts == {"subscribe": 1, "unsubscribe": 0, "read": 1}
        await server.connections.aclose()

    Clock.run(work)


def test_a_room_goes_with_its_last_watcher(task: Publisher) -> None:
    """After the linger nothing of the task is left in this process; leaving twice changes nothing."""

    async def work() -> None:
        server, first, second = Server(task, eager=True), Mailbox(), Mailbox()
        for mailbox in (first, second):
            await server.connections.join("t1", mailbox)
        for mailbox in (first, first):
            server.connections.leave("t1", mailbox)
        await asyncio.sleep(LINGER * 2)
        assert server.connections.rooms == 1
        server.connections.leave("t1", second)
        await asyncio.sleep(LINGER * 2)
        assert server.connections.rooms == 0
        assert server.subscribed == {}
        assert server.counts["unsubscribe"] == 1

    Clock.run(work)


def test_the_last_leaves_while_the_next_is_joining(task: Publisher) -> None:
    """The room is not taken from under who waits for the store's answer to its cursor."""

    async def work() -> None:
        server, first, second = Server(task, eager=True), Mailbox(), Watcher()
        await server.connections.join("t1", first)
        server.eager = False
        joining = asyncio.ensure_future(server.connections.join("t1", second.mailbox, Cursor(task.epoch, 0)))
        await settle()
        server.connections.leave("t1", first)
        await asyncio.sleep(LINGER * 3)
        server.serve()
        server.reply()
        await joining
        server.publish("t1", task.said())
        server.deliver()
        second.cursor = Cursor(task.epoch, 0)
        assert (await told(second)).kept == 2
        await server.connections.aclose()

    Clock.run(work)


def test_a_cancelled_join_lets_nobody_in(task: Publisher) -> None:
    """The room is opened for the others, and goes if there is none; its mailbox gets nothing."""

    async def work() -> None:
        server, gone, other = Server(task), Mailbox(), Watcher()
        leaving = asyncio.ensure_future(server.connections.join("t1", gone))
        staying = asyncio.ensure_future(server.connections.join("t1", other.mailbox))
        await settle()
        leaving.cancel()
        await settle()
        server.acknowledge()
        await settle()
        server.serve()
        server.reply()
        await staying
        assert (await told(other)).kept == 1
        (place,) = server.connections._open.values()  # noqa: SLF001
        assert place.room.members == {other.mailbox}
        await server.connections.aclose()

    Clock.run(work)


def test_a_join_that_all_gave_up_is_forgotten(task: Publisher) -> None:
    """Redis away for longer than anybody waits: nothing stays that waits for its acknowledgement."""

    async def work() -> None:
        server = Server(task)
        joining = asyncio.ensure_future(server.connections.join("t1", Mailbox()))
        await settle()
        joining.cancel()
        await asyncio.sleep(LINGER * 2)
        assert server.connections.rooms == 0
        assert not server.asked
        assert not server.connections._tasks  # noqa: SLF001

    Clock.run(work)


def test_a_break_during_the_first_read_is_made_good(task: Publisher) -> None:
    """The answer may be from before the break, and the end of the task fell into it: the store is read once more."""

    async def work() -> None:
        server, watcher = Server(task), Watcher()
        joining = asyncio.ensure_future(server.connections.join("t1", watcher.mailbox))
        await settle()
        server.acknowledge()
        await settle()
        server.serve()
        server.cut()
        server.publish("t1", task.became(State.SUCCESS))
        server.mend()
        server.reply()
        await joining
        await settle()
        server.serve()
        server.reply()
        assert (await told(watcher)).state["state"] == "SUCCESS"
        await server.connections.aclose()

    Clock.run(work)


def test_a_room_keeps_trying_and_stops_when_nobody_watches(task: Publisher) -> None:
    """A resync outlives an outage, but not its last watcher."""

    async def work() -> None:
        server, mailbox = Server(task, eager=True), Mailbox()
        await server.connections.join("t1", mailbox)
        server.eager = False
        server.mend()
        for _ in range(5):
            await asyncio.sleep(connections.RETRY[1])
            server.fail()
        assert server.counts["read"] > 5
        server.connections.leave("t1", mailbox)
        await asyncio.sleep(LINGER * 2)
        while server.reads:
            server.fail()
            await asyncio.sleep(connections.RETRY[1] * 2)
        assert not server.connections._tasks  # noqa: SLF001

    Clock.run(work)


def test_a_room_speaks_for_its_task_only_while_it_hears_it(task: Publisher) -> None:
    """Not before it is loaded, not while the link is broken or the store is read again, not once that has lost it."""

    async def work() -> None:
        server = Server(task)
        manager, mailbox = server.connections, Mailbox()
        joining = asyncio.ensure_future(manager.join("t1", mailbox))
        await settle()
        server.acknowledge()
        await settle()
        assert manager.room("t1") is None
        server.serve()
        server.reply()
        await joining
        room = manager.room("t1")
        assert room is not None
        assert room.cursor == task.cursor
        server.cut()
        assert manager.room("t1") is None
        server.mend()
        await settle()
        assert manager.room("t1") is None
        server.serve()
        server.reply()
        await settle()
        assert manager.room("t1") is room
        del server.tasks["t1"]
        server.cut()
        server.mend()
        await settle()
        server.serve()
        server.reply()
        await settle()
        assert manager.room("t1") is None
        assert manager.room("t2") is None
        await manager.aclose()

    Clock.run(work)


def test_garbage_in_the_store_is_told(task: Publisher, caplog: pytest.LogCaptureFixture) -> None:
    """A room that cannot be read closes its watchers, and the next one begins anew."""

    async def work() -> None:
        server, mailbox = Server(task, eager=True), Mailbox()
        await server.connections.join("t1", mailbox)
        await mailbox.take()
        server.eager = False
        server.mend()
        await settle()
        server.reads.popleft().answer.set_exception(ValueError("not an event"))
        await settle()
        with pytest.raises(Closed, match="1013"):
            await mailbox.take()
        assert server.connections.rooms == 0
        assert server.subscribed == {}
        server.connections.leave("t1", mailbox)

    Clock.run(work)
    assert "cannot be read" in caplog.text


def test_garbage_on_the_channel_is_ignored(task: Publisher, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody else's message is logged and changes nothing."""

    async def work() -> None:
        server, watcher = Server(task, eager=True), Watcher()
        await server.connections.join("t1", watcher.mailbox)
        (listener,) = server.subscribed.values()
        for payload in (b"", b"hello", b"p 1 2\n{}", b"x 1 2 3\n{}", b"p a b c\n{}"):
            listener.received(payload)
        assert (await told(watcher)).seen == []
        await server.connections.aclose()

    Clock.run(work)
    assert caplog.text.count("ignored on the channel of task t1") == 5


def test_a_room_that_has_gone_takes_no_memory(task: Publisher) -> None:
    """It goes with all it remembers, which may be megabytes, and not at some later garbage collection."""

    def rooms() -> int:
        return sum(isinstance(found, Room) for found in gc.get_objects())

    async def work() -> None:
        server = Server(task, eager=True)
        await server.connections.join("t1", mailbox := Mailbox())
        gc.collect()
        before = rooms()
        gc.disable()
        try:
            server.connections.leave("t1", mailbox)
            await asyncio.sleep(LINGER * 2)
            await settle()
            assert rooms() == before - 1
        finally:
            gc.enable()

    Clock.run(work)


def test_nothing_grows_with_tasks_that_come_and_go() -> None:
    """A thousand tasks watched to their end leave the manager as it was."""

    async def work() -> None:
        tasks = [Publisher(f"t{number}") for number in range(1_000)]
        server = Server(*tasks, eager=True)
        for task in tasks:
            task.became(State.STARTED)
            await server.connections.join(task.task_id, mailbox := Mailbox())
            server.connections.leave(task.task_id, mailbox)
        await asyncio.sleep(LINGER * 2)
        await settle()
        assert (server.connections.rooms, server.subscribed, server.connections._tasks) == (0, {}, set())  # noqa: SLF001

    Clock.run(work)


def test_closing_ends_what_waits(task: Publisher) -> None:
    """Shutdown: joins and resyncs end, nothing is left running."""

    async def work() -> None:
        server = Server(task)
        joining = asyncio.ensure_future(server.connections.join("t1", Mailbox()))
        await settle()
        await server.connections.aclose()
        await asyncio.gather(joining, return_exceptions=True)
        await settle()
        assert joining.done()
        assert not server.connections._tasks  # noqa: SLF001

    Clock.run(work)
