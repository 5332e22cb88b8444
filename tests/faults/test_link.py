"""The link against a real Valkey that is killed, stopped, cut off and blackholed."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
import redis
import redis.asyncio

from deploy.server import free_port
from hub.link import Link
from tests.conditions import until
from tests.conftest import ValkeyFactory
from tests.faults.proxies import Proxy


class Ear:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.restorations = 0

    def received(self, payload: bytes) -> None:
        self.heard.append(payload)

    def restored(self) -> None:
        self.restorations += 1


@contextlib.asynccontextmanager
async def linked(url: str) -> AsyncIterator[Link]:
    """A running link."""
    client = redis.asyncio.Redis.from_url(url, protocol=2, socket_timeout=3, socket_connect_timeout=3)
    link = Link(client)
    running = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await client.aclose()


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[Link]:
    """A link to the shared server."""
    async with linked(redis_url) as link:
        yield link


@pytest.fixture
def publisher(redis_url: str) -> Iterator[redis.Redis]:
    """Another client of the shared server."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def channel() -> str:
    """A channel of the test's own."""
    return f"test:{uuid.uuid4().hex}"


async def test_a_subscription_is_acknowledged(link: Link, publisher: redis.Redis, channel: str) -> None:
    """Whatever is published after subscribe() has returned is heard, in order."""
    ear = Ear()
    await link.subscribe(channel, ear)
    for number in range(100):
        assert publisher.spublish(channel, b"%d" % number) == 1
    await until(lambda: len(ear.heard) == 100)
    assert ear.heard == [b"%d" % number for number in range(100)]
    assert ear.restorations == 0


async def test_nothing_is_heard_after_unsubscribing(link: Link, publisher: redis.Redis, channel: str) -> None:
    """The server is told, so that it sends nothing in vain."""
    await link.subscribe(channel, ear := Ear())
    await link.unsubscribe(channel, ear)
    await until(lambda: publisher.spublish(channel, b"late") == 0)
    assert ear.heard in ([], [b"late"])


async def test_a_channel_taken_over_stays(link: Link, publisher: redis.Redis, channel: str) -> None:
    """The listener that was replaced unsubscribes in vain."""
    first, second = Ear(), Ear()
    await link.subscribe(channel, first)
    await link.subscribe(channel, second)
    await link.unsubscribe(channel, first)
    assert publisher.spublish(channel, b"x") == 1
    await until(lambda: second.heard)
    assert first.heard == []


@pytest.mark.parametrize(
    "nonsense",
    [b"*3\r\n$10\r\nssubscribe\r\n$5\r\nother\r\n:1\r\n", b"*3\r\n$8\r\nsmessage\r\n*0\r\n$1\r\nx\r\n", b"-ERR no\r\n"],
)
async def test_a_server_that_talks_nonsense_is_asked_again(nonsense: bytes) -> None:
    """Whatever the link hears, it goes on; and it does not hammer a server that refuses it each time."""
    refused: list[float] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(b"+OK\r\n" * data.count(b"CLIENT"))
            if b"SSUBSCRIBE" in data:
                refused.append(time.monotonic())
                writer.write(nonsense)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with linked(f"redis://127.0.0.1:{port}") as link:
            asking = asyncio.create_task(link.subscribe("channel", Ear()))
            await until(lambda: len(refused) == 4)
            asking.cancel()
    assert refused[3] - refused[0] > 0.3  # the pauses between grow: 0.05 + 0.1 + 0.2 s


async def test_subscribing_again_at_once_is_acknowledged_anew(link: Link, publisher: redis.Redis, channel: str) -> None:
    """Commands and answers of one channel are matched in their order, whoever gave up waiting in between."""
    for _ in range(50):
        gone = asyncio.create_task(link.subscribe(channel, ear := Ear()))
        await asyncio.sleep(0)
        gone.cancel()
        await link.unsubscribe(channel, ear)
        await link.subscribe(channel, ear := Ear())
        assert publisher.spublish(channel, b"x") == 1
        await link.unsubscribe(channel, ear)


async def test_a_thousand_subscriptions_at_once(link: Link, publisher: redis.Redis, channel: str) -> None:
    """They are sent together, and each is acknowledged."""
    ears = {f"{channel}:{number}": Ear() for number in range(1_000)}
    async with asyncio.timeout(5):
        await asyncio.gather(*(link.subscribe(name, ear) for name, ear in ears.items()))
    for name in ears:
        publisher.spublish(name, name)
    await until(lambda: all(ear.heard == [name.encode()] for name, ear in ears.items()))


