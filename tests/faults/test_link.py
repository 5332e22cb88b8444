"""The link against a real Valkey that is killed, stopped, cut off and blackholed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import redis.asyncio
import trustme
import uvloop

from deploy.server import free_port
from deploy.valkey import Valkey
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


def run_on(new_loop: Callable[[], asyncio.AbstractEventLoop], main: Coroutine[Any, Any, None]) -> None:
    """Run on a loop of its own, and let nothing pass that the loop or the garbage collector complains about."""
    complaints: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: complaints.append(context))
        runner.run(main)
    gc.collect()
    assert complaints == []


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Each of the loops a hub may run on."""
    return request.param


class Road:
    """The way to the shared server through a proxy, plain or with TLS."""

    def __init__(self, server: Valkey, authority: Path | None, tls: ssl.SSLContext | None) -> None:
        self.proxy = Proxy(server.port, tls)
        self._password = server.password
        self._authority = authority

    @contextlib.asynccontextmanager
    async def linked(self) -> AsyncIterator[Link]:
        """A link that goes this way."""
        await self.proxy.start()
        place = f":{self._password}@127.0.0.1:{self.proxy.port}/0"
        url = f"rediss://{place}?ssl_ca_certs={self._authority}" if self._authority else f"redis://{place}"
        try:
            async with linked(url) as link:
                yield link
        finally:
            await self.proxy.stop()


@pytest.fixture(params=["plain", "tls"])
def road(request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path) -> Road:
    """Valkey's wheel knows no TLS: the proxy has a certificate, made for this test."""
    if request.param == "plain":
        return Road(valkey, None, None)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    return Road(valkey, tmp_path / "ca.pem", tls)


async def test_a_subscription_is_acknowledged(link: Link, publisher: redis.Redis, channel: str) -> None:
    """Whatever is published after subscribe() has returned is heard, in order."""
    ear = Ear()
    await link.subscribe(channel, ear)
    for number in range(100):
        assert publisher.spublish(channel, b"%d" % number) == 1
    await until(lambda: len(ear.heard) == 100)
    assert ear.heard == [b"%d" % number for number in range(100)]
    assert ear.restorations == 0


