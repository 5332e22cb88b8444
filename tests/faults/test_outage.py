"""The servers behind a hub die: whoever watches goes on by itself, whoever asks is told, nothing is half-done."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from deploy.server import free_port
from deploy.valkey import Valkey
from headway.events import State
from tests.conditions import until
from tests.conftest import ValkeyFactory
from tests.faults.proxies import Proxy
from tests.hub.running import SIMULATE, Hub, Task, announce, collect, serving, stream

AWAY = 5.0
"""Seconds for which Valkey stays dead."""


@contextlib.asynccontextmanager
async def hub_on(valkey: str, database: str, storage: Path, **settings: Any) -> AsyncIterator[Hub]:
    """A hub on these servers."""
    servers = {"HEADWAY_REDIS_URL": valkey, "DATABASE_URL": database, "HEADWAY_STORAGE": storage}
    async with serving(**{**servers, **settings}) as hub:
        yield hub


@pytest.fixture
def mortal(valkey_factory: ValkeyFactory) -> Valkey:
    """A Valkey to kill."""
    return valkey_factory()


def unbroken(messages: list[dict[str, Any]]) -> bool:
    """Whether each event's prev is the last kept event before it, from the snapshot on."""
    kept = messages[0]["prev"]
    for message in messages[1:]:
        if message["type"] == "snapshot":
            return False
        if message["prev"] != kept:
            return False
        kept = message["seq"] if message["type"] != "progress" else kept
    return True


async def test_every_watcher_outlives_five_seconds_without_redis(
    mortal: Valkey, database_url: str, tmp_path: Path
) -> None:
    """Sockets, streams and waiting polls reach the terminal event without reconnecting by hand, and miss nothing."""
    async with hub_on(mortal.url, database_url, tmp_path) as hub:
        client = redis.Redis.from_url(mortal.url)
        task = Task(client)
        task.became(State.STARTED)

        async def socket() -> list[dict[str, Any]]:
            async with hub.socket(f"/ws/task/{task.id}") as opened:
                messages = await collect(opened)
                assert opened.close_code == 1000
                return messages

        async def many() -> list[dict[str, Any]]:
            async with hub.socket("/ws") as opened:
                await opened.send(json.dumps({"type": "subscribe", "tasks": [{"id": task.id}]}))
                messages = [json.loads(await opened.recv())]
                while messages[-1]["state"] != "SUCCESS":
                    messages.append(json.loads(await opened.recv()))
                return messages

        async def sse() -> list[dict[str, Any]]:
            async with hub.client.stream("GET", f"/tasks/{task.id}/events") as response:
                return [message.data async for message in stream(response) if not isinstance(message, str)]

        async def poll() -> dict[str, Any]:
            cursor = (await hub.client.get(f"/tasks/{task.id}")).json()["cursor"]
            options: Any = {"params": {"cursor": cursor}, "headers": {"Prefer": "wait=30"}}
            body: dict[str, Any] = (await hub.client.get(f"/tasks/{task.id}", **options)).json()
            return body

        watching = [asyncio.create_task(watch()) for watch in (socket, socket, many, sse)]
        polling = asyncio.create_task(poll())
        opened = hub.services.connections._open  # noqa: SLF001
        await until(lambda: task.id in opened and len(opened[task.id].room.members) == 5)
        mortal.kill()
        await asyncio.sleep(AWAY)
        assert (await hub.client.get(f"/tasks/{task.id}")).status_code == 503
        assert (await hub.client.get("/readyz")).json()["checks"] == {
            "redis": "unreachable",
            "database": "ok",
            "broker": "unreachable",
        }
        await asyncio.to_thread(mortal.start)
        await until(lambda: _answers(client))
        # Some of it before the hub is back, some after.
        for number in range(1, 30):
            task.progress(number)
            task.said(str(number))
            await asyncio.sleep(0.01)
        task.succeeded()
        async with asyncio.timeout(10):
            ends = [(await work) for work in watching]
            assert (await polling)["seq"] > 1
        for messages in ends:
            assert messages[-1]["state"] == "SUCCESS"
            assert unbroken(messages)
            assert [message["message"] for message in messages if message["type"] == "log"] == [
                str(number) for number in range(1, 30)
            ]
        client.close()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


async def test_a_dropped_subscriber_misses_nothing(redis_url: str, database_url: str, tmp_path: Path) -> None:
    """CLIENT KILL TYPE pubsub under load, as when an output buffer overflows: every chain of prev stays unbroken."""
    async with hub_on(redis_url, database_url, tmp_path) as hub:
        client = redis.Redis.from_url(redis_url)
        tasks = [Task(client) for _ in range(20)]
        for task in tasks:
            task.became(State.STARTED)

        async def watch(task: Task) -> list[dict[str, Any]]:
            async with hub.socket(f"/ws/task/{task.id}") as opened:
                return await collect(opened)

        watching = [asyncio.create_task(watch(task)) for task in tasks]
        opened = hub.services.connections._open  # noqa: SLF001
        await until(lambda: all(task.id in opened and opened[task.id].room.members for task in tasks))

        def publish() -> None:
            for number in range(1, 61):
                for task in tasks:
                    task.progress(number)
                    if number % 5 == 0:
                        task.said(str(number))
                if number % 10 == 0:
                    client.client_kill_filter(_type="pubsub", skipme=True)
            for task in tasks:
                task.succeeded()

        await asyncio.to_thread(publish)
        for messages in await asyncio.gather(*watching):
            assert unbroken(messages)
            assert sum(message["type"] == "log" for message in messages) == 12
            assert messages[-1]["state"] == "SUCCESS"
        client.close()


