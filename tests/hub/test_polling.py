"""Polling a hub that runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import redis.asyncio

from headway import keys
from headway.events import State
from headway.store import AsyncStore
from hub.resource import stored
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


async def test_prefer_wait_returns_at_once_for_a_new_revision(hub: Hub, task: Task) -> None:
    """The client's ETag is old already, though nothing has happened since."""
    etag = (await hub.client.get(f"/tasks/{task.id}")).headers["ETag"]
    task.sends("child")
    headers = {"Prefer": "wait=20", "If-None-Match": etag}
    answer = await asyncio.wait_for(hub.client.get(f"/tasks/{task.id}", headers=headers), 5)
    assert answer.json()["children"] == ["child"]


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


@pytest.fixture
async def watched(hub: Hub, task: Task) -> AsyncIterator[Task]:
    """A task with a watcher on this hub."""
    async with hub.socket(f"/ws/task/{task.id}", max_queue=None) as socket:
        await socket.recv()
        yield task


@pytest.fixture
def asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tasks that polls ask the store about."""
    names: list[str] = []

    def noting(call: Callable[..., Any]) -> Callable[..., Any]:
        async def note(task_id: str, *args: Any) -> Any:
            names.append(task_id)
            return await call(task_id, *args)

        return note

    changed = hub.services.store.changed  # `details` is a form of it
    monkeypatch.setattr(hub.services.store, "changed", noting(changed))
    return names


async def polled(hub: Hub, task: Task, accept: Callable[[httpx.Response], bool], etag: str = "") -> httpx.Response:
    """The first answer that will do."""
    async with asyncio.timeout(10):
        while True:
            answer = await hub.client.get(f"/tasks/{task.id}", headers={"If-None-Match": etag})
            if accept(answer):
                return answer


def at(seq: int) -> Callable[[httpx.Response], bool]:
    """Whether the task stands there."""
    return lambda answer: bool(answer.json()["seq"] == seq)


async def test_a_watched_task_is_answered_from_its_room(hub: Hub, watched: Task, asked: list[str]) -> None:
    """The store is asked once, and not again for progress and log lines."""
    etag = (await hub.client.get(f"/tasks/{watched.id}")).headers["ETag"]
    assert asked == [watched.id]
    assert (await hub.client.get(f"/tasks/{watched.id}", headers={"If-None-Match": etag})).status_code == 304
    for say in (lambda: watched.progress(42), watched.said):
        said = say()
        answer = await polled(hub, watched, at(said.seq))
        assert answer.headers["ETag"] == f'"{said.epoch}-{said.seq}"'
        assert answer.json()["percent"] == 42.0
        assert answer.json()["attempts"][0]["started_at"]
    assert asked == [watched.id]


async def test_room_and_store_tell_the_same(hub: Hub, watched: Task, redis_url: str) -> None:
    """Member for member, before and after the end."""
    watched.sends("child")
    for say in (watched.progress, watched.said, watched.succeeded):
        said = say()
        answer = await polled(hub, watched, at(said.seq))
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            record = await AsyncStore(client).details(watched.id)
        assert record is not None
        assert answer.headers["ETag"] == f'"{record.tag}"'
        assert answer.json() == stored(watched.id, record)


async def test_a_change_of_state_is_asked_about_once(hub: Hub, watched: Task, asked: list[str]) -> None:
    """However many wait for it."""
    cursor = (await hub.client.get(f"/tasks/{watched.id}")).json()["cursor"]
    asked.clear()
    options: dict[str, Any] = {"params": {"cursor": cursor}, "headers": {"Prefer": "wait=20"}}
    polls = [asyncio.create_task(hub.client.get(f"/tasks/{watched.id}", **options)) for _ in range(20)]
    await until(lambda: len(hub.services.polls) == 20)
    watched.succeeded()
    answers = await asyncio.gather(*polls)
    assert {answer.json()["state"] for answer in answers} == {"SUCCESS"}
    assert asked == [watched.id]


async def test_a_child_of_a_watched_task_makes_a_new_etag(hub: Hub, watched: Task) -> None:
    """The room hears of it, and sends its watchers nothing."""
    etag = (await hub.client.get(f"/tasks/{watched.id}")).headers["ETag"]
    watched.sends("child")
    answer = await polled(hub, watched, lambda answer: answer.status_code == 200, etag)
    assert answer.json()["children"] == ["child"]
    assert answer.headers["ETag"] == etag[:-1] + '.1"'


async def test_details_that_come_late_make_a_new_etag(hub: Hub, watched: Task, redis_url: str) -> None:
    """A hub that submitted a task may speak after the worker."""
    etag = (await hub.client.get(f"/tasks/{watched.id}")).headers["ETag"]
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await AsyncStore(client).submit(watched.id, 1.0, {"queue": "late"})
    answer = await polled(hub, watched, lambda answer: answer.status_code == 200, etag)
    assert answer.json()["queue"] == "late"


async def test_a_client_that_knows_more_than_the_room_is_answered_by_the_store(
    hub: Hub, watched: Task, asked: list[str]
) -> None:
    """It has been to another hub; nothing it is told may be older."""
    answer = await hub.client.get(f"/tasks/{watched.id}")
    epoch = answer.json()["cursor"].partition("-")[0]
    asked.clear()
    for ahead in (f"{epoch}-99", f"{epoch}-1.7"):
        await hub.client.get(f"/tasks/{watched.id}", headers={"If-None-Match": f'"{ahead}"'})
    await hub.client.get(f"/tasks/{watched.id}", params={"cursor": f"{epoch}-99"})
    assert asked == [watched.id] * 3


async def test_a_task_that_the_store_has_lost_is_not_answered_from_its_room(
    hub: Hub, watched: Task, redis_url: str
) -> None:
    """Its watchers keep what they have; whoever asks is told the truth."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.delete(keys.of(watched.id).task)
    room = hub.services.connections.room(watched.id)
    assert room is not None
    room.restored()  # as after a break of the link
    await polled(hub, watched, lambda answer: answer.status_code == 404)


