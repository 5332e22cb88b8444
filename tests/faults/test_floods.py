"""More than anybody can read: too many events, and too large ones."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from typing import Any

import httpx
import redis

from headway.events import Report, State
from headway.store import Store
from hub.backlog import MAX_BYTES
from tests.conditions import eventually
from tests.faults.conftest import HubProcess, TaskFactory
from tests.faults.watching import Reading, Watcher
from tests.hub.running import ROOT, Task

MIB = 1024 * 1024
SMALL = 4_096
"""Bytes the kernel shall hold for a watcher who reads slowly."""
RATE, SECONDS = 100_000, 2
LARGE = "ü" * (30 * 1024)
"""A message of 60 KiB."""
FINISHED, TOO_SLOW = 1000, 4408


def watcher(hub: HubProcess, task: Task, **options: Any) -> Watcher:
    """One of a task."""
    return Watcher(hub.port, f"/ws/task/{task.id}", **options).begin()


def has_seen(watcher: Watcher, seq: int) -> bool:
    """Whether an event has come."""
    return watcher.chain.seq == seq


def test_a_task_that_never_stops_talking(hub_process: HubProcess, started: TaskFactory) -> None:
    """Each line and the end reach everybody, progress whoever can read it, and the hub answers meanwhile."""
    task = started()
    quick, slow = watcher(hub_process, task), watcher(hub_process, task, buffer=SMALL)
    base = peak = hub_process.rss
    flood = [sys.executable, "-m", "tests.faults.flood", hub_process.valkey, task.id, str(RATE), str(SECONDS)]
    with Reading([quick]), hub_process.pulse() as pulse:
        with subprocess.Popen(flood, cwd=ROOT, stdout=subprocess.PIPE) as publisher:
            while publisher.poll() is None:
                slow.read(1_000)
                peak = max(peak, hub_process.rss)
                time.sleep(0.02)
            assert publisher.stdout is not None
            lines = int(publisher.stdout.read().split()[0])
        task.progress(7)
        task.succeeded()
        eventually(lambda: quick.code is not None, timeout=30)
    slow.read_all()
    assert publisher.returncode == 0
    for who in (quick, slow):
        assert who.code == FINISHED
        assert who.chain.counts["log"] == lines
        assert json.loads(who.chain.newest)["state"] == "SUCCESS"
        assert json.loads(who.chain.newest)["current"] == 7
        assert who.chain.restarts == 0
    # One between two lines, and what the kernel and the transport took before they were full.
    assert slow.chain.counts["progress"] < lines + 5_000 < RATE * SECONDS / 20
    assert pulse.usual < 0.25
    assert peak - base < 64 * MIB


def test_a_large_message_arrives_whole(hub_process: HubProcess, started: TaskFactory) -> None:
    """On a socket, a stream and a poll."""
    task = started()
    socket = watcher(hub_process, task)
    with (
        redis.Redis.from_url(hub_process.valkey) as client,
        httpx.Client(base_url=f"http://127.0.0.1:{hub_process.port}", trust_env=False) as http,
        http.stream("GET", f"/tasks/{task.id}/events") as stream,
        Reading([socket]),
    ):
        eventually(lambda: socket.chains)
        report = Report(type="state", state=State.PROGRESS, ts=time.time(), message=LARGE)
        Store(client).publish(task.id, report)
        eventually(lambda: json.loads(socket.chain.newest)["message"] == LARGE)
        assert http.get(f"/tasks/{task.id}").json()["message"] == LARGE
        task.succeeded()
        told = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    assert [event["message"] for event in told] == [None, LARGE, LARGE]


def test_a_thousand_large_messages(hub_process: HubProcess, started: TaskFactory) -> None:
    """Who reads gets them all; who does not is told so before it costs more than a backlog may."""
    task = started()
    quick, slow = watcher(hub_process, task), watcher(hub_process, task, buffer=SMALL)
    base = peak = hub_process.rss

    def say(count: int) -> None:
        nonlocal peak
        for _ in range(count // 20):
            last = [task.said(LARGE).seq for _ in range(20)][-1]
            eventually(functools.partial(has_seen, quick, last))
            peak = max(peak, hub_process.rss)

    with Reading([quick]), hub_process.pulse() as pulse:
        eventually(lambda: quick.chains)
        say(200)
        assert slow.read_all().code == TOO_SLOW
        say(800)
        task.succeeded()
        eventually(lambda: quick.code == FINISHED)
    assert quick.chain.counts["log"] == 1_000
    assert quick.chain.restarts == 0
    assert slow.chain.counts["log"] * len(LARGE.encode()) < MIB
    assert pulse.usual < 0.1
    # Its backlog, and what the room remembers.
    assert peak - base < MAX_BYTES + 256 * len(LARGE.encode()) + 16 * MIB
