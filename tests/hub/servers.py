"""Hubs on every kind of server and event loop there is, each in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import trustme
import uvloop

from tests.hub.running import Hub, serving


class Kind(NamedTuple):
    """A server: its loop, whether it speaks TLS, and uvicorn's options that are not those of `python -m hub`."""

    loop: Callable[[], asyncio.AbstractEventLoop]
    tls: bool = False
    options: tuple[tuple[str, Any], ...] = ()


OURS = {
    "uvloop": Kind(uvloop.new_event_loop),
    "asyncio": Kind(asyncio.SelectorEventLoop),
    "uvloop-tls": Kind(uvloop.new_event_loop, tls=True),
    "asyncio-tls": Kind(asyncio.SelectorEventLoop, tls=True),
}
"""Our own protocol."""
OTHERS = {
    "sansio": Kind(uvloop.new_event_loop, options=(("ws", "websockets-sansio"),)),
    "websockets": Kind(asyncio.SelectorEventLoop, options=(("ws", "websockets"),)),
}
"""Others, which know nothing of ours."""


class Served:
    """A hub, and the loop it runs on."""

    hub: Hub

    def __init__(self, kind: Kind, **settings: Any) -> None:
        self._kind = kind
        self._settings = settings
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve)

    def start(self) -> None:
        """Return when it serves."""
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Return when it has ended."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def run(self, work: Coroutine[Any, Any, None], timeout: float = 60) -> None:
        """Run on its loop."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def _serve(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._kind.loop) as runner:
                runner.run(self._main())
        except BaseException as error:  # for who waits for it
            self._failure = error
        finally:
            self._started.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        with contextlib.ExitStack() as stack:
            options, trust = dict(self._kind.options), None
            if self._kind.tls:
                authority = trustme.CA()
                certificate = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
                options["ssl_certfile"] = str(stack.enter_context(certificate.tempfile()))
                trust = ssl.create_default_context()
                authority.configure_trust(trust)
            async with serving(options, trust, **self._settings) as self.hub:
                self._started.set()
                await self._end.wait()


@contextlib.contextmanager
def served(kind: Kind, redis_url: str, database_url: str, storage: Path, **settings: Any) -> Iterator[Served]:
    """A hub of this kind on these servers."""
    server = Served(kind, HEADWAY_REDIS_URL=redis_url, DATABASE_URL=database_url, HEADWAY_STORAGE=storage, **settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def on_server(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on the loop of its fixture `server`."""

    @functools.wraps(test)
    def run(server: Served, **fixtures: Any) -> None:
        server.run(test(server, **fixtures))

    return run
