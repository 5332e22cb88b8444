"""What the tests of the store and of its leases share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import redis

from headway.store import Store


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the shared server."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def store(client: redis.Redis) -> Store:
    """The synchronous face."""
    return Store(client)


@pytest.fixture
def task() -> str:
    """The id of a task that nobody has heard of."""
    return uuid.uuid4().hex
