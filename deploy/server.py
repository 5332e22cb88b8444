"""A real server in a folder of its own: what Valkey and PostgreSQL have in common here."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from deploy.launch import launched

# Below the range from which Linux and macOS hand out ports for outgoing connections. A client that keeps knocking at a
# dead server's port from within that range can be given that very port, connect to itself, and lock the server out.
PORTS = range(20000, 32000)


class ServerError(Exception):
    """A server cannot be started; the message is one sentence for the user."""


class Server(ABC):
    """One server process with its data, port and password in one folder.

    `prepare()` and `command()` let a process manager run it; `start()`, `stop()`, `kill()`, `pause()` and `resume()`
    run it from here, for tests. The data survives any of them, a SIGKILL included.
    """

    name: str
    farewell = signal.SIGTERM  # asks for an orderly end without waiting for clients
    unprivileged = False  # whether it refuses to run as root

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        """Nothing happens yet. `durable=False` saves the disk in tests: no fsync."""
        self.folder = folder.resolve()
        self.durable = durable
        self.port = 0
        self.password = ""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """The address with user and password; valid after `prepare()`."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line; it holds no secret and does not detach."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server answers a query right now."""

    def prepare(self) -> None:
        """Create what is missing, and settle port and password for this run.

        Raises:
            ServerError: the folder cannot be written, or the data cannot be created.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            known = self._remembered()
            self.password = str(known.get("password") or secrets.token_hex(16))
            self.port = int(known.get("port") or 0)
            # Kept while it is free, so that a client configured by hand finds the server again.
            if not self.port or not port_is_free(self.port):
                self.port = free_port()
            self._remember()
        except OSError as error:
            raise ServerError(f"cannot write {self.folder}: {error.strerror}") from error

    def alone(self, *command: str, stale: str = "") -> list[str]:
        """`command` behind launch.py: ending with its starter, and the only one to hold this folder's data."""
        return launched(
            list(command),
            farewell=self.farewell,
            lock=str(self.folder / "lock"),
            stale=stale,
            unprivileged=self.unprivileged,
        )

    def start(self, timeout: float = 20.0) -> None:
        """Start the server and wait until it answers.

        Raises:
            ServerError: it ended, or did not answer within `timeout` seconds; with the end of its log.
        """
        if not self.port:
            self.prepare()
        log = self.folder / "log"
        with log.open("ab") as out:
            self.process = self._spawn(out)
        deadline = time.monotonic() + timeout
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"{self.name} does not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)

    def stop(self, timeout: float = 10.0) -> None:
        """End it in order; by force after `timeout` seconds. Does nothing when it does not run."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(self.farewell)
        self.process.send_signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        if self.process is not None:
            self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause()`."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    def _spawn(self, out: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  # our own command line
            self.command(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )

    def _remembered(self) -> dict[str, str | int]:
        try:
            known = json.loads((self.folder / "server.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _remember(self) -> None:
        write_private(self.folder / "server.json", json.dumps({"port": self.port, "password": self.password}))


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text` at once, readable by its owner only."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    beside.replace(path)


def try_port(port: int, host: str = "127.0.0.1") -> None:
    """Listen there for an instant.

    Raises:
        OSError: a server could not listen there now.
    """
    with socket.socket() as probe:
        # As the servers do: connections of a predecessor in TIME_WAIT do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)


def port_is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    try:
        try_port(port)
    except OSError:
        return False
    return True


def free_port() -> int:
    """A port on 127.0.0.1 on which nobody listens.

    Raises:
        ServerError: none was found in `PORTS`.
    """
    for port in random.sample(PORTS, 200):
        if port_is_free(port):
            return port
    raise ServerError(f"no free port between {PORTS.start} and {PORTS.stop}")


def package_folder(name: str) -> Path:
    """Where an installed package lies, without importing it.

    Raises:
        ServerError: it is not installed.
    """
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ServerError(f"{name} is not installed")
    return Path(spec.origin).parent