async def test_an_answer_is_of_one_moment(hub: Hub, watched: Task) -> None:
    """While a task lives fast: tag and body agree, what is told was so, and no client is led back in time."""
    expected: dict[int, tuple[str, int, int]] = {}
    done = asyncio.Event()

    def live() -> None:
        for number in range(1, 120):
            if number % 5 == 0:
                watched.sends(str(number))
            state = State.PROGRESS if number % 7 else State.STARTED
            said = watched.progress() if number % 7 else watched.became(state)
            expected[said.seq] = (state, said.attempt, number // 5)

    async def poll() -> None:
        etag, last = "", (0, 0)
        while not done.is_set():
            answer = await hub.client.get(f"/tasks/{watched.id}", headers={"If-None-Match": etag})
            assert answer.headers["ETag"] == etag or answer.status_code == 200
            if answer.status_code == 200:
                etag, body = answer.headers["ETag"], answer.json()
                told.append(body)
                children = len(body["children"])
                assert etag == (f'"{body["cursor"]}.{children}"' if children else f'"{body["cursor"]}"')
                assert (body["seq"], children) > last
                last = (body["seq"], children)

    told: list[dict[str, Any]] = []
    pollers = [asyncio.create_task(poll()) for _ in range(4)]
    await asyncio.to_thread(live)
    await until(lambda: any(body["seq"] == max(expected) for body in told))
    done.set()
    await asyncio.gather(*pollers)
    for body in told:
        if body["seq"] in expected:
            state, attempt, children = expected[body["seq"]]
            assert (body["state"], body["attempt"], len(body["attempts"])) == (state, attempt, attempt)
            assert len(body["children"]) - children in (0, 1)  # the next child comes before the next event
