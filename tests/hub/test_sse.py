"""The SSE side of a hub that runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
import redis

from headway.events import State
from hub import sse
from tests.conditions import until
from tests.hub.conftest import TaskFactory
from tests.hub.running import Hub, Sent, Task, stream


@contextlib.asynccontextmanager
async def watching(hub: Hub, task: Task, **headers: str) -> AsyncIterator[AsyncIterator[Sent | str]]:
    """An open stream."""
    async with hub.client.stream("GET", f"/tasks/{task.id}/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield stream(response)


async def messages(sent: AsyncIterator[Sent | str]) -> list[Sent]:
    """Every message until the end."""
    return [message async for message in sent if isinstance(message, Sent)]


async def test_the_stream_ends_after_the_terminal_event(hub: Hub, task: Task) -> None:
    """Snapshot, events, end; `event:` is the type, `id:` the cursor, `retry:` comes once."""
    async with watching(hub, task) as sent:
        first = await anext(sent)
        assert isinstance(first, Sent)
        assert (first.event, first.retry) == ("snapshot", sse.RETRY)
        task.said()
        task.succeeded()
        rest = await messages(sent)
    assert [message.event for message in rest] == ["log", "state"]
    assert [message.retry for message in rest] == [None, None]
    assert [message.id for message in [first, *rest]] == [message.data["cursor"] for message in [first, *rest]]


async def test_a_browser_resumes_where_it_was(hub: Hub, task: Task) -> None:
    """Last-Event-ID brings exactly the missed events; the snapshot before them is no place to resume."""
    position = task.said("a")
    task.said("b")
    task.succeeded()
    async with watching(hub, task, **{"Last-Event-ID": f"{position.epoch}-{position.seq}"}) as sent:
        snapshot, *rest = await messages(sent)
    assert snapshot.data["recovered"] is True
    assert snapshot.id is None
    assert [message.data["seq"] for message in rest] == [3, 4]


async def test_a_browser_that_has_seen_the_end_is_told_to_stop(hub: Hub, task: Task) -> None:
    """204: an EventSource comes back after every end, for ever. One that has not seen it all gets the rest."""
    task.said("a")
    end = task.succeeded()
    address = f"/tasks/{task.id}/events"
    answer = await hub.client.get(address, headers={"Last-Event-ID": f"{end.epoch}-{end.seq}"})
    assert (answer.status_code, answer.content) == (204, b"")
    answer = await hub.client.get(f"{address}?cursor={end.epoch}-{end.seq}")
    assert (answer.status_code, answer.text.count("event: snapshot")) == (200, 1)


async def test_a_cursor_in_the_query_does_the_same(hub: Hub, task: Task) -> None:
    """For clients that set no headers; the header, which is newer, wins."""
    position = task.said("a")
    task.said("b")
    task.succeeded()
    stale = f"{position.epoch}-1"
    for headers, count in (({}, 3), ({"Last-Event-ID": f"{position.epoch}-3"}, 1)):
        answer = await hub.client.get(f"/tasks/{task.id}/events?cursor={stale}", headers=headers)
        assert answer.text.count("event: state") + answer.text.count("event: log") == count


async def test_a_quiet_stream_is_kept_alive(hub: Hub, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment now and then: proxies close what is silent."""
    monkeypatch.setattr(sse, "KEEP_ALIVE", 1)
    async with watching(hub, task) as sent:
        await anext(sent)
        assert str(await asyncio.wait_for(anext(sent), 5)).startswith(":")


async def test_an_unknown_task_is_404(hub: Hub) -> None:
    """A problem, and no stream."""
    answer = await hub.client.get("/tasks/nobody/events")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_malformed_cursor_is_400(hub: Hub, task: Task) -> None:
    """In the header as in the query."""
    for query, headers in (("?cursor=x", {}), ("", {"Last-Event-ID": "yesterday"})):
        answer = await hub.client.get(f"/tasks/{task.id}/events{query}", headers=headers)
        assert answer.status_code == 400
        assert "expected <epoch>-<seq>" in answer.json()["detail"]


async def test_a_client_that_goes_leaves_nothing(hub: Hub, task: Task) -> None:
    """The room forgets it as soon as its connection is gone."""
    async with watching(hub, task) as sent:
        await anext(sent)
        room = hub.services.connections._open[task.id].room  # noqa: SLF001
        assert len(room.members) == 1
    await until(lambda: not room.members)


async def test_a_client_gone_before_its_first_event_leaves_nothing(hub: Hub, new_task: TaskFactory) -> None:
    """It had been let in, and nobody would ever have asked for the first event."""
    task = new_task()
    task.became(State.STARTED)
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(hub.url).port)
        writer.write(f"GET /tasks/{task.id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await writer.drain()
        writer.transport.abort()
    opened = hub.services.connections._open  # noqa: SLF001
    await hub.client.get(f"/tasks/{task.id}")
    await until(lambda: task.id not in opened or not opened[task.id].room.members)


async def test_a_client_that_reads_nothing_is_given_up(
    hub: Hub, task: Task, redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a while, without an error of the hub."""
    monkeypatch.setattr(sse, "SEND_TIMEOUT", 0.3)
    _, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(hub.url).port, limit=1)
    writer.write(f"GET /tasks/{task.id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await writer.drain()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    opened = hub.services.connections._open  # noqa: SLF001
    await until(lambda: task.id in opened and opened[task.id].room.members)
    room = opened[task.id].room
    with redis.Redis.from_url(redis_url):
        for _ in range(500):
            if not room.members:
                break
            await asyncio.to_thread(lambda: [task.said("x" * 50_000) for _ in range(20)])
            await asyncio.sleep(0)
    await until(lambda: not room.members)
    writer.transport.abort()
    assert "Traceback" not in caplog.text
    assert "Exception in ASGI" not in caplog.text
