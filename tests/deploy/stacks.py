"""A whole stack, started the way `make up` starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from deploy.programs import ROOT
from deploy.stack import Stack, running

T = TypeVar("T")

OWN_SERVERS = ("HEADWAY_REDIS_URL", "CELERY_BROKER_URL", "DATABASE_URL")


def until(condition: Callable[[], T | None], timeout: float = 30.0) -> T:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


class UpProcess:
    """One `python -m deploy.up` in a session of its own, as a terminal would give it."""

    def __init__(self, state: Path, port: int, output: Path, *options: str, **environment: str) -> None:
        self.state = state
        self.port = port
        self.output = output
        self.family: list[psutil.Process] = []
        inherited = {key: value for key, value in os.environ.items() if key not in OWN_SERVERS}
        words = ["--port", str(port), "--state", str(state), "--workers", "1", *options]
        with self.output.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.up", *words],
                cwd=ROOT, env=inherited | environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def ready(self) -> Stack:
        """Wait until it says that it is up."""
        until(lambda: running(self.state) or self.process.poll() is not None, 60)
        stack = running(self.state)
        if stack is None:
            pytest.fail(f"the stack did not get ready:\n{self.said()}")
        return stack

    def said(self) -> str:
        """What it printed so far."""
        return self.output.read_text()

    def relatives(self) -> list[psutil.Process]:
        """Every process below it, remembered so that `left()` finds those that outlive it."""
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        return self.family

    def left(self) -> list[psutil.Process]:
        """Those of `relatives()` that still run."""
        return [process for process in self.family if runs(process)]

    def named(self, word: str) -> list[psutil.Process]:
        """Its direct children of this name, or with this word in their command line."""
        return [process for process in psutil.Process(self.process.pid).children() if word in _words(process)]

    def interrupt(self) -> int:
        """Ctrl-C: SIGINT to the whole foreground group; the exit code."""
        self.relatives()
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(15)

    def end(self) -> None:
        """Leave nothing, whatever the test did."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.relatives()
                self.process.kill()
                self.process.wait()
        for process in self.left():
            process.kill()


def runs(process: psutil.Process) -> bool:
    """Whether it is more than a zombie, which only waits for the system's init to look at it."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _words(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):  # it died meanwhile
        return [process.name(), *process.cmdline()]
    return []
