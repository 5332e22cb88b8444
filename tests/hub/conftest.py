"""A running hub on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis

from headway.events import State
from tests.hub.peers import Burst
from tests.hub.running import SIMULATE, Hub, Task, announce, serving

TaskFactory = Callable[[], Task]


@pytest.fixture(scope="session")
async def hub(redis_url: str, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    """A hub for the whole run, with one task in the catalogue that no worker takes."""
    await announce(redis_url, SIMULATE)
    async with serving(
        HEADWAY_REDIS_URL=redis_url,
        DATABASE_URL=database_url,
        HEADWAY_STORAGE=tmp_path_factory.mktemp("storage"),
        HEADWAY_MAX_UPLOAD=3_000_000,
        HEADWAY_MAX_BODY=100_000,
        HEADWAY_MAX_SOCKETS=20,
        HEADWAY_ORIGINS="https://page.example",
    ) as hub:
        yield hub


@pytest.fixture
async def catalogue(hub: Hub, redis_url: str) -> None:
    """The catalogue again, which other tests may have emptied with the whole server."""
    await announce(redis_url, SIMULATE)


@pytest.fixture
def storage(hub: Hub) -> Path:
    """The folder of the hub's files."""
    return hub.services.settings.storage


@pytest.fixture
def new_task(redis_url: str) -> Iterator[TaskFactory]:
    """Tasks that nobody has heard of yet."""
    with redis.Redis.from_url(redis_url) as client:
        yield lambda: Task(client)


@pytest.fixture
def task(new_task: TaskFactory) -> Task:
    """One that has started."""
    task = new_task()
    task.became(State.STARTED)
    return task


@pytest.fixture
def burst(redis_url: str, task: Task) -> Iterator[Burst]:
    """Publishes events of `task` many at once."""
    with redis.Redis.from_url(redis_url) as client:
        yield Burst(client, task, task.said("before"))
