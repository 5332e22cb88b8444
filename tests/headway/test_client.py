"""The client against a real WebSocket server that misbehaves by script."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from headway import client
from headway.client import Break, TaskFailed, TaskRevoked, wait, watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from headway.events import TaskEvent

    Scene = Callable[[ServerConnection], Awaitable[None]]

EPOCH = 1763650000000


def message(seq: int, prev: int, kind: str = "progress", state: str = "PROGRESS", **more: Any) -> str:
    """An event as it stands on the wire."""
    fields = dict.fromkeys(("total", "unit", "stage", "percent", "message", "rate", "eta"))
    place = {"cursor": f"{EPOCH}-{seq}", "seq": seq, "prev": prev, "attempt": 1, "state": state, "current": seq}
    return json.dumps({"v": 1, "type": kind, "task_id": "t", **place, "stalled": False, "ts": 0.0, **fields, **more})


FIRST = message(1, 1, "snapshot")
LAST = message(3, 2, "state", "SUCCESS", result={"rows": 7})


def scene(*messages: str, close: int | None = None, reason: str = "") -> Scene:
    """Send these, then close with the code; None stands for cutting the connection off without a word."""

    async def play(socket: ServerConnection) -> None:
        for text in messages:
            await socket.send(text)
        if close is None:
            socket.transport.abort()
        else:
            await socket.close(close, reason)

    return play


END = scene(FIRST, message(2, 1, "log"), LAST, close=1000)


class Hub:
    """Plays one scene for each connection, the last one again and again; `asked` are the requests it got."""

    def __init__(self, *scenes: Scene) -> None:
        self.scenes = list(scenes)
        self.asked: list[tuple[str, str | None]] = []
        self.url = ""

    async def handle(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.asked.append((socket.request.path, socket.request.headers.get("Authorization")))
        play = self.scenes.pop(0) if len(self.scenes) > 1 else self.scenes[0]
        await play(socket)


@contextlib.asynccontextmanager
async def hub(*scenes: Scene, **options: Any) -> AsyncIterator[Hub]:
    """A running scripted hub."""
    playing = Hub(*scenes)
    async with serve(playing.handle, "127.0.0.1", 0, subprotocols=["headway.v1"], **options) as server:
        playing.url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        yield playing


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_WINDOW", 0.001)


async def collect(url: str, **options: Any) -> list[TaskEvent]:
    """All events to the end."""
    async with asyncio.timeout(10):
        return [event async for event in watch(url, "t", **options)]


async def test_events_come_until_the_terminal_one() -> None:
    """A connection that goes well is one connection."""
    async with hub(END) as playing:
        assert [e.seq for e in await collect(playing.url)] == [1, 2, 3]
    assert playing.asked == [("/ws/task/t", None)]


async def test_it_does_not_wait_for_the_close() -> None:
    """The terminal event is the end, whether or not the hub closes after it."""

    async def stay(socket: ServerConnection) -> None:
        await socket.send(message(3, 3, "snapshot", "SUCCESS"))
        await socket.wait_closed()

    async with hub(stay) as playing:
        assert [e.seq for e in await collect(playing.url)] == [3]


async def test_a_token_travels_in_a_header() -> None:
    """Not in the address, which ends up in logs."""
    async with hub(END) as playing:
        await collect(playing.url, token="secret")
    assert playing.asked == [("/ws/task/t", "Bearer secret")]


async def test_a_hub_on_this_machine_is_not_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """http_proxy of the environment is for the world outside."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    async with hub(END) as playing:
        assert len(await collect(playing.url)) == 3


@pytest.mark.parametrize("code", [None, 1000, 1001, 1011, 1012, 1013, 4408, 4429])
async def test_a_break_is_mended_with_the_cursor(code: int | None) -> None:
    """Every end that is not final leads to a connection that goes on where the last one stood."""
    rest = scene(message(3, 3, "snapshot", "SUCCESS", recovered=True), message(3, 2, "state", "SUCCESS"), close=1000)
    breaks: list[Break] = []
    async with hub(scene(FIRST, message(2, 1, "log"), close=code), rest) as playing:
        events = await collect(playing.url, on_break=breaks.append)
    assert [(e.type, e.seq) for e in events] == [("snapshot", 1), ("log", 2), ("snapshot", 3), ("state", 3)]
    assert playing.asked[1][0] == f"/ws/task/t?cursor={EPOCH}-2"
    assert len(breaks) == 1


@pytest.mark.parametrize(
    ("code", "error"),
    [(4400, "MalformedRequest"), (4401, "Unauthorized"), (4403, "Forbidden"), (4404, "UnknownTask")],
)
async def test_a_refusal_is_final(code: int, error: str) -> None:
    """These codes say that coming again is of no use: one connection, and an exception with the hub's reason."""
    async with hub(scene(close=code, reason="because")) as playing:
        with pytest.raises(getattr(client, error), match="because"):
            await collect(playing.url)
    assert len(playing.asked) == 1


