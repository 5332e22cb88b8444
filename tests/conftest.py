"""Real servers for every test, on free ports, in a folder that goes away with the run.

`redis_url` and `database_url` are shared by the whole run; `fresh_redis_url` and `fresh_database_url` are empty for
each test (the database: with the schema of the migrations). Tests that break a server take one of their own from
`valkey_factory`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import sql

from deploy.postgres import Postgres
from deploy.valkey import Valkey

ROOT = Path(__file__).parent.parent

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

ValkeyFactory = Callable[[], Valkey]


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """A short path: pytest's own temporary folders outlive the run and grow with the name of the test."""
    with tempfile.TemporaryDirectory(prefix="headway-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def valkey(servers_folder: Path) -> Iterator[Valkey]:
    """The Valkey of the whole run: leave it running."""
    server = Valkey(servers_folder / "valkey", durable=False)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres(servers_folder: Path) -> Iterator[Postgres]:
    """The PostgreSQL of the whole run: leave it running."""
    server = Postgres(servers_folder / "postgres", durable=False)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_url(valkey: Valkey) -> str:
    """URL of the shared Valkey; other tests' keys are in it."""
    return valkey.url


@pytest.fixture(scope="session")
def database_url(postgres: Postgres) -> str:
    """URL of the shared, migrated database; other tests' rows are in it."""
    migrate(postgres.url)
    return postgres.url


@pytest.fixture
def fresh_redis_url(valkey: Valkey) -> str:
    """URL of the shared Valkey, emptied for this test."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url


@pytest.fixture(scope="session")
def template_database(postgres: Postgres) -> str:
    """Name of a migrated database that nobody ever connects to, which is what CREATE DATABASE asks of a template."""
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE template_headway")
    migrate(_named(postgres.url, "template_headway"))
    return "template_headway"


@pytest.fixture
def fresh_database_url(postgres: Postgres, template_database: str) -> Iterator[str]:
    """URL of a database of this test's own at the newest migration; about 30 ms to make and drop."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template_database)
            )
        )
    yield _named(postgres.url, name)
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def valkey_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyFactory]:
    """Start a Valkey of the test's own, to `kill()`, `start()` again, `pause()` and `resume()`; append-only file on.

    Without fsync a SIGKILL loses nothing that was acknowledged, since the kernel has it. With `everysec` the server
    puts a write off while an fsync is under way, acknowledges it all the same, and may take it to its grave.
    """
    started: list[Valkey] = []

    def start() -> Valkey:
        server = Valkey(tmp_path_factory.mktemp("valkey"), durable=False)
        started.append(server)
        server.start()
        return server

    try:
        yield start
    finally:
        for server in started:
            server.kill()
            shutil.rmtree(server.folder)


def migrate(database_url: str) -> None:
    """Bring a database to the newest migration the way `make up` does."""
    subprocess.run(
        [sys.executable, "-m", "hub.migrate"], cwd=ROOT, env={**os.environ, "DATABASE_URL": database_url}, check=True
    )


def _named(url: str, database: str) -> str:
    return f"{url.rpartition('/')[0]}/{database}"
