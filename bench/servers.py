"""The servers, started one at a time: Headway as `make up` runs it, and each peer in its usual form."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple
from urllib.parse import urlsplit

from bench import feed
from bench.feed import Publisher, RedisLane
from deploy.server import free_port

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / "peers"
CACHE = ROOT / ".bench"
"""What is installed or compiled for the peers; git ignores it."""


class PeerError(Exception):
    """A server does not start; the message is its last words."""


class Stage(NamedTuple):
    """What all servers find."""

    folder: Path
    redis_url: str
    database_url: str


class Server:
    """One of them. `start()` and `stop()`; between them `port` and `pids`."""

    name: ClassVar[str]
    prefix = "/ws/"
    headers: tuple[str, ...] = ()
    greeted = False
    events_per_second = 20_000
    """How many events of 1,000 tasks it is given; those that cannot take 20,000 get 5,000."""
    one_task = False
    """Whether it knows one task only."""

    def __init__(self) -> None:
        self.port = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log = Path()

    @property
    def names(self) -> str:
        """The ids of its tasks, with a %d for the number."""
        return feed.named(self.name)

    @property
    def path(self) -> str:
        """Where a task is watched, with the same %d."""
        return self.prefix + self.names

    def missing(self) -> str:
        """How to get it, when it is not there; else empty."""
        return ""

    def prepare(self) -> None:
        """Install or compile what it needs; `PeerError`."""

    def start(self, stage: Stage) -> None:
        """Start it and wait until it listens; `PeerError` if it does not."""
        raise NotImplementedError

    def publisher(self, stage: Stage, tasks: int) -> Publisher:
        """What publishes to it, on the first `tasks` tasks."""
        return Publisher([RedisLane(stage.redis_url)], feed.published(self.names), tasks)

    @property
    def pids(self) -> list[int]:
        """The processes whose CPU and memory count."""
        return [process.pid for process in self._processes]

    def stop(self) -> None:
        """End it, in order if it can."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def last_words(self) -> dict[str, float]:
        """What it has measured itself: metric → figure, once it has ended."""
        return {}

    def _run(
        self,
        stage: Stage,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: Path = ROOT,
        pass_fds: Sequence[int] = (),
    ) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HEADWAY", "CELERY"))}
        self._log = self._log_in(stage)
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**clean, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=pass_fds,
            )
        self._processes.append(process)
        deadline = time.monotonic() + 20
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise PeerError(f"{self.name} does not start: {self._log.read_text(errors='replace')[-800:]}")
            time.sleep(0.05)

    def _log_in(self, stage: Stage) -> Path:
        return stage.folder / f"{self.name}.log"

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Headway(Server):
    """`python -m hub`, with its database and everything switched on."""

    name = "headway"
    prefix = "/ws/task/"
    headers = ("Sec-WebSocket-Protocol: headway.v1",)
    greeted = True
    hubs = 1

    def start(self, stage: Stage) -> None:
        env = {
            "HEADWAY_REDIS_URL": stage.redis_url,
            "DATABASE_URL": stage.database_url,
            "HEADWAY_STORAGE": str(stage.folder / "storage"),
        }
        feed.begin_all(stage.redis_url, self.names, 1_000)
        self._begin = log.stat().st_size if (log := self._log_in(stage)).exists() else 0
        with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
            self.port = listening.getsockname()[1]
            command = [sys.executable, "-m", "hub", "--fd", str(listening.fileno())]
            for _ in range(self.hubs):
                self._run(stage, command, env, pass_fds=[listening.fileno()])

    def publisher(self, stage: Stage, tasks: int) -> Publisher:
        return Publisher([RedisLane(stage.redis_url)], feed.scripted(self.names, tasks), tasks)

    def last_words(self) -> dict[str, float]:
        pauses = [float(pause) for pause in re.findall(r'"longest_ms":([\d.]+)', self._said())]
        return {"gc_pause_max_ms": max(pauses)} if pauses else {}

    def _answers(self) -> bool:
        # The port answers before anybody serves it: it is ours, and the hubs inherit it.
        return self._said().count("Application startup complete") == len(self._processes)

    def _said(self) -> str:
        return self._log.read_bytes()[self._begin :].decode(errors="replace")


class Headways(Headway):
    """Two of them on one port, as `make up HUBS=2` runs them."""

    name = "headway_2"
    hubs = 2


class Starlette(Server):
    """The tutorials' loop, on uvicorn with default settings."""

    name = "starlette"
    events_per_second = 5_000

    def start(self, stage: Stage) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "uvicorn", "bench.peers.starlette_app:app", "--port", str(self.port)]
        self._run(stage, command, {"REDIS_URL": stage.redis_url})


class Node(Server):
    """Node.js with `ws` and ioredis."""

    name = "node"
    source = PEERS / "node"

    def missing(self) -> str:
        """See `Server.missing`."""
        return "" if shutil.which("node") and shutil.which("npm") else "install Node.js 20 or newer, with npm"

    @property
    def folder(self) -> Path:
        """Where it is installed: another one for other versions."""
        wanted = hashlib.sha1((self.source / "package.json").read_bytes(), usedforsecurity=False).hexdigest()
        return CACHE / f"node-{wanted[:12]}"

    def prepare(self) -> None:
        """`npm install`, once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in ("package.json", "server.mjs"):
            shutil.copy(self.source / file, self.folder)
        if not (self.folder / "node_modules" / ".package-lock.json").exists():
            command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--omit=dev"]
            done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
            if done.returncode:
                raise PeerError(f"npm cannot install ws and ioredis: {done.stderr.strip()[-500:]}")

    def start(self, stage: Stage) -> None:
        self.port = free_port()
        env = {"REDIS_URL": stage.redis_url, "PORT": str(self.port)}
        self._run(stage, ["node", "server.mjs"], env, cwd=self.folder)


class Floor(Server):
    """A bare loop of `send()` in C."""

    name = "floor"
    one_task = True

    def missing(self) -> str:
        """See `Server.missing`."""
        return "" if self._compiler() else "install a C compiler (cc, gcc or clang)"

    def prepare(self) -> None:
        """Compile it, once."""
        source = PEERS / "floor.c"
        self._program = CACHE / f"floor-{hashlib.sha1(source.read_bytes(), usedforsecurity=False).hexdigest()[:12]}"
        if not self._program.exists():
            CACHE.mkdir(exist_ok=True)
            command = [str(self._compiler()), "-O2", "-o", str(self._program), str(source)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise PeerError(f"floor.c does not compile: {done.stderr.strip()[-500:]}")

    def start(self, stage: Stage) -> None:
        self.port = free_port()
        url = urlsplit(stage.redis_url)
        command = [str(self._program), str(self.port), str(url.port), f"task:{self.names % 0}"]
        self._run(stage, command, {"REDIS_PASSWORD": url.password or ""})

    def _compiler(self) -> str | None:
        return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
