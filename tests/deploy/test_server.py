"""Valkey and PostgreSQL in a folder: what survives, what stays, what is private."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from deploy.launch import launched
from deploy.postgres import Postgres, binaries
from deploy.server import PORTS, Server, ServerError, free_port
from deploy.valkey import Valkey
from tests.conftest import ValkeyFactory


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A PostgreSQL that may be killed; not started."""
    server = Postgres(tmp_path / "postgres", durable=False)
    try:
        yield server
    finally:
        server.kill()


def test_valkey_keeps_its_data_when_it_is_killed(valkey_factory: ValkeyFactory) -> None:
    """What was written before a SIGKILL is there after it, on the same port."""
    server = valkey_factory()
    with redis.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
    server.kill()
    assert not server.answers()
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"


def test_a_paused_server_answers_nothing_until_it_is_resumed(valkey_factory: ValkeyFactory) -> None:
    """A half-open connection, for tests of those who must notice it."""
    server = valkey_factory()
    server.pause()
    assert not server.answers()
    server.resume()
    assert server.answers()


def test_postgres_keeps_its_data_when_it_is_killed(own_postgres: Postgres) -> None:
    """What was committed before a SIGKILL is there after it."""
    own_postgres.start()
    with psycopg.connect(own_postgres.url) as database:
        database.execute("CREATE TABLE kept (id int)")
    own_postgres.kill()
    own_postgres.start()
    with psycopg.connect(own_postgres.url) as database:
        database.execute("SELECT * FROM kept")


def test_a_pid_file_that_names_somebody_else_is_no_obstacle(own_postgres: Postgres) -> None:
    """After a reboot or in a container the pid of a killed server belongs to another process of the same user."""
    own_postgres.start()
    own_postgres.kill()
    pid_file = own_postgres.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    with subprocess.Popen(launched(["sleep", "60"], unprivileged=True)) as somebody:
        pid_file.write_text("\n".join([str(somebody.pid), *lines[1:]]) + "\n")
        own_postgres.start()
        somebody.kill()


def test_an_interrupted_initdb_is_done_again(own_postgres: Postgres) -> None:
    """A half-made cluster is never taken for a whole one."""
    half = own_postgres.folder / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    own_postgres.start()
    assert not half.exists()


def test_no_permission_changes_outside_the_data_folder(tmp_path: Path) -> None:
    """As root too: it starts below a folder that only its owner may enter, and leaves every mode as it was."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    server = Postgres(home / "a b" / "postgres", durable=False)
    watched = [*binaries().parents, binaries(), *binaries().iterdir(), *home.parents, home]
    before = {path: (path.stat().st_mode, path.stat().st_uid) for path in watched}
    try:
        server.start()
        assert {path: (path.stat().st_mode, path.stat().st_uid) for path in watched} == before
        assert (server.data.stat().st_uid == 0) is False
    finally:
        server.stop()


def test_a_port_is_kept_while_it_is_free(tmp_path: Path) -> None:
    """A client configured by hand finds the server again; when somebody else is there, the server moves."""
    first = Valkey(tmp_path)
    first.prepare()
    again = Valkey(tmp_path)
    again.prepare()
    assert (again.port, again.password) == (first.port, first.password)
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", first.port))
        somebody.listen()
        moved = Valkey(tmp_path)
        moved.prepare()
    assert moved.port != first.port
    assert moved.password == first.password


def test_ports_are_not_those_of_outgoing_connections() -> None:
    """A client that knocks at a dead server could be given the server's own port, and keep it from coming back."""
    if sys.platform == "linux":
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        assert low >= PORTS.stop
    assert free_port() in PORTS


@pytest.mark.parametrize("kind", [Valkey, Postgres])
def test_what_holds_a_password_is_private(tmp_path: Path, kind: type[Server]) -> None:
    """Nobody else reads it in a file or in the list of processes."""
    server = kind(tmp_path / "server")
    server.prepare()
    assert server.password not in " ".join(server.command())
    files = [path for path in server.folder.iterdir() if path.is_file()]
    assert {path.name for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077} == set()
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", [Valkey, Postgres])
def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, kind: type[Server]) -> None:
    """It names the folder."""
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match=r"^cannot write .*/file/server: Not a directory$"):
        kind(tmp_path / "file" / "server").prepare()


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The end of its own log is in the error."""
    server = Valkey(tmp_path)
    server.prepare()
    (tmp_path / "valkey.conf").write_text("no-such-directive 1\n")
    with pytest.raises(ServerError, match="no-such-directive"):
        server.start()


def test_postgres_ends_while_clients_are_connected(own_postgres: Postgres) -> None:
    """`stop()` does not wait for clients to leave."""
    own_postgres.start()
    with psycopg.connect(own_postgres.url):
        own_postgres.stop()
    assert own_postgres.process
    assert own_postgres.process.returncode == 0
    assert not (own_postgres.data / "postmaster.pid").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(own_postgres.process.pid, signal.SIG_DFL)
