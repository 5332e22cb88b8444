"""`make up`: the whole product on this machine, in the foreground, until Ctrl-C.

    python -m deploy.up --port 8000 --workers 2 --hubs 1 --state .state

Exit code 0 after Ctrl-C, SIGTERM or a closed terminal; 1, with one sentence on stderr, when something is in the way.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx

from deploy import checks, programs
from deploy.manager import Manager
from deploy.server import Server, ServerError
from deploy.stack import Stack, StackLock, announce, control_socket, withdraw

START_TIMEOUT = 60.0  # seconds; the recovery of a database that was killed is in it
DEFAULT_STATE = programs.ROOT / ".state"


class InterruptedStartError(Exception):
    """Ctrl-C or SIGTERM came before everything was ready."""


class Up:
    """One run of the stack."""

    def __init__(self, options: argparse.Namespace, env: dict[str, str], servers: list[Server]) -> None:
        """Nothing starts yet."""
        self.options = options
        self.env = env
        self.servers = servers
        self.url = f"http://127.0.0.1:{options.port}"
        self.interrupted = asyncio.Event()
        self.interrupts = 0

    async def run(self) -> None:
        """Start everything, wait for the end, stop everything.

        Raises:
            ServerError: something did not start; what had started is stopped again.
        """
        with control_socket(self.options.state) as endpoint:
            self.manager = Manager(endpoint, self.options.port, say)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, self._interrupt)
            try:
                with suppress(InterruptedStartError):
                    await self._start()
                    shared = {name: self.env[name] for name in programs.SHARED}
                    announce(self.options.state, Stack(self.url, shared, os.getpid(), endpoint))
                    say(self._where_to_look())
                    await self.interrupted.wait()
            finally:
                withdraw(self.options.state)
                await self._stop()

    async def _start(self) -> None:
        try:
            await self.manager.open()
        except OSError as error:
            raise ServerError(f"cannot listen on port {self.options.port}: {error.strerror}") from error
        own = [programs.of_server(server, self.options.state, self.env) for server in self.servers]
        for program in [*own, *programs.of_headway(self.env, self.options.hubs, self.options.workers)]:
            self.manager.add(program)
        await self.manager.start(program.name for program in own)
        for server, program in zip(self.servers, own, strict=True):
            await self._until(server.answers, f"{server.name} does not answer: see {program.log}")
        await self.manager.start(["migrate"])
        await self._until(lambda: self.manager.finished("migrate"), "the migrations do not end")
        await self.manager.start(programs.SERVING)
        await self._until_ready()
        self.manager.settled = True

    async def _until_ready(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=2, trust_env=False) as client:

            async def ready() -> bool:
                with suppress(httpx.HTTPError):
                    # A task is known to the hub once a worker has announced it: before, `make demo` would be refused.
                    return (await client.get("/readyz")).status_code == httpx.codes.OK and (
                        self.options.workers == 0 or bool((await client.get("/catalogue")).json()["tasks"])
                    )
                return False

            await self._until(ready, f"the hub does not get ready: ask {self.url}/readyz")

    async def _until(self, condition: Callable[[], bool | Awaitable[bool]], failure: str) -> None:
        """Wait for a condition for as long as nobody gives up."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            if self.interrupted.is_set():
                raise InterruptedStartError
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            if self.manager.failure():
                raise ServerError(self.manager.failure())
            if time.monotonic() > deadline:
                raise ServerError(f"{failure} (waited {START_TIMEOUT:.0f} s)")
            await asyncio.sleep(0.05)

    async def _stop(self) -> None:
        say("stopping …")
        self.manager.refuse()
        await self.manager.stop([*programs.SERVING, "migrate"])
        await self.manager.close()
        say(f"stopped; the state is in {self.options.state}")

    def _interrupt(self) -> None:
        self.interrupts += 1
        self.interrupted.set()
        if self.interrupts > 1:
            # Impatience costs the running tasks their orderly end, never the data: the servers still stop in order.
            self.manager.kill(programs.SERVING)

    def _where_to_look(self) -> str:
        options = self.options
        which = "" if options.state == DEFAULT_STATE else f" STATE={shlex.quote(str(options.state))}"
        lines = {
            self.url: f"the page (hubs: {options.hubs}, workers: {options.workers})",
            f"make demo{which}": "one real job and its bar, from another terminal",
            f"make scale HUBS=2 WORKERS=4{which}": "change the running stack",
            f"make flower{which}": "Flower, looking at this broker",
            str(options.state): "state, passwords, and logs/ of the servers",
            "Ctrl-C": "stop everything; the state stays",
        }
        width = min(60, max(map(len, lines)))
        return "\n".join(["", "Headway is up.", "", *(f"  {what:<{width}}  {why}" for what, why in lines.items()), ""])


def say(line: str) -> None:
    """Print at once: stdout may be a file that somebody follows, or a terminal that is gone."""
    with suppress(OSError):
        print(line, flush=True)  # noqa: T201  # a command for people


def main() -> None:
    """See the module docstring."""
    options = parse(sys.argv[1:])
    os.umask(0o077)  # everything in the state folder is its owner's alone
    try:
        named = checks.environment()
        lock = StackLock(options.state)
        try:
            checks.port(options.port)
            checks.named_servers(named)
        except BaseException:
            lock.undo()
            raise
        servers = programs.servers(options.state, named)
        for server in servers:
            server.prepare()
        (options.state / "logs").mkdir(exist_ok=True)
        asyncio.run(Up(options, programs.environment(options.state, named, servers), servers).run())
    except ServerError as error:
        sys.exit(f"make up: {error}")
    except KeyboardInterrupt:
        sys.exit(130)  # before anything ran
    else:
        lock.release()


def parse(argv: list[str]) -> argparse.Namespace:
    """The options of the command line; ends with exit code 1 and one sentence when they make no sense."""
    parser = argparse.ArgumentParser(prog="make up")
    parser.add_argument("--port", default="8000")
    parser.add_argument("--hubs", default="1")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--state", default=str(DEFAULT_STATE))
    options = parser.parse_args(argv)
    for name, low, high in (("port", 1, 65535), ("hubs", 1, 64), ("workers", 0, 64)):
        text = getattr(options, name)
        if not text.isdecimal() or not low <= int(text) <= high:
            sys.exit(f"make up: {name.upper()} is a number from {low} to {high}, not {text!r}")
        setattr(options, name, int(text))
    options.state = Path(options.state).expanduser().absolute()
    return options


if __name__ == "__main__":
    main()