async def test_a_killed_connection_is_replaced(link: Link, publisher: redis.Redis, channel: str) -> None:
    """CLIENT KILL, as when the output buffer overflows: each listener hears of the gap once, then events again."""
    ears = [Ear() for _ in range(3)]
    for number, ear in enumerate(ears):
        await link.subscribe(f"{channel}:{number}", ear)
    publisher.client_kill_filter(_type="pubsub")
    await until(lambda: all(ear.restorations == 1 for ear in ears))
    for number in range(len(ears)):
        publisher.spublish(f"{channel}:{number}", b"after")
    await until(lambda: all(ear.heard == [b"after"] for ear in ears))


async def test_a_failing_listener_silences_nobody(
    link: Link, publisher: redis.Redis, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is logged with a traceback; the next message is heard by whoever listens."""

    class Broken(Ear):
        def received(self, payload: bytes) -> None:
            raise RuntimeError(payload)

    await link.subscribe(channel, Broken())
    await link.subscribe(f"{channel}:b", ear := Ear())
    publisher.spublish(channel, b"x")
    publisher.spublish(f"{channel}:b", b"y")
    await until(lambda: ear.heard)
    assert "a listener failed" in caplog.text


async def test_a_server_killed_and_started_again(valkey_factory: ValkeyFactory, channel: str) -> None:
    """Every listener is told that it may have missed something, after its subscription holds again."""
    server = valkey_factory()
    async with linked(server.url) as link:
        ears = [Ear() for _ in range(20)]
        await asyncio.gather(*(link.subscribe(f"{channel}:{number}", ear) for number, ear in enumerate(ears)))
        server.kill()
        await until(lambda: not link.connected.is_set())
        await asyncio.to_thread(server.start)
        await until(lambda: all(ear.restorations == 1 for ear in ears))
        with redis.Redis.from_url(server.url) as client:
            assert all(client.spublish(f"{channel}:{number}", b"x") == 1 for number in range(20))
        await until(lambda: all(ear.heard == [b"x"] for ear in ears))


async def test_subscribing_while_redis_is_away_completes_when_it_is_back(
    valkey_factory: ValkeyFactory, channel: str
) -> None:
    """One who waits is acknowledged; one who gave up meanwhile leaves nothing behind that would answer in its place."""
    server = valkey_factory()
    async with linked(server.url) as link:
        await link.connected.wait()
        server.kill()
        await until(lambda: not link.connected.is_set())
        gone = asyncio.create_task(link.subscribe(channel, old := Ear()))
        waiting = asyncio.create_task(link.subscribe(f"{channel}:b", patient := Ear()))
        await asyncio.sleep(0)
        await link.unsubscribe(channel, old)
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(10):
            await waiting
            await link.subscribe(channel, ear := Ear())
        assert gone.cancelled() or gone.done()
        with redis.Redis.from_url(server.url) as client:
            assert client.spublish(channel, b"x") == client.spublish(f"{channel}:b", b"y") == 1
        await until(lambda: ear.heard == [b"x"] and patient.heard == [b"y"])
        assert (patient.restorations, ear.restorations) == (0, 0), "before its first acknowledgement nobody misses"


async def test_a_half_open_connection_is_noticed(valkey_factory: ValkeyFactory, channel: str) -> None:
    """A network that swallows everything and says nothing: within 5 s the link knows, and comes back by itself."""
    server = valkey_factory()
    proxy = Proxy(server.port)
    await proxy.start()
    try:
        async with linked(f"redis://:{server.password}@127.0.0.1:{proxy.port}/0") as link:
            await link.subscribe(channel, ear := Ear())
            proxy.blackhole()
            began = time.monotonic()
            await until(lambda: not link.connected.is_set(), timeout=6)
            assert time.monotonic() - began < 5
            proxy.heal()
            await until(lambda: ear.restorations == 1)
    finally:
        await proxy.stop()


async def test_a_server_that_stands_still_is_noticed(valkey_factory: ValkeyFactory, channel: str) -> None:
    """SIGSTOP: connections are accepted by the kernel and nothing answers; after SIGCONT all is well."""
    server = valkey_factory()
    async with linked(server.url) as link:
        await link.subscribe(channel, ear := Ear())
        server.pause()
        try:
            await until(lambda: not link.connected.is_set(), timeout=6)
        finally:
            server.resume()
        await until(lambda: ear.restorations == 1)


async def test_no_server_at_all_is_no_end(channel: str) -> None:
    """The link keeps trying, with pauses, and ends at once when it is cancelled."""
    async with linked(f"redis://127.0.0.1:{free_port()}/0") as link:
        waiting = asyncio.create_task(link.subscribe(channel, Ear()))
        done, _ = await asyncio.wait({waiting}, timeout=0.5)
        assert not done
        waiting.cancel()