async def test_a_channel_is_heard_from_its_acknowledgement_on(redis_url: str, channel: str) -> None:
    """And not while the link is broken, until it is acknowledged again."""
    port = urlsplit(redis_url).port or 0
    proxy = Proxy(port)
    await proxy.start()
    async with linked(redis_url.replace(f":{port}/", f":{proxy.port}/")) as link:
        ear = Ear()
        subscribing = asyncio.create_task(link.subscribe(channel, ear))
        await asyncio.sleep(0)
        assert not link.hears(channel)
        await subscribing
        assert link.hears(channel)
        proxy.cut()
        await until(lambda: not link.hears(channel))
        await until(lambda: link.hears(channel))
        assert ear.restorations == 1
        await link.unsubscribe(channel, ear)
        assert not link.hears(channel)
    await proxy.stop()


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
    [
        b"*3\r\n$10\r\nssubscribe\r\n$5\r\nother\r\n:1\r\n",
        b"*3\r\n$8\r\nsmessage\r\n*0\r\n$1\r\nx\r\n",
        b"-ERR no\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
)
def test_a_server_that_talks_nonsense_is_asked_again(
    nonsense: bytes, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Whatever the link hears, it goes on; and it does not hammer a server that refuses it each time."""
    refused: list[float] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(b"+OK\r\n" * data.count(b"CLIENT"))
                if b"SSUBSCRIBE" in data:
                    refused.append(time.monotonic())
                    writer.write(nonsense)
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with linked(f"redis://127.0.0.1:{port}") as link:
                asking = asyncio.create_task(link.subscribe("channel", Ear()))
                await until(lambda: len(refused) == 4)
                asking.cancel()

    run_on(new_loop, main())
    assert refused[3] - refused[0] > 0.3  # the pauses between grow: 0.05 + 0.1 + 0.2 s


@pytest.mark.parametrize("farewell", [b"+OK\r\n", b""], ids=["speaks", "hangs up"])
async def test_a_server_that_does_not_wait_to_be_asked_is_left(farewell: bytes) -> None:
    """Between the handshake and the first question nothing is due: whatever comes ends that connection."""
    accepted = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        introductions = 0
        while introductions < 2:  # CLIENT SETINFO LIB-NAME and LIB-VER
            introductions += (await reader.read(65536)).count(b"CLIENT")
        writer.write(b"+OK\r\n" * 2 + farewell)
        if farewell:
            await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with linked(f"redis://127.0.0.1:{port}"):
            await until(lambda: accepted == 3, timeout=5)  # not by its silence: that would take 6 s


def test_events_arrive_whole_and_in_order(
    road: Road, new_loop: Callable[[], asyncio.AbstractEventLoop], publisher: redis.Redis, channel: str
) -> None:
    """On either loop, plain and with TLS: small ones, large ones, and thousands at once."""
    payloads = [b"%d:" % number + bytes(number % 997) for number in range(5_000)] + [bytes(300 * 1024), b"end"]
    ear = Ear()

    async def main() -> None:
        async with road.linked() as link:
            await link.subscribe(channel, ear)
            with publisher.pipeline(transaction=False) as pipeline:
                for payload in payloads:
                    pipeline.spublish(channel, payload)
                pipeline.execute()
            await until(lambda: len(ear.heard) == len(payloads))

    run_on(new_loop, main())
    assert ear.heard == payloads


def test_every_kind_of_break_is_healed(
    road: Road,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    publisher: redis.Redis,
    channel: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On either loop, plain and with TLS: the server hangs up, the connection is reset, or says nothing any more."""
    monkeypatch.setattr("hub.link.PING_INTERVAL", 0.3)
    monkeypatch.setattr("hub.link.SILENCE_LIMIT", 0.9)
    ear = Ear()

    async def main() -> None:
        async with road.linked() as link:
            await link.subscribe(channel, ear)
            for number, fault in enumerate((hang_up, road.proxy.cut, road.proxy.blackhole)):
                fault()
                await until(lambda: not link.connected.is_set())
                road.proxy.heal()
                await until(lambda number=number: ear.restorations == number + 1)
                publisher.spublish(channel, b"%d" % number)
                await until(lambda number=number: len(ear.heard) == number + 1)

    def hang_up() -> None:
        publisher.client_kill_filter(_type="pubsub")

    run_on(new_loop, main())
    assert ear.heard == [b"0", b"1", b"2"]


def test_a_hub_that_stood_still_blames_nobody(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    redis_url: str,
    channel: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was not the server that was silent: the connection stays, and nobody is told of a gap."""
    monkeypatch.setattr("hub.link.PING_INTERVAL", 0.1)
    monkeypatch.setattr("hub.link.SILENCE_LIMIT", 0.3)

    async def main() -> None:
        async with linked(redis_url) as link:
            await link.subscribe(channel, ear := Ear())
            for _ in range(3):
                await asyncio.sleep(0.05)
                time.sleep(0.5)  # noqa: ASYNC251  # the fault: whatever the hub does there, it holds the loop
            await asyncio.sleep(0.2)
            assert (link.connected.is_set(), ear.restorations) == (True, 0)

    run_on(new_loop, main())


async def test_ten_thousand_subscriptions_outlive_a_break(link: Link, publisher: redis.Redis, channel: str) -> None:
    """They are asked for again in one go, and each listener is told."""
    ears = [Ear() for _ in range(10_000)]
    await asyncio.gather(*(link.subscribe(f"{channel}:{number}", ear) for number, ear in enumerate(ears)))
    publisher.client_kill_filter(_type="pubsub")
    async with asyncio.timeout(5):
        await until(lambda: all(ear.restorations == 1 for ear in ears))


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
