"""How many polls a second one process answers: `GET /tasks/{id}` beside the tutorials' FastAPI endpoint."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import redis
from celery import Celery
from websockets.sync.client import connect

from bench.measure import medians
from bench.publish import valkey
from deploy.server import free_port, port_is_free
from headway.events import Amount, Report, State
from headway.store import Details, Store

ROOT = Path(__file__).parent.parent
TASK = "bench-poll"
PATIENCE = 20.0
"""Seconds a server has to start, to answer, or to end."""


def measure(seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """Answers a second. What is watched is answered from the room, what is not from Redis; FastAPI knows no 304."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(valkey())
        _begin(url)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headway-bench-")))
        hub = stack.enter_context(_serving(folder / "hub", ["-m", "hub"], _environment(url, folder)))
        command = ["-m", "uvicorn", "bench.peers.fastapi_app:app"]
        peer = stack.enter_context(_serving(folder / "fastapi", command, {"REDIS_URL": url}))
        etag = _etag(hub)
        fastapi = functools.partial(_rate, peer, seconds, "")
        cases: dict[str, dict[str, Callable[[], float]]] = {
            "poll_304_rps": {"headway": functools.partial(_rate, hub, seconds, etag), "fastapi": fastapi},
            "poll_200_rps": {"headway": functools.partial(_rate, hub, seconds, ""), "fastapi": fastapi},
        }
        results = {metric: medians(contenders, rounds) for metric, contenders in cases.items()}
        with connect(f"ws://127.0.0.1:{hub}/ws/task/{TASK}", proxy=None) as watcher:
            watcher.recv(PATIENCE)
            results["poll_304_watched_rps"] = medians(
                {"headway": functools.partial(_rate, hub, seconds, etag), "fastapi": fastapi}, rounds
            )
    return {metric: {name: round(value) for name, value in figures.items()} for metric, figures in results.items()}


def _begin(url: str) -> None:
    """One task that runs, as Headway's store and as Celery's result backend have it."""
    with redis.Redis.from_url(url) as client:
        store = Store(client)
        details: Details = {"task": "bench", "queue": "celery", "created_at": time.time(), "args": b'{"rows": 1000}'}
        started = Report(type="state", state=State.STARTED, ts=time.time(), amount=Amount())
        store.publish(TASK, started, attempt="+", details=details)
        amount = Amount(420, 1000, "rows")
        progress = Report(
            type="progress", state=State.PROGRESS, ts=time.time(), amount=amount, percent=42.0, message="importing rows"
        )
        store.publish(TASK, progress)
    app = Celery("bench", broker=url, backend=url, set_as_current=False)
    meta = {"current": 420, "total": 1000, "unit": "rows", "message": "importing rows"}
    app.backend.store_result(TASK, meta, "PROGRESS")


def _environment(url: str, folder: Path) -> dict[str, str]:
    # A poll of a task that the store knows asks no database.
    return {
        "HEADWAY_REDIS_URL": url,
        "CELERY_BROKER_URL": url,
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "HEADWAY_STORAGE": str(folder / "storage"),
    }


@contextlib.contextmanager
def _serving(log: Path, command: list[str], env: dict[str, str]) -> Iterator[int]:
    """A server process; its port."""
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HEADWAY", "CELERY"))}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command, "--port", str(port)], cwd=ROOT, env=clean | env, stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while port_is_free(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} does not start: {log.read_text(errors='replace')[-800:]}")
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _etag(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/tasks/{TASK}", timeout=PATIENCE) as answer:
        return str(answer.headers["ETag"])


def _rate(port: int, seconds: float, etag: str) -> float:
    command = [sys.executable, "-m", "bench.poller", str(port), f"/tasks/{TASK}", str(seconds), etag]
    return float(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
