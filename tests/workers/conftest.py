"""The environment of a worker: an own database, an own storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from headway.storage import Storage

Rows = list[tuple[Any, ...]]


@pytest.fixture
def storage(tmp_path, monkeypatch) -> Storage:
    """The storage that the jobs use."""
    monkeypatch.setenv("HEADWAY_STORAGE", str(tmp_path / "storage"))
    return Storage(tmp_path / "storage")


@pytest.fixture
def database(fresh_database_url, monkeypatch) -> str:
    """URL of the database that the jobs use, migrated and empty."""
    monkeypatch.setenv("DATABASE_URL", fresh_database_url)
    return fresh_database_url


@pytest.fixture
def query(database) -> Iterator[Callable[..., Rows]]:
    """Ask the database."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield lambda statement, *args: connection.execute(statement, args).fetchall()


@pytest.fixture
def upload(storage, database) -> Callable[..., str]:
    """Put a file into storage and return its ref; the jobs' database is there too."""

    def put(data: bytes, name: str = "data.csv") -> str:
        with storage.create(name) as out:
            out.write(data)
        return out.ref

    return put
