"""Polling a hub that runs."""

from __future__ import annotations

import asyncio
import time

import pytest

from headway.events import State
from tests.conditions import until
from tests.hub.conftest import TaskFactory
from tests.hub.running import Hub, Task

pytestmark = pytest.mark.usefixtures("catalogue")


async def test_a_task_is_a_resource(hub: Hub, task: Task) -> None:
    """The last event's fields and the task's circumstances."""
    task.progress(42)
    answer = await hub.client.get(f"/tasks/{task.id}")
    body = answer.json()
    assert answer.status_code == 200
    assert (body["task_id"], body["state"], body["percent"], body["seq"]) == (task.id, "PROGRESS", 42.0, 2)
    assert body["links"]["events"] == f"/tasks/{task.id}/events"
    assert {"task", "args", "queue", "created_at", "started_at", "finished_at", "runtime", "worker", "attempts"} <= set(
        body
    )


async def test_retry_after_says_when_to_ask_again(hub: Hub, task: Task) -> None:
    """While something may change; not after the end."""
    assert int((await hub.client.get(f"/tasks/{task.id}")).headers["Retry-After"]) > 0
    task.succeeded()
    answer = await hub.client.get(f"/tasks/{task.id}")
    assert "Retry-After" not in answer.headers
    assert answer.json()["result"] == {"rows": 3}


async def test_a_known_etag_is_answered_with_304(hub: Hub, task: Task) -> None:
    """Also weak, in a list, or *; any event makes a new one."""
    etag = (await hub.client.get(f"/tasks/{task.id}")).headers["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = await hub.client.get(f"/tasks/{task.id}", headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    task.said()
    answer = await hub.client.get(f"/tasks/{task.id}", headers={"If-None-Match": etag})
    assert answer.status_code == 200
    assert answer.headers["ETag"] != etag


async def test_a_new_child_makes_a_new_etag(hub: Hub, task: Task) -> None:
    """It is in the resource, but comes without an event of its parent."""
    etag = (await hub.client.get(f"/tasks/{task.id}")).headers["ETag"]
    task.sends("child")
    answer = await hub.client.get(f"/tasks/{task.id}", headers={"If-None-Match": etag})
    assert (answer.status_code, answer.json()["children"]) == (200, ["child"])
    answer = await hub.client.get(f"/tasks/{task.id}", headers={"If-None-Match": answer.headers["ETag"]})
    assert answer.status_code == 304


async def test_prefer_wait_holds_until_there_is_news(hub: Hub, task: Task) -> None:
    """It returns as soon as something is newer than the cursor, or than the ETag."""
    body = await hub.client.get(f"/tasks/{task.id}")
    ways = ({"params": {"cursor": body.json()["cursor"]}}, {"headers": {"If-None-Match": body.headers["ETag"]}})
    for way in ways:
        options = {"headers": {"Prefer": "respond-async, wait=25", **way.get("headers", {})}} | {
            name: value for name, value in way.items() if name != "headers"
        }
        waiting = asyncio.create_task(hub.client.get(f"/tasks/{task.id}", **options))
        opened = hub.services.connections._open  # noqa: SLF001
        await until(lambda opened=opened: task.id in opened and opened[task.id].room.members)
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        position = task.said()
        answer = await asyncio.wait_for(waiting, 5)
        assert answer.json()["seq"] == position.seq
        assert answer.headers["Preference-Applied"] == "wait=25"
        body = answer
        ways[1]["headers"]["If-None-Match"] = body.headers["ETag"]


async def test_prefer_wait_returns_at_once_when_there_is_news_already(hub: Hub, task: Task) -> None:
    """An old cursor, none at all, or a task that has ended: nothing to wait for."""
    position = task.said()
    task.succeeded()
    end = (await hub.client.get(f"/tasks/{task.id}")).json()["cursor"]
    began = time.monotonic()
    for cursor in (f"{position.epoch}-1", "", end):
        answer = await hub.client.get(f"/tasks/{task.id}", params={"cursor": cursor}, headers={"Prefer": "wait=20"})
        assert answer.status_code == 200
    assert time.monotonic() - began < 3


async def test_prefer_wait_gives_up_in_time_and_leaves_nothing(hub: Hub, task: Task) -> None:
    """Nothing happened: the same answer again, or 304; the room is empty again."""
    answer = await hub.client.get(f"/tasks/{task.id}")
    headers = {"Prefer": "wait=1", "If-None-Match": answer.headers["ETag"]}
    began = time.monotonic()
    again = await hub.client.get(f"/tasks/{task.id}", headers=headers)
    assert again.status_code == 304
    assert 0.9 < time.monotonic() - began < 5
    assert not hub.services.connections._open[task.id].room.members  # noqa: SLF001


async def test_wait_is_at_most_30_seconds(hub: Hub, task: Task) -> None:
    """What was applied is said."""
    answer = await hub.client.get(f"/tasks/{task.id}", headers={"Prefer": "wait=9999"})
    assert answer.headers["Preference-Applied"] == "wait=30"


async def test_an_unknown_task_is_404(hub: Hub) -> None:
    """Never PENDING."""
    for headers in ({}, {"Prefer": "wait=5"}, {"If-None-Match": "*"}):
        answer = await hub.client.get("/tasks/nobody", headers=headers)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["title"] == "Not Found"
    assert (await hub.client.get("/tasks/nobody/result")).status_code == 404


async def test_a_malformed_cursor_is_400(hub: Hub, task: Task) -> None:
    """With what a well-formed one looks like."""
    answer = await hub.client.get(f"/tasks/{task.id}?cursor=x")
    assert answer.status_code == 400
    assert "1763650000000-17" in answer.json()["detail"]


async def test_polling_in_a_crowd(hub: Hub, new_task: TaskFactory) -> None:
    """300 clients ask at the same moment: each is answered, whatever the number of connections to Redis."""
    task = new_task()
    task.became(State.STARTED)
    answers = await asyncio.gather(*(hub.client.get(f"/tasks/{task.id}") for _ in range(300)))
    assert {answer.status_code for answer in answers} == {200}
