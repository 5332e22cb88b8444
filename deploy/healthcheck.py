"""Whether the program of this container is well: exit code 0, or 1 with one sentence.

    python -S -m deploy.healthcheck http 8000         GET /healthz (or the path that is named) answers 200
    python -S -m deploy.healthcheck heartbeat FILE    the file was touched in the last 15 s: `deploy.heartbeat`
    python -S -m deploy.healthcheck process NAME      `python -m NAME` runs, neither stopped nor dead

It runs every few seconds for as long as the container does: a few modules of the standard library, started without
`site`, take a tenth of what a look through Celery or an HTTP library takes.
"""

from __future__ import annotations

import os
import socket
import sys
import time

TIMEOUT = 3.0
"""Seconds for an answer."""
SILENCE = 15.0
"""Seconds without a heartbeat; it comes every 2."""


class UnwellError(Exception):
    """The program is not well; the message says how that shows."""


def http(port: str, path: str = "/healthz") -> None:
    """A 200 comes from this port of this container. Raises UnwellError or OSError."""
    with socket.create_connection(("127.0.0.1", int(port)), TIMEOUT) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        status = connection.recv(64).split(b"\r\n")[0]
    if status.split(b" ")[1:2] != [b"200"]:
        raise UnwellError(f"{path} answered {status.decode(errors='replace') or 'nothing'}")


def heartbeat(file: str) -> None:
    """The file is fresh. Raises UnwellError or OSError."""
    age = time.time() - os.stat(file).st_mtime
    if age > SILENCE:
        raise UnwellError(f"the last heartbeat was {age:.0f} s ago")


def process(name: str) -> None:
    """One process runs this module. Raises UnwellError."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            with open(f"/proc/{pid}/stat", "rb") as file:
                state = file.read().rpartition(b") ")[2][:1]
        except OSError:
            continue  # it ended while we looked
        if words[1:3] == [b"-m", name.encode()] and state in b"RSDI":
            return
    raise UnwellError(f"no process runs {name}")


def main() -> None:
    """See the module docstring."""
    try:
        match sys.argv[1:]:
            case ["http", port, *path]:
                http(port, *path)
            case ["heartbeat", file]:
                heartbeat(file)
            case ["process", name]:
                process(name)
            case _:
                sys.exit(__doc__)
    except (UnwellError, OSError) as error:
        sys.exit(f"healthcheck: {error}")


if __name__ == "__main__":
    main()
