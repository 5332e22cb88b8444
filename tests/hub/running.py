"""A hub that really runs: on this loop, to look inside, or as the process that `make up` starts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import redis.asyncio
import uvicorn
import websockets
from msgspec import UNSET
from starlette.applications import Starlette

from headway import keys
from headway.events import Amount, Extra, Failure, Report, State, encode
from headway.store import Position, Store
from hub import __main__ as command
from hub.app import create_app
from hub.server import Server
from hub.services import Services
from hub.settings import Settings

ROOT = Path(__file__).parent.parent.parent

SIMULATE = {
    "task": "simulate",
    "description": "Counts.",
    "queue": "nobody",
    "schema": {
        "type": "object",
        "properties": {
            "steps": {"type": "integer", "minimum": 1},
            "seconds": {"type": "number"},
            "message": {"type": "string"},
            "file": {"type": "string", "format": "upload-ref"},
        },
        "required": ["steps"],
        "additionalProperties": False,
    },
}
"""A catalogue entry as a worker announces it; nobody takes from its queue."""


NOTHING = Extra()


class Task:
    """A task's publisher, as a worker is one: straight through the store."""

    def __init__(self, client: redis.Redis, task_id: str | None = None) -> None:
        self.id = task_id or uuid.uuid4().hex
        self._store = Store(client)

    def became(self, state: State, **extra: Any) -> Position:
        """A change of state."""
        attempt = "+" if state is State.STARTED else ""
        return self._publish(attempt, type="state", state=state, extra=Extra(**extra))

    def sends(self, child: str) -> None:
        """A task of its own."""
        self._store.adopt(self.id, child)

    def progress(self, current: int = 1, total: int | None = 100) -> Position:
        """Some progress."""
        percent = 100 * current / total if total else None
        amount = Amount(current, total, "rows")
        return self._publish(type="progress", state=State.PROGRESS, amount=amount, percent=percent)

    def said(self, text: str = "a line") -> Position:
        """A log line."""
        return self._publish(type="log", message=text, extra=Extra(level="info"))

    def succeeded(self) -> Position:
        """The end."""
        return self.became(State.SUCCESS, result=msgspec.Raw(encode({"rows": 3})))

    def failed(self) -> Position:
        """The other end."""
        return self.became(State.FAILURE, error=Failure("ValueError", "line 3", "f"))

    def _publish(self, attempt: str = "", *, extra: Extra = NOTHING, **fields: Any) -> Position:
        report = {"amount": UNSET, "percent": UNSET, "message": UNSET} | fields
        return self._store.publish(self.id, Report(ts=time.time(), extra=extra, **report), attempt=attempt)


class Quiet(Server):
    """A server that leaves this process's signal handlers alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclasses.dataclass
class Hub:
    """A hub on this loop."""

    url: str
    app: Starlette
    server: uvicorn.Server
    client: httpx.AsyncClient
    trust: ssl.SSLContext | None = None
    """For TLS: whom its clients believe."""

    @property
    def services(self) -> Services:
        """Its insides."""
        services: Services = self.app.state.services
        return services

    def socket(self, path: str, **options: Any) -> Any:
        """A WebSocket to it."""
        return websockets.connect(self.url.replace("http", "ws", 1) + path, proxy=None, ssl=self.trust, **options)


@contextlib.asynccontextmanager
async def serving(
    options: Mapping[str, Any] | None = None, trust: ssl.SSLContext | None = None, **settings: Any
) -> AsyncIterator[Hub]:
    """Serve on a free port, configured as `python -m hub` does it, but for these `options` of uvicorn.

    `trust` is for the clients, when the options make it speak TLS.
    """
    app = create_app(Settings.model_validate(settings))
    listening = command.listen("127.0.0.1", 0, None)
    config = command.configuration(app)
    for name, value in (options or {}).items():
        setattr(config, name, value)
    server = Quiet(config, app)
    running = asyncio.create_task(server.serve([listening]))
    while not server.started:  # uvicorn has no event for it
        if running.done():
            await running
        await asyncio.sleep(0.005)
    url = f"{'https' if trust else 'http'}://127.0.0.1:{listening.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=40, trust_env=False, verify=trust or True) as client:
            yield Hub(url, app, server, client, trust)
    finally:
        server.should_exit = True
        await running


async def announce(url: str, *entries: dict[str, Any]) -> None:
    """Announce these tasks, as a worker does."""
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.hset(keys.CATALOGUE, mapping={entry["task"]: json.dumps(entry) for entry in entries})
        await client.hset(keys.ANNOUNCED, mapping={entry["task"]: time.time() for entry in entries})


async def collect(socket: Any) -> list[dict[str, Any]]:
    """Every message until the other side closes."""
    messages: list[dict[str, Any]] = []
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            messages.append(json.loads(await asyncio.wait_for(socket.recv(), 15)))
    return messages


async def code_of(socket: Any) -> tuple[int, str]:
    """With which code and words the hub closes, whatever it says before."""
    await collect(socket)
    return socket.close_code, socket.close_reason


@dataclasses.dataclass
class Sent:
    """One message of an SSE stream."""

    event: str = ""
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    id: str | None = None
    retry: int | None = None


async def stream(response: httpx.Response) -> AsyncIterator[Sent | str]:
    """The messages of an SSE stream, and its comments as text."""
    message = Sent()
    async for line in response.aiter_lines():
        if line.startswith(":"):
            yield line
        elif not line:
            if message.event:
                yield message
            message = Sent()
        else:
            field, _, value = line.partition(": ")
            setattr(message, field, {"data": json.loads, "retry": int}.get(field, str)(value))


class Process:
    """`python -m hub` as a process of its own."""

    def __init__(self, *arguments: str, env: dict[str, str], pass_fds: tuple[int, ...] = ()) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HEADWAY", "CELERY"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hub", *arguments],
            cwd=ROOT,
            env={**clean, "PYTHONWARNINGS": "error", "PYTHONASYNCIODEBUG": "0", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
        )
        self.output = b""

    def wait_for(self, condition: Callable[[], bool], timeout: float = 15.0) -> None:
        """Until it is so; AssertionError with its words when it ends before."""
        deadline = time.monotonic() + timeout
        while not condition():
            self._read()
            assert self.process.poll() is None, self.output.decode()
            assert time.monotonic() < deadline, self.output.decode()
            time.sleep(0.02)

    def serves(self, port: int) -> None:
        """Wait until it answers on a port."""

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        self.wait_for(answers)

    def ends(self, timeout: float = 15.0) -> tuple[int, str]:
        """Its exit status and everything it has said."""
        output, _ = self.process.communicate(timeout=timeout)
        self.output += output
        return self.process.returncode, self.output.decode()

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Leave nothing."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def _read(self) -> None:
        out = self.process.stdout
        assert out is not None
        while select.select([out], [], [], 0)[0] and (data := os.read(out.fileno(), 65536)):
            self.output += data


def reserved() -> socket.socket:
    """A listening socket to hand down."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.set_inheritable(True)
    return listening