async def test_a_store_that_lost_everything_is_told(mortal: Valkey, database_url: str, tmp_path: Path) -> None:
    """Another life of the task: recovered false, then its events; nothing is made up from the old one."""
    async with hub_on(mortal.url, database_url, tmp_path) as hub:
        client = redis.Redis.from_url(mortal.url)
        task = Task(client)
        task.became(State.STARTED)
        for _ in range(5):
            task.said()
        async with hub.socket(f"/ws/task/{task.id}") as opened:
            first = json.loads(await opened.recv())
            client.flushall()
            client.client_kill_filter(_type="pubsub", skipme=True)
            task.became(State.STARTED)
            again = json.loads(await asyncio.wait_for(opened.recv(), 10))
            assert (again["type"], again["recovered"], again["seq"]) == ("snapshot", False, 1)
            assert again["cursor"] != first["cursor"]
            task.succeeded()
            assert (await collect(opened))[-1]["state"] == "SUCCESS"
        client.close()


async def test_joining_while_redis_is_away(mortal: Valkey, database_url: str, tmp_path: Path) -> None:
    """A watcher waits for a Redis that is away, and is let in when it is back."""
    async with hub_on(mortal.url, database_url, tmp_path) as hub:
        client = redis.Redis.from_url(mortal.url)
        task = Task(client)
        task.became(State.STARTED)
        client.close()
        await until(lambda: hub.services.connections._channels.connected.is_set())  # type: ignore[attr-defined]  # noqa: SLF001
        mortal.kill()
        async with hub.socket(f"/ws/task/{task.id}") as opened:
            await asyncio.sleep(0.5)
            await asyncio.to_thread(mortal.start)
            assert json.loads(await asyncio.wait_for(opened.recv(), 8))["state"] == "STARTED"


def jobs(database_url: str) -> int:
    """Rows there are."""
    with psycopg.connect(database_url) as database:
        row = database.execute("SELECT count(*) FROM jobs").fetchone()
        assert row is not None
        count: int = row[0]
        return count


async def test_a_submission_without_its_broker_leaves_nothing(
    redis_url: str, fresh_database_url: str, tmp_path: Path
) -> None:
    """503 with Retry-After; no row, and should the message have gone through, it is of a task that never runs."""
    await announce(redis_url, SIMULATE)
    broker = f"redis://127.0.0.1:{free_port()}/0"
    async with hub_on(redis_url, fresh_database_url, tmp_path, CELERY_BROKER_URL=broker) as hub:
        with redis.Redis.from_url(redis_url) as client:
            before = set(client.scan_iter("hw:*:task:*", count=10_000))
            answer = await hub.client.post("/tasks", json={"task": "simulate", "args": {"steps": 1}})
            assert answer.status_code == 503
            assert "broker" in answer.json()["detail"]
            assert "Retry-After" in answer.headers
            (left,) = set(client.scan_iter("hw:*:task:*", count=10_000)) - before
            assert client.hget(left, "state") == b"REVOKED"
        assert jobs(fresh_database_url) == 0
        checks = (await hub.client.get("/readyz")).json()["checks"]
        assert checks == {"redis": "ok", "database": "ok", "broker": "unreachable"}


async def test_a_submission_without_the_store_leaves_no_row(
    mortal: Valkey, fresh_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """503 that names the progress store."""
    await announce(mortal.url, SIMULATE)
    async with hub_on(mortal.url, fresh_database_url, tmp_path, CELERY_BROKER_URL=redis_url) as hub:
        assert (await hub.client.get("/catalogue")).status_code == 200
        mortal.kill()
        answer = await hub.client.post("/tasks", json={"task": "simulate", "args": {"steps": 1}})
        assert answer.status_code == 503
        assert "progress store" in answer.json()["detail"]
        assert jobs(fresh_database_url) == 0


async def test_without_the_database_watching_goes_on(
    redis_url: str, fresh_database_url: str, postgres: Any, tmp_path: Path
) -> None:
    """Submitting is 503 and names it, in whichever way it is away; what runs is watched as ever."""
    proxy = Proxy(postgres.port)
    await proxy.start()
    url = fresh_database_url.replace(f":{postgres.port}/", f":{proxy.port}/")
    await announce(redis_url, SIMULATE)
    client = redis.Redis.from_url(redis_url)
    try:
        async with hub_on(redis_url, url, tmp_path) as hub:
            submission = {"json": {"task": "simulate", "args": {"steps": 1}}}
            assert (await hub.client.post("/tasks", **submission)).status_code == 202
            await proxy.stop()
            task = Task(client)
            task.became(State.STARTED)
            answer = await hub.client.post("/tasks", **submission)
            assert answer.status_code == 503
            assert "the database" in answer.json()["detail"]
            assert (await hub.client.get("/readyz")).json()["checks"]["database"] == "unreachable"
            async with hub.socket(f"/ws/task/{task.id}") as opened:
                task.succeeded()
                assert (await collect(opened))[-1]["state"] == "SUCCESS"
            await proxy.start()
            assert (await hub.client.post("/tasks", **submission)).status_code == 202
    finally:
        await proxy.stop()
        client.close()
    assert jobs(fresh_database_url) == 2
