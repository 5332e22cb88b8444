"""The load client as a process of its own: `bench.client`, or a C program that the variable WSLOAD names.

WSLOAD is for a machine on which the client needs the processor that the server should have. It is called as
`wsload HOST PORT PATH SOCKETS TASKS SECONDS`, prints READY when all are open, counts for so long and prints
`MSGS n … CLOSED n LAT_us p50=… p99=…`. Its count may hold a few of the first messages.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bench.latency import percentile

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0
"""Seconds until all sockets must be open."""
STRAGGLERS = 3.0
"""Seconds that the last messages may take."""
SETTLED = 0.5
"""Seconds for what cannot be asked: first messages to a C client, and its last ones."""


class LoadError(Exception):
    """The sockets could not be opened; the message says what the client said."""


class Aim(NamedTuple):
    """What to open: `sockets` to a path with a %d, which is i mod `tasks`."""

    port: int
    path: str
    sockets: int
    tasks: int
    headers: tuple[str, ...] = ()
    greeted: bool = False
    """Whether the server sends a first message by which one knows that a socket is let in."""


class Heard(NamedTuple):
    """What arrived between `reset()` and `report()`."""

    messages: int
    closed: int
    least: int
    """Messages of the socket that got the fewest."""
    p50_ms: float
    p99_ms: float


class Load(Protocol):
    """Open sockets."""

    seconds: float
    """How long opening them took."""
    pids: list[int]

    def reset(self) -> None:
        """Begin to count."""

    def heard(self, expected: int) -> Heard:
        """The count, as soon as so many messages are there, or after `STRAGGLERS` seconds without."""

    def close(self) -> None:
        """Close all sockets."""


def opened(aim: Aim) -> Load:
    """Open them; `LoadError` if the server does not let them in."""
    program = os.environ.get("WSLOAD")
    return Native(program, aim) if program else Clients(aim)


def shares(sockets: int, processes: int) -> list[tuple[int, int]]:
    """Which sockets each process opens: (first, how many)."""
    edges = [sockets * part // processes for part in range(processes + 1)]
    return [(low, high - low) for low, high in itertools.pairwise(edges) if high > low]


class Clients:
    """Our own client, in several processes where there are processors for them."""

    def __init__(self, aim: Aim) -> None:
        processes = max(1, min(4, (os.cpu_count() or 2) - 2, aim.sockets // 1_000))
        self._running = [self._start(aim, first, count) for first, count in shares(aim.sockets, processes)]
        self.pids = [process.pid for process in self._running]
        with _watched(self._running):
            self.seconds = max(float(answer["seconds"]) for answer in map(_line, self._running))

    def reset(self) -> None:
        """See `Load`."""
        self._ask("reset")

    def heard(self, expected: int) -> Heard:
        """See `Load`."""
        deadline = time.monotonic() + STRAGGLERS
        while (heard := self._report()).messages < expected and time.monotonic() < deadline:
            time.sleep(0.05)
        return heard

    def close(self) -> None:
        """See `Load`."""
        _end(self._running)

    def _report(self) -> Heard:
        told = self._ask("report")
        latency: Counter[int] = Counter()
        for one in told:
            latency.update({int(index): count for index, count in one["latency"].items()})
        return Heard(
            sum(one["messages"] for one in told),
            sum(one["closed"] for one in told),
            min(one["least"] for one in told),
            percentile(latency, 0.5),
            percentile(latency, 0.99),
        )

    def _start(self, aim: Aim, first: int, count: int) -> subprocess.Popen[str]:
        words = ["127.0.0.1", str(aim.port), aim.path, str(count), str(aim.tasks), "--first", str(first)]
        for line in aim.headers:
            words += ["--header", line]
        words += ["--greeted"] * aim.greeted
        return _spawned([sys.executable, "-m", "bench.client", *words], {})

    def _ask(self, command: str) -> list[Any]:
        for process in self._running:
            assert process.stdin is not None
            process.stdin.write(f"{command}\n")
            process.stdin.flush()
        return [_line(process) for process in self._running]


class Native:
    """A C client. It counts from when all sockets are open and tells it at its end: each count opens anew."""

    def __init__(self, program: str, aim: Aim) -> None:
        self._env = {"WS_HEADERS": "".join(f"{line}\r\n" for line in aim.headers)}
        words = ["127.0.0.1", str(aim.port), aim.path, str(aim.sockets), str(aim.tasks), "3600"]
        self._command = [program, *words]
        self._open()

    def reset(self) -> None:
        """See `Load`."""
        if self._process.poll() is not None:
            self._open()
            time.sleep(SETTLED)

    def heard(self, expected: int) -> Heard:
        """See `Load`. It cannot be asked while it counts."""
        time.sleep(SETTLED)
        self._process.terminate()
        told = _told(self._process)
        self._process.communicate()
        numbers = {name: int(value) for name, value in re.findall(r"(MSGS|CLOSED|p50|p99)[ =](\d+)", told)}
        return Heard(numbers["MSGS"], numbers["CLOSED"], -1, numbers["p50"] / 1e3, numbers["p99"] / 1e3)

    def close(self) -> None:
        """See `Load`."""
        _end([self._process])

    def _open(self) -> None:
        began = time.monotonic()
        self._process = _spawned(self._command, self._env)
        self.pids = [self._process.pid]
        with _watched([self._process]):
            _told(self._process)
        self.seconds = time.monotonic() - began


@contextlib.contextmanager
def _watched(processes: list[subprocess.Popen[str]]) -> Iterator[None]:
    """Until the sockets are open; a client that cannot open them is ended."""
    timers = [threading.Timer(PATIENCE, process.kill) for process in processes]
    for timer in timers:
        timer.start()
    try:
        yield
    except LoadError:
        _end(processes)
        raise
    finally:
        for timer in timers:
            timer.cancel()


def _spawned(command: Sequence[str], env: dict[str, str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def _told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.kill()
        raise LoadError(f"the load client ends: {process.communicate()[1].strip()[-500:]}")
    return line


def _line(process: subprocess.Popen[str]) -> Any:
    return json.loads(_told(process))


def _end(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()