async def test_a_refused_handshake_is_final() -> None:
    """403 in place of the upgrade is what a close before accept looks like."""
    async with hub(END, process_request=lambda c, _: c.respond(HTTPStatus.FORBIDDEN, "no\n")) as playing:
        with pytest.raises(client.Forbidden):
            await collect(playing.url)


async def test_a_missed_event_is_fetched() -> None:
    """prev gives the gap away; the reconnect brings what was missed."""
    torn = scene(FIRST, message(4, 2), close=1000)
    mended = scene(message(4, 2, "snapshot", recovered=True), message(2, 1, "log"), message(5, 2, "state", "SUCCESS"))
    async with hub(torn, mended) as playing:
        events = await collect(playing.url)
    assert [(e.type, e.seq) for e in events if e.type != "snapshot"] == [("log", 2), ("state", 5)]
    assert playing.asked[1][0].endswith(f"?cursor={EPOCH}-1")


async def test_duplicates_are_dropped() -> None:
    """What came twice is delivered once."""
    twice = message(2, 1, "log")
    async with hub(scene(FIRST, twice, twice, LAST, LAST, close=1000)) as playing:
        assert [e.seq for e in await collect(playing.url)] == [1, 2, 3]


async def test_a_half_open_connection_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other end has vanished without a FIN: no answer to a ping, so a new connection."""
    monkeypatch.setattr(client, "PING_INTERVAL", 0.1)

    async def freeze(socket: ServerConnection) -> None:
        await socket.send(FIRST)
        socket.transport.pause_reading()  # type: ignore[attr-defined]
        await gone.wait()
        socket.transport.abort()

    gone = asyncio.Event()
    async with hub(freeze, END, ping_interval=None) as playing:
        assert (await collect(playing.url))[-1].seq == 3
        gone.set()
    assert len(playing.asked) == 2


async def test_a_hub_that_is_not_there_yet_is_waited_for() -> None:
    """A refused connection is a break like any other."""
    async with hub(END) as playing:
        url = playing.url
    breaks: list[Break] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await collect(url, on_break=breaks.append)
    assert breaks


async def test_an_overloaded_hub_gets_more_time() -> None:
    """1013 and 4429 skip the short first retries."""
    calm, pressed = client._Backoff(), client._Backoff()  # noqa: SLF001 - jitter hides the window from outside
    first = [calm.delay(overloaded=False), pressed.delay(overloaded=True)]
    assert first[0] <= 0.001
    assert first[1] <= 0.001 * 2**client.OVERLOADED_ATTEMPT
    assert max(client._Backoff().delay(overloaded=True) for _ in range(99)) > 0.001  # noqa: SLF001


async def test_leaving_early_closes_the_connection() -> None:
    """A watcher that has seen enough leaves nothing open behind it."""
    closed = asyncio.Event()

    async def stay(socket: ServerConnection) -> None:
        await socket.send(FIRST)
        await socket.wait_closed()
        closed.set()

    async with hub(stay) as playing:
        async with contextlib.aclosing(watch(playing.url, "t")) as events:
            await anext(events)
        async with asyncio.timeout(5):
            await closed.wait()


async def test_wait_returns_the_result() -> None:
    """The result of the terminal event."""
    async with hub(END) as playing:
        assert await wait(playing.url, "t") == {"rows": 7}


async def test_wait_raises_the_failure() -> None:
    """TaskFailed carries the error as the hub tells it."""
    error = {"type": "ValueError", "message": "line 3", "fingerprint": "f"}
    async with hub(scene(message(2, 2, "snapshot", "FAILURE", error=error), close=1000)) as playing:
        with pytest.raises(TaskFailed, match="ValueError: line 3") as caught:
            await wait(playing.url, "t")
    assert caught.value.error is not None
    assert caught.value.error.fingerprint == "f"


async def test_wait_raises_when_revoked() -> None:
    """TaskRevoked says why."""
    async with hub(scene(message(2, 2, "snapshot", "REVOKED", reason="cancelled"), close=1000)) as playing:
        with pytest.raises(TaskRevoked, match="cancelled"):
            await wait(playing.url, "t")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://hub", "http://"])
async def test_an_address_that_is_none_is_refused(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match="not the address of a hub"):
        await collect(url)


def test_the_client_needs_only_websockets() -> None:
    """Another app that watches must not have to install Celery, or what the hub is made of."""
    code = "import sys, headway.client; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "websockets" in loaded
    assert not loaded & {"celery", "kombu", "starlette", "uvicorn", "sqlmodel", "pydantic", "httpx", "jinja2", "rich"}
