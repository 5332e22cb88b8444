"""`python -m hub` as a process: how it starts, refuses, logs and ends."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis
import websockets

from deploy.server import free_port
from headway import keys
from headway.events import State
from tests.conditions import until
from tests.hub.running import Process, Task, collect, reserved

ENDED = (0, -signal.SIGTERM)
"""Exit statuses of an orderly end: uvicorn passes the signal on when it is done."""

HubFactory = Callable[..., Process]


@pytest.fixture
def start(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[HubFactory]:
    """Start hubs on the shared servers; arguments as on the command line, variables as keywords."""
    started: list[Process] = []
    servers = {"HEADWAY_REDIS_URL": redis_url, "DATABASE_URL": database_url, "HEADWAY_STORAGE": str(tmp_path)}

    def start(*arguments: str, pass_fds: tuple[int, ...] = (), **environment: str) -> Process:
        started.append(Process(*arguments, env={**servers, **environment}, pass_fds=pass_fds))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()


def refusal(process: Process) -> str:
    """What a hub says that does not start: one sentence on one line, exit 1."""
    status, output = process.ends()
    assert status == 1, output
    assert output.startswith("headway: "), output
    assert output.count("\n") == 1, output
    return output


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_others_may_not_reach_a_hub_without_tokens(start: HubFactory, host: str) -> None:
    """Unless HEADWAY_AUTH=off says so openly."""
    assert "HEADWAY_AUTH=off" in refusal(start("--host", host, "--port", "0"))


def test_auth_off_is_said_openly(start: HubFactory) -> None:
    """It serves every address, and warns."""
    port = free_port()
    hub = start("--host", "0.0.0.0", "--port", str(port), HEADWAY_AUTH="off")
    hub.serves(port)
    hub.terminate()
    status, output = hub.ends()
    assert status in ENDED
    assert "HEADWAY_AUTH=off" in output


def test_a_port_in_use_is_told(start: HubFactory) -> None:
    """With the address."""
    with reserved() as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in refusal(start("--port", str(port)))


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"HEADWAY_AUTH": "maybe"}, "HEADWAY_AUTH"),
        ({"HEADWAY_MAX_UPLOAD": "lots"}, "HEADWAY_MAX_UPLOAD"),
        ({"HEADWAY_MAX_SOCKETS": "0"}, "HEADWAY_MAX_SOCKETS"),
        ({"HEADWAY_REDIS_URL": "http://x"}, "HEADWAY_REDIS_URL"),
        ({"HEADWAY_REDIS_URL": "redis://127.0.0.1:port/0"}, "HEADWAY_REDIS_URL"),
        ({"CELERY_BROKER_URL": "amqp://x"}, "CELERY_BROKER_URL"),
        ({"DATABASE_URL": "mysql://x"}, "DATABASE_URL"),
        ({"DATABASE_URL": "postgresql://127.0.0.1:port/x"}, "DATABASE_URL"),
        ({"HEADWAY_SECRET": "s3cret"}, "HEADWAY_SECRET"),
        ({"HEADWAY_LOG_LEVEL": "LOUD"}, "HEADWAY_LOG_LEVEL"),
    ],
    ids=str,
)
def test_a_wrong_variable_is_named(start: HubFactory, variables: dict[str, str], says: str) -> None:
    """What has to be changed is in the sentence; a secret is not."""
    words = refusal(start("--port", "0", **variables))
    assert says in words
    assert "s3cret" not in words


@pytest.mark.parametrize("arguments", [["--fd", "77"], ["--fd", "0"], ["--port", "99999"], ["--host", "no.such.host"]])
def test_an_address_that_cannot_be_had_is_told(start: HubFactory, arguments: list[str]) -> None:
    """No such descriptor, no socket, no port, no host."""
    assert "cannot listen" in refusal(start(*arguments))


def test_an_inherited_socket_is_served(start: HubFactory) -> None:
    """`--fd`: several hubs may share it, and one of them may go."""
    with reserved() as listening:
        port, fd = listening.getsockname()[1], str(listening.fileno())
        first, second = (start("--fd", fd, pass_fds=(listening.fileno(),)) for _ in range(2))
        first.serves(port)
        second.wait_for(lambda: b"startup complete" in second.output)
        first.terminate()
        assert first.ends()[0] in ENDED
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200


def test_it_starts_without_its_servers(start: HubFactory) -> None:
    """All of them away: it serves, is not ready, and says which is missing."""
    away = f"127.0.0.1:{free_port()}"
    port = free_port()
    hub = start("--port", str(port), HEADWAY_REDIS_URL=f"redis://{away}/0", DATABASE_URL=f"postgresql://{away}/x")
    hub.serves(port)
    answer = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False, timeout=15)
    assert answer.status_code == 503
    assert set(answer.json()["checks"].values()) == {"unreachable"}
    answer = httpx.get(f"http://127.0.0.1:{port}/tasks/x", trust_env=False, timeout=15)
    assert answer.status_code == 503
    assert "progress store" in answer.json()["detail"]
    hub.terminate()
    assert hub.ends()[0] in ENDED


async def test_sigterm_hands_everybody_over(start: HubFactory, redis_url: str) -> None:
    """Open sockets get 1012 or 1001, streams end, a socket that reads nothing does not hold it up: within 10 s."""
    port = free_port()
    hub = start("--port", str(port))
    await asyncio.to_thread(hub.serves, port)
    with redis.Redis.from_url(redis_url) as client:
        task = Task(client)
        task.became(State.STARTED)
        base = f"127.0.0.1:{port}"
        quiet = Task(client)
        position = quiet.became(State.STARTED)
        tag = f'"{position.epoch}-{position.seq}"'
        sockets = [await websockets.connect(f"ws://{base}/ws/task/{task.id}", proxy=None) for _ in range(20)]
        for opened in sockets:
            await opened.recv()
        stalled = socket.create_connection(("127.0.0.1", port))
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.sendall(f"GET /tasks/{task.id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        deaf = await websockets.connect(f"ws://{base}/ws/task/{task.id}", proxy=None, max_queue=1)
        deaf.transport.pause_reading()
        async with (
            httpx.AsyncClient(trust_env=False, timeout=20) as http,
            http.stream("GET", f"http://{base}/tasks/{task.id}/events") as events,
        ):
            lines = events.aiter_lines()
            assert (await anext(lines)).startswith("id:")
            waiting = asyncio.create_task(
                http.get(f"http://{base}/tasks/{quiet.id}", headers={"Prefer": "wait=30", "If-None-Match": tag})
            )
            channel = keys.of(quiet.id).channel
            await until(lambda: client.execute_command("PUBSUB", "SHARDNUMSUB", channel)[1] == 1)
            for _ in range(300):
                task.said("x" * 20_000)
            began = time.monotonic()
            hub.terminate()
            codes = []
            for opened in sockets:
                await collect(opened)
                codes.append(opened.close_code)
            async for _ in lines:
                pass  # to its orderly end: httpx raises for a connection that is merely cut
            assert (await waiting).status_code == 304  # the poll is answered, not cut off
        status, output = await asyncio.to_thread(hub.ends, 12)
        assert time.monotonic() - began < 10
        deaf.transport.abort()
        stalled.close()
    assert set(codes) <= {1001, 1012}
    assert status in ENDED, output
    assert "Traceback" not in output, output


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
async def test_what_is_logged(start: HubFactory, redis_url: str, level: str) -> None:
    """JSON lines with the request's and the task's id, uvicorn's own among them; what is in a query is in none."""
    port = free_port()
    hub = start("--port", str(port), HEADWAY_LOG_LEVEL=level)
    await asyncio.to_thread(hub.serves, port)
    with redis.Redis.from_url(redis_url) as client:
        task = Task(client)
        task.became(State.STARTED)
        task.succeeded()
    secret = uuid.uuid4().hex
    base = f"127.0.0.1:{port}"
    async with websockets.connect(f"ws://{base}/ws/task/{task.id}?token={secret}", proxy=None) as opened:
        await opened.recv()
        await opened.wait_closed()
    with pytest.raises(websockets.InvalidStatus):
        await websockets.connect(f"ws://{base}/nothing?token={secret}", proxy=None)
    async with httpx.AsyncClient(base_url=f"http://{base}", trust_env=False) as http:
        for path in (f"/tasks/{task.id}", "/nothing", f"/tasks/{task.id}/events", "/files/x"):
            answer = await http.get(f"{path}?token={secret}", headers={"X-Request-ID": f"id-{path[1:4]}"})
            assert answer.headers["X-Request-ID"] == f"id-{path[1:4]}"
            assert secret not in answer.text
    hub.terminate()
    status, output = await asyncio.to_thread(hub.ends)
    assert status in ENDED
    assert secret not in output
    lines = [json.loads(line) for line in output.splitlines()]
    assert {line["service"] for line in lines} == {"hub"}
    assert any(line["logger"].startswith("uvicorn") for line in lines)
    requests = [line for line in lines if line["event"] == "request"]
    (socket_line,) = [line for line in requests if line["method"] == "WS" and line.get("task_id")]
    assert (socket_line["task_id"], socket_line["code"]) == (task.id, 1000)
    served = {"request_id": "id-tas", "task_id": task.id, "status": 200}
    assert any(served.items() <= line.items() for line in requests)
