"""A hub as a process of its own, on a Valkey that no other test speaks to."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from deploy.server import free_port
from deploy.valkey import Valkey
from headway import keys
from headway.events import State
from tests.conditions import eventually
from tests.faults.pulse import Pulse
from tests.hub.running import Process, Task

TaskFactory = Callable[[], Task]


class HubProcess:
    """`python -m hub`, and what the system knows of it."""

    def __init__(self, valkey: str, database: str, storage: Path) -> None:
        self.valkey = valkey
        self.port = free_port()
        servers = {"HEADWAY_REDIS_URL": valkey, "DATABASE_URL": database, "HEADWAY_STORAGE": str(storage)}
        self._process = Process("--port", str(self.port), env=servers)
        self._process.serves(self.port)
        # It says something of every socket, and would wait for a reader of that.
        self._drain = threading.Thread(target=self._read)
        self._drain.start()

    @property
    def rss(self) -> int:
        """Bytes of memory."""
        return int(self._of_system("statm").split()[1]) * resource.getpagesize()

    @property
    def sockets(self) -> int:
        """Open files, most of which are sockets."""
        return len(list(Path(f"/proc/{self._process.process.pid}/fd").iterdir()))

    def subscribed(self, task: Task) -> int:
        """Whether it listens to a task's channel: 1 or 0."""
        with redis.Redis.from_url(self.valkey) as client:
            (answer,) = client.execute_command("PUBSUB", "SHARDNUMSUB", keys.of(task.id).channel)[1::2]
            return int(answer)

    def forgets(self, task: Task) -> None:
        """Wait until nobody watches a task any more and its room is gone."""
        eventually(lambda: not self.subscribed(task), timeout=25)

    def pulse(self) -> Pulse:
        """Its heartbeat, for as long as the test holds it."""
        return Pulse(self.port)

    def stop(self) -> None:
        """Leave nothing."""
        self._process.process.kill()
        self._drain.join()
        self._process.kill()

    def _of_system(self, name: str) -> str:
        return Path(f"/proc/{self._process.process.pid}/{name}").read_text()

    def _read(self) -> None:
        assert self._process.process.stdout is not None
        while self._process.process.stdout.read1():  # type: ignore[attr-defined]
            pass


@pytest.fixture(scope="module")
def files() -> Iterator[int]:
    """How many files this process and its children may open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey for a file of tests."""
    server = Valkey(tmp_path_factory.mktemp("valkey"), durable=False)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def hub_process(
    own_valkey: Valkey, database_url: str, files: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HubProcess]:
    """A hub for a file of tests."""
    hub = HubProcess(own_valkey.url, database_url, tmp_path_factory.mktemp("storage"))
    try:
        yield hub
    finally:
        hub.stop()


@pytest.fixture
def started(own_valkey: Valkey) -> Iterator[TaskFactory]:
    """Tasks that have started."""
    with redis.Redis.from_url(own_valkey.url) as client:

        def start() -> Task:
            task = Task(client)
            task.became(State.STARTED)
            return task

        yield start
        client.flushall()
