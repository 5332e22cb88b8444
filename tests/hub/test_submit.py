"""`POST /tasks` of a hub that runs: what is accepted has a row, what is not leaves nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import psycopg
import pytest
import redis

from headway import keys
from tests.hub.running import Hub

pytestmark = pytest.mark.usefixtures("catalogue")


def left_behind(database_url: str, redis_url: str) -> tuple[int, int]:
    """Rows of jobs, and tasks that the store knows."""
    with psycopg.connect(database_url) as database, redis.Redis.from_url(redis_url) as client:
        row = database.execute("SELECT count(*) FROM jobs").fetchone()
        assert row is not None
        return row[0], len(list(client.scan_iter("hw:*:task:*", count=10_000)))


async def post(hub: Hub, body: Any, **headers: str) -> httpx.Response:
    """Submit this."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await hub.client.post("/tasks", content=content, headers={"Content-Type": "application/json", **headers})


async def test_a_submission_is_accepted(hub: Hub, database_url: str, redis_url: str) -> None:
    """202 with Location, Retry-After and the resource; there is a row, a state and a message."""
    answer = await post(hub, {"task": "simulate", "args": {"steps": 3, "message": "ünï"}})
    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/tasks/{body['task_id']}" == body["links"]["self"]
    assert int(answer.headers["Retry-After"]) > 0
    assert (body["state"], body["task"], body["args"]) == ("PENDING", "simulate", {"steps": 3, "message": "ünï"})
    assert (await hub.client.get(answer.headers["Location"])).json() == body
    with psycopg.connect(database_url) as database, redis.Redis.from_url(redis_url) as client:
        row = database.execute("SELECT task, args FROM jobs WHERE task_id = %s", [body["task_id"]]).fetchone()
        assert row == ("simulate", body["args"])
        assert any(body["task_id"].encode() in message for message in client.lrange("nobody", 0, -1))


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"task": "dance", "args": {}}, 422, "simulate"),
        ({"task": "simulate", "args": {}}, 422, "args.steps"),
        ({"task": "simulate", "args": {"steps": "3"}}, 422, "args.steps"),
        ({"task": "simulate", "args": {"steps": 0}}, 422, "minimum"),
        ({"task": "simulate", "args": {"steps": True}}, 422, "args.steps"),
        ({"task": "simulate", "args": {"steps": 1, "colour": "red"}}, 422, "colour"),
        ({"task": "simulate", "args": {"steps": 1, "message": "a\0b"}}, 422, "NUL"),
        ({"task": "simulate", "args": {"steps": 1, "file": "f_" + "0" * 32}}, 422, "args.file"),
        ({"task": "simulate", "args": {"steps": 1, "file": "../../etc/passwd"}}, 422, "args.file"),
        ({"task": "simulate", "args": []}, 422, "args"),
        ({"task": 7}, 422, "task"),
        ({"args": {}}, 422, "task"),
        ({"task": "simulate", "args": {"steps": 1}, "countdown": 3}, 422, "countdown"),
        ([], 422, "body"),
        (b"", 400, "JSON"),
        (b"{", 400, "JSON"),
        (b"task=simulate", 400, "JSON"),
        (b'{"task": "\xff\xfe"}', 400, "JSON"),
        (b'{"task": "simulate", "args": {"steps": NaN}}', 400, "JSON"),
        (b'{"task": "\\ud800"}', 400, "JSON"),
        (b'{"task": "simulate", "args": {"steps": ' + b"[" * 40_000 + b"]" * 40_000 + b"}}", 400, "deep"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_wrong_is_said(
    hub: Hub, database_url: str, redis_url: str, body: Any, status: int, says: str
) -> None:
    """A problem that names the field and the reason; no row, no state, no message is left."""
    before = left_behind(database_url, redis_url)
    answer = await post(hub, body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.text
    assert answer.json()["status"] == status
    assert left_behind(database_url, redis_url) == before


async def test_text_that_looks_like_a_nul_is_text(hub: Hub) -> None:
    """The six characters of an escape are no NUL."""
    answer = await post(hub, {"task": "simulate", "args": {"steps": 1, "message": "\\u0000"}})
    assert answer.status_code == 202


async def test_every_wrong_argument_is_listed(hub: Hub) -> None:
    """All at once, for a form to show beside each field."""
    answer = await post(hub, {"task": "simulate", "args": {"steps": 0, "seconds": "x", "message": 3}})
    fields = {error["field"] for error in answer.json()["errors"]}
    assert fields == {"args.steps", "args.seconds", "args.message"}


async def test_a_body_beyond_the_limit_is_413(hub: Hub) -> None:
    """Declared or streamed; the limit is in the answer."""
    body = json.dumps({"task": "simulate", "args": {"steps": 1, "message": "x" * 200_000}}).encode()

    async def chunks() -> Any:
        for first in range(0, len(body), 10_000):
            yield body[first : first + 10_000]

    headers = {"Content-Type": "application/json"}
    for content in (body, chunks()):
        answer = await hub.client.post("/tasks", content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["limit"] == 100_000


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_another_content_type_is_415(hub: Hub, kind: str) -> None:
    """A form that another page makes a browser send is none."""
    answer = await hub.client.post("/tasks", content=b'{"task": "simulate"}', headers={"Content-Type": kind})
    assert answer.status_code == 415


async def test_json_with_a_charset_is_json(hub: Hub) -> None:
    """Parameters of the type do not matter."""
    answer = await post(
        hub, {"task": "simulate", "args": {"steps": 1}}, **{"Content-Type": "Application/JSON; charset=utf-8"}
    )
    assert answer.status_code == 202


async def test_a_client_gone_in_the_middle_is_no_error_of_the_hub(
    hub: Hub, database_url: str, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is left, and nothing is logged with a traceback."""
    before = left_behind(database_url, redis_url)
    _, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(hub.url).port)
    head = "POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    writer.write(head.encode() + b'{"task": ')
    await writer.drain()
    await hub.client.get("/healthz")
    writer.transport.abort()
    await hub.client.get("/healthz")
    await hub.client.get("/healthz")
    assert left_behind(database_url, redis_url) == before
    assert "Traceback" not in caplog.text


async def test_the_same_key_twice_is_one_task(hub: Hub, database_url: str, redis_url: str) -> None:
    """One after the other or at the same moment: one row, one message, the same task."""
    body = {"task": "simulate", "args": {"steps": 5}}
    answers = await asyncio.gather(*(post(hub, body, **{"Idempotency-Key": "k1"}) for _ in range(10)))
    answers.append(await post(hub, body, **{"Idempotency-Key": "k1"}))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["task_id"] for answer in answers}) == 1
    assert answers[-1].status_code == 202
    with psycopg.connect(database_url) as database, redis.Redis.from_url(redis_url) as client:
        assert database.execute("SELECT count(*) FROM jobs WHERE idempotency_key = 'k1'").fetchone() == (1,)
        task_id = answers[-1].json()["task_id"].encode()
        assert sum(task_id in message for message in client.lrange("nobody", 0, -1)) == 1


async def test_a_submission_whose_hub_died_is_completed_by_its_key(hub: Hub, database_url: str, redis_url: str) -> None:
    """Committed, and never published: the same request publishes it, under the same id."""
    body = {"task": "simulate", "args": {"steps": 5}}
    first = (await post(hub, body, **{"Idempotency-Key": "k3"})).json()["task_id"]
    with psycopg.connect(database_url, autocommit=True) as database, redis.Redis.from_url(redis_url) as client:
        client.delete(*keys.of(first))
        assert (await post(hub, body, **{"Idempotency-Key": "k3"})).status_code == 409  # it may still be on its way
        database.execute("UPDATE jobs SET created_at = created_at - interval '1 minute' WHERE task_id = %s", [first])
        again = await post(hub, body, **{"Idempotency-Key": "k3"})
        assert (again.status_code, again.json()["task_id"], again.json()["state"]) == (202, first, "PENDING")
        assert sum(first.encode() in message for message in client.lrange("nobody", 0, -1)) == 2
        client.delete(*keys.of(first))
        database.execute("UPDATE jobs SET created_at = created_at - interval '1 day' WHERE task_id = %s", [first])
        late = await post(hub, body, **{"Idempotency-Key": "k3"})
        assert (late.status_code, late.json()["task_id"]) == (409, first)  # it may have run long ago


async def test_a_key_used_for_something_else_is_422(hub: Hub) -> None:
    """It is not silently the first task; nor is a key that is none accepted."""
    await post(hub, {"task": "simulate", "args": {"steps": 5}}, **{"Idempotency-Key": "k2"})
    answer = await post(hub, {"task": "simulate", "args": {"steps": 6}}, **{"Idempotency-Key": "k2"})
    assert answer.status_code == 422
    for key in ("", "a b", "x" * 256):
        answer = await post(hub, {"task": "simulate", "args": {"steps": 5}}, **{"Idempotency-Key": key})
        assert answer.status_code == 400


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://[::1", "x" * 5_000])
async def test_a_page_of_another_origin_submits_nothing(hub: Hub, origin: str) -> None:
    """403, before anything is read."""
    answer = await post(hub, {"task": "simulate", "args": {"steps": 1}}, Origin=origin)
    assert answer.status_code == 403


async def test_own_and_listed_origins_submit(hub: Hub) -> None:
    """A listed one may read the answer, too."""
    for origin in (hub.url, "https://page.example"):
        answer = await post(hub, {"task": "simulate", "args": {"steps": 1}}, Origin=origin)
        assert answer.status_code == 202
    assert answer.headers["Access-Control-Allow-Origin"] == "https://page.example"
    assert "Location" in answer.headers["Access-Control-Expose-Headers"]


async def test_a_catalogue_without_tasks_says_so(hub: Hub, redis_url: str) -> None:
    """No worker has come up yet."""
    with redis.Redis.from_url(redis_url) as client:
        client.delete(keys.CATALOGUE)
    answer = await post(hub, {"task": "simulate", "args": {"steps": 1}})
    assert answer.status_code == 422
    assert "no worker" in answer.json()["detail"]
