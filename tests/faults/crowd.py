"""Many watchers of one task, in a process of their own: `python -m tests.faults.crowd PORT TASK COUNT`.

It prints a line when all have been told where the task stands, and one after each line on its standard input: `report`
tells of them as JSON, `vanish` resets all connections. It ends with its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from tests.conditions import eventually
from tests.faults.watching import Watcher, opened
from tests.hub.running import ROOT


class Crowd:
    """The process, as a test sees it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def report(self) -> dict[str, Any]:
        """`open`, the number of watchers; `least`, the lowest `seq` that any of them has seen; `error`, or None."""
        told: dict[str, Any] = json.loads(self._ask("report"))
        assert told["error"] is None, told["error"]
        return told

    def vanish(self) -> None:
        """Every connection is reset."""
        self._ask("vanish")

    def sees(self, seq: int, timeout: float = 15.0) -> None:
        """Wait until all of them have come so far."""
        eventually(lambda: self.report()["least"] >= seq, timeout)

    def _ask(self, what: str) -> bytes:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n".encode())
        self.process.stdin.flush()
        return self.process.stdout.readline()


@contextlib.contextmanager
def crowd(port: int, task_id: str, count: int) -> Iterator[Crowd]:
    """So many watchers, every one of which has its snapshot."""
    command = [sys.executable, "-m", "tests.faults.crowd", str(port), task_id, str(count)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            yield Crowd(process)
        finally:
            process.kill()


def _take(watchers: list[Watcher], ready: selectors.BaseSelector, timeout: float | None = None) -> bool:
    """One round; whether there is something on standard input."""
    asked = False
    for key, _ in ready.select(timeout):
        if key.data is None:
            asked = True
            continue
        key.data.read()
        if key.data.code is not None:
            ready.unregister(key.fileobj)
            watchers.remove(key.data)
    return asked


def _told(watchers: list[Watcher], error: str | None) -> str:
    least = min((watcher.chain.seq for watcher in watchers if watcher.chains), default=0)
    return json.dumps({"open": len(watchers), "least": least, "error": error})


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(port: str, task_id: str, count: str) -> None:
    """See the module docstring."""
    watchers: list[Watcher] = []
    error: str | None = None
    with selectors.DefaultSelector() as ready:
        for watcher in opened(int(port), f"/ws/task/{task_id}", int(count)):
            watcher.socket.setblocking(False)
            ready.register(watcher.socket, selectors.EVENT_READ, watcher)
            watchers.append(watcher)
            _take(watchers, ready, 0)
        while not all(watcher.chains for watcher in watchers):
            _take(watchers, ready)
        _say("open")
        ready.register(sys.stdin, selectors.EVENT_READ)
        while True:
            try:
                if not _take(watchers, ready):
                    continue
            except AssertionError as broken:
                error = error or str(broken)
                continue
            for command in os.read(sys.stdin.fileno(), 4096).split() or [b"end"]:
                if command == b"end":
                    return
                if command == b"vanish":
                    for watcher in watchers:
                        ready.unregister(watcher.socket)
                        watcher.vanish()
                    watchers.clear()
                _say(_told(watchers, error))


if __name__ == "__main__":
    main(*sys.argv[1:])
