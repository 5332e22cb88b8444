"""A TCP proxy in front of a server, to cut or to blackhole: the faults of a network between two healthy processes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable


class Proxy:
    """Forwards to a port on this machine, until told otherwise."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        """With `tls` it speaks TLS to whoever connects, and plainly to the server."""
        self.port = 0
        self._tls = tls
        self._target = port
        self._flows = asyncio.Event()
        self._flows.set()
        self.late: Callable[[bytes], float] = lambda _: 0.0
        """Seconds for which some bytes of the server, as they were read, are held back with all that follow them."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut everything and listen no longer."""
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def blackhole(self) -> None:
        """Swallow what is open, and what is opened until `heal()`: no byte passes any more, and nobody is told."""
        self._flows.clear()

    def heal(self) -> None:
        """From now on new connections flow; those that were swallowed stay so."""
        self._flows = asyncio.Event()
        self._flows.set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        flows = self._flows
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(forth)
            try:
                await asyncio.gather(_pump(reader, forth, flows), _pump(back, writer, flows, self))
            finally:
                self._writers -= {writer, forth}
                forth.transport.abort()
        writer.transport.abort()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event, proxy: Proxy | None = None
) -> None:
    while data := await reader.read(65536):
        await flows.wait()
        if proxy is not None and (seconds := proxy.late(data)):
            await asyncio.sleep(seconds)
        writer.write(data)
        await writer.drain()
    writer.close()
