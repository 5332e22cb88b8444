"""`python -m hub.migrate` and `python -m hub.keeper` as `make up` runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg

from deploy.server import free_port
from headway.storage import Storage
from tests.hub.running import ROOT


def run(module: str, **environment: str) -> subprocess.Popen[str]:
    """Start a role of the hub."""
    return subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_migrating_twice_at_once_is_safe(fresh_database_url: str) -> None:
    """Several hubs start at the same moment: one migrates, the others find it done."""
    with psycopg.connect(fresh_database_url, autocommit=True) as database:
        database.execute("DROP SCHEMA imports CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    processes = [run("hub.migrate", DATABASE_URL=fresh_database_url) for _ in range(3)]
    for process in processes:
        _, words = process.communicate(timeout=30)
        assert process.returncode == 0, words
    with psycopg.connect(fresh_database_url) as database:
        assert database.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_a_database_that_is_away_is_one_sentence() -> None:
    """Exit 1, with the reason, and no traceback."""
    process = run("hub.migrate", DATABASE_URL=f"postgresql://u:secret@127.0.0.1:{free_port()}/x")
    _, words = process.communicate(timeout=30)
    assert process.returncode == 1
    assert words.startswith("headway: the database named by DATABASE_URL")
    assert words.count("\n") == 1
    assert "secret" not in words


def test_the_keeper_sweeps_and_ends_in_order(tmp_path: Path) -> None:
    """What an upload left half-way a day ago goes, what is under way stays; SIGTERM ends it with 0."""
    storage = Storage(tmp_path)
    old, young = storage.create("old"), storage.create("young")
    folder = tmp_path / ".partial"
    os.utime(folder / old.ref / "data", (0, 0))
    process = run("hub.keeper", HEADWAY_STORAGE=str(tmp_path))
    try:
        deadline = time.monotonic() + 15
        while (folder / old.ref).exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        assert (folder / young.ref).exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()
        old.abort()
        young.abort()
