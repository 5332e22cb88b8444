"""The process manager: circus, embedded.

Circus and not honcho: it changes the number of processes of a running stack, and it owns the listening socket that all
hubs share. Embedded and not as circusd: the order of things (servers, migrations, everything else; backwards at the
end) and what Ctrl-C does are ours to decide, and the supervisor is one process that can be watched and killed as one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from circus.arbiter import Arbiter
from circus.exc import ConflictError
from circus.sockets import CircusSocket
from circus.watcher import Watcher
from tornado.ioloop import IOLoop

from deploy.rescale import Rescale

# It warns of a program that is wanted with no process, which is what WORKERS=0 says.
logging.getLogger("circus").setLevel(logging.ERROR)
# Circus looks around every second, finds itself busy and has tornado print a traceback about it.
logging.getLogger("tornado.application").addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], ConflictError))
)

# A process that ends this often within this time (seconds) is started again only after a pause.
LOOPS, LOOP_TIME, LOOP_PAUSE = 5, 30.0, 30.0
# How long (seconds) a command of the manager may hold up the stop of the stack before processes are forced.
CONFLICT_PATIENCE = 2.0


@dataclass(frozen=True)
class Program:
    """One kind of process.

    `grace` is the time in seconds between `stop` and SIGKILL. `once` is for a program that does its work and ends. A
    `log` file takes its output; without one it has the terminal, so that it sees for itself whether it is one.
    """

    name: str
    command: list[str]
    folder: str
    env: dict[str, str]
    count: int = 1
    stop: signal.Signals = signal.SIGTERM
    grace: float = 5.0
    once: bool = False
    log: str = ""


@dataclass
class Ends:
    """How the processes of one program ended without being asked."""

    times: deque[float] = field(default_factory=lambda: deque(maxlen=LOOPS))
    code: int | None = None

    def looping(self) -> bool:
        """Whether there were too many in too short a time."""
        return len(self.times) == LOOPS and self.times[-1] - self.times[0] < LOOP_TIME


class Manager:
    """Starts, watches, scales and stops programs. Lives in a running asyncio loop."""

    def __init__(self, endpoint: str, port: int, say: Callable[[str], None]) -> None:
        """Bind nothing yet. `endpoint` is the control socket (zmq), `port` that of the shared socket "hub"."""
        self._say = say
        self._programs: dict[str, Program] = {}
        self._ends: dict[str, Ends] = {}
        self._closing = False
        self.settled = False  # before, an end is a failed start and its starter's business
        self._arbiter = Arbiter(
            [],
            endpoint,
            "inproc://events",
            loop=IOLoop.current(),
            sockets=[CircusSocket("hub", host="127.0.0.1", port=port)],
        )
        # Circus took the signals in its constructor. On SIGHUP it would reload; here they are the caller's.
        self._arbiter.ctrl.sys_hdl.stop()
        self._arbiter.ctrl.commands[Rescale.name] = Rescale()

    async def open(self) -> None:
        """Bind the shared socket and the control socket.

        Raises:
            OSError: a socket cannot be bound.
        """
        await self._arbiter.start()

    def add(self, program: Program) -> None:
        """Make a program known; `start()` runs it."""
        self._programs[program.name] = program
        self._ends[program.name] = Ends()
        stream = {"class": "FileStream", "filename": program.log, "max_bytes": 1 << 20, "backup_count": 1}
        self._arbiter.add_watcher(
            program.name,
            shlex.quote(program.command[0]),
            args=program.command[1:],
            numprocesses=program.count,
            working_dir=program.folder,
            env=program.env,
            stop_signal=program.stop,
            graceful_timeout=program.grace,
            respawn=not program.once,
            use_sockets=program.name == "hub",
            stdout_stream=dict(stream) if program.log else None,
            stderr_stream=dict(stream) if program.log else None,
            autostart=False,
            hooks={"after_reap": (self._ended, True)},
        )

    async def start(self, names: Iterable[str]) -> None:
        """Run the programs. That they have begun is all it says."""
        for name in names:
            await self._alone(self._watcher(name).start)

    def pids(self, names: Iterable[str]) -> list[int]:
        """The processes of these programs right now."""
        return [pid for name in names for pid in self._watcher(name).processes]

    def finished(self, name: str) -> bool:
        """Whether a program with `once` has done its work."""
        return self._ends[name].code == 0

    def failure(self) -> str:
        """Which program failed first, how, and where it says why; empty if none did."""
        for name, ends in self._ends.items():
            if ends.code:
                return f"{name} ended with {_how(ends.code)}: see {self._programs[name].log or 'above'}"
        return ""

    async def stop(self, names: Iterable[str]) -> None:
        """Stop these programs, all at the same time, each within its grace."""
        self._closing = True
        watchers = [self._watcher(name) for name in names if name in self._programs]
        pids = [pid for watcher in watchers for pid in watcher.processes]
        await self._alone(lambda: self._arbiter.stop_watchers(watcher_iter_func=lambda **_: watchers))
        _kill_groups(pids)  # circus waits for the process, not for what the process started

    def refuse(self) -> None:
        """Close our end of the shared socket: when the last hub is gone, newcomers are refused at once."""
        self._arbiter.sockets.close_all()

    def kill(self, names: Iterable[str]) -> None:
        """SIGKILL these programs with their children: each process has a group of its own."""
        _kill_groups(self.pids(names))

    async def close(self) -> None:
        """Stop whatever still runs and let everything go."""
        self._closing = True
        await self._alone(self._arbiter.stop)
        await asyncio.sleep(0)  # circus closes its sockets in the next turn of the loop

    async def _alone(self, command: Callable[[], Awaitable[Any]]) -> None:
        """Run a command of the arbiter. It refuses while it is busy with another one (its own look around, a scale)."""
        started = time.monotonic()
        while True:
            try:
                await command()
            except ConflictError:
                if time.monotonic() - started > CONFLICT_PATIENCE:
                    self.kill(self._ends)  # what it waits for is the end of a process
                await asyncio.sleep(0.02)
            else:
                return

    def _watcher(self, name: str) -> Watcher:
        return self._arbiter.get_watcher(name)

    def _ended(self, *, watcher: Watcher, exit_code: int | None, process_pid: int, **_: object) -> bool:
        """Called by circus for every process it finds dead."""
        ends = self._ends[watcher.name]
        ends.code = exit_code
        if not self.settled or self._closing or watcher.is_stopping():
            return True
        ends.times.append(time.monotonic())
        how = _how(exit_code)
        if ends.looping():
            self._say(f"{watcher.name} keeps ending ({LOOPS} times, now with {how}); next try in {LOOP_PAUSE:.0f} s")
            watcher.respawn = False  # those of its processes that are well go on
            asyncio.get_running_loop().call_later(LOOP_PAUSE, self._resume, watcher)
        else:
            self._say(f"{watcher.name} (process {process_pid}) ended with {how}; starting it again")
        return True

    def _resume(self, watcher: Watcher) -> None:
        if self._closing:
            return
        self._ends[watcher.name].times.clear()
        watcher.respawn = True
        if watcher.is_stopped():
            self._resuming = asyncio.ensure_future(self.start([watcher.name]))


def _kill_groups(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def _how(code: int | None) -> str:
    return f"signal {-code}" if code and code < 0 else f"exit code {code}"
