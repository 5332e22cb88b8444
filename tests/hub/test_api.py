"""The catalogue and the health of a hub that runs."""

from __future__ import annotations

import time

import pytest
import redis

from headway import keys
from hub.catalogue import SERVED
from tests.hub.running import SIMULATE, Hub, announce

pytestmark = pytest.mark.usefixtures("catalogue")


async def test_the_catalogue_lists_what_workers_announced(hub: Hub) -> None:
    """With their schemas."""
    tasks = {entry["task"]: entry for entry in (await hub.client.get("/catalogue")).json()["tasks"]}
    assert tasks["simulate"] == {**SIMULATE, "served": True}


async def test_a_task_that_no_worker_announces_any_more_is_not_served(hub: Hub, redis_url: str) -> None:
    """It may be submitted all the same: it waits for a worker, and whoever asks can see that."""
    with redis.Redis.from_url(redis_url) as client:
        client.hset(keys.ANNOUNCED, "simulate", time.time() - 2 * SERVED)
    try:
        tasks = {entry["task"]: entry for entry in (await hub.client.get("/catalogue")).json()["tasks"]}
        assert tasks["simulate"]["served"] is False
    finally:
        await announce(redis_url, SIMULATE)


async def test_an_entry_of_another_dialect_hides_no_other(hub: Hub, redis_url: str) -> None:
    """A worker of a later version may write what this hub cannot read."""
    await announce(redis_url, {"task": "odd", "schema": 7})
    answer = await hub.client.get("/catalogue")
    names = [entry["task"] for entry in answer.json()["tasks"]]  # other tests' workers may have announced more
    assert "simulate" in names
    assert "odd" not in names


async def test_healthz_and_readyz(hub: Hub) -> None:
    """This process answers; every server behind it does."""
    assert (await hub.client.get("/healthz")).json() == {"status": "ok"}
    answer = await hub.client.get("/readyz")
    assert answer.json() == {"status": "ready", "checks": {"redis": "ok", "database": "ok", "broker": "ok"}}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("PUT", "/tasks", 405), ("DELETE", "/healthz", 405), ("GET", "/tasks/a/b", 404)],
)
async def test_an_unknown_path_or_method(hub: Hub, method: str, path: str, status: int) -> None:
    """A problem that names it; 405 says what is allowed."""
    answer = await hub.client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert path in answer.json()["detail"]
    assert status != 405 or answer.headers["Allow"]
