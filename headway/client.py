"""Watch tasks from another program: an asyncio client for `WS /ws/task/{id}`.

    async for event in watch("http://127.0.0.1:8000", task_id):
        print(event.percent, event.message)

    result = await wait("http://127.0.0.1:8000", task_id)

It connects again by itself and goes on where it stood; DESIGN.md's table of close codes says when it must not. This
module is the I/O around `headway.follow`; it needs the extra `client`.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from msgspec import UNSET
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from headway.events import Cursor, Failure, State, TaskEvent, decode
from headway.follow import Follower, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

SUBPROTOCOL = "headway.v1"

OPEN_TIMEOUT = 10.0
"""Seconds for the connection and its handshake."""
PING_INTERVAL = 10.0
"""Seconds between pings. A connection that answers none of them for as long again is half-open, and given up."""
FIRST_WINDOW = 0.5
"""Seconds. A retry waits for a random time within a window, which doubles with every attempt that brings nothing."""
LONGEST_WINDOW = 8.0
"""Seconds: a hub that restarts is back within a few, and so must its watchers be."""
OVERLOADED_WINDOW = 30.0
OVERLOADED_ATTEMPT = 3
"""A hub that says it is overloaded is asked again as if so many attempts had failed already: within 4 s, then 8, …"""
HEALTHY_AFTER = 10.0
"""Seconds. A connection that held so long was a good one: the next break starts with the shortest window again."""


class WatchRefused(Exception):
    """The hub will not let this task be watched, and asking again would not change that."""


class MalformedRequest(WatchRefused):
    """4400: the hub could not make sense of what was sent: a malformed task id or cursor."""


class Unauthorized(WatchRefused):
    """4401: no valid token, or it has expired. Come again with a fresh one, and the cursor."""


class Forbidden(WatchRefused):
    """4403: the token is valid, but not for this task."""


class UnknownTask(WatchRefused):
    """4404: there is no such task."""


class TaskFailed(Exception):
    """The task ended in FAILURE. `error` says why (None if the hub no longer knows)."""

    def __init__(self, error: Failure | None) -> None:
        super().__init__(f"{error.type}: {error.message}" if error else "the task failed")
        self.error = error


class TaskRevoked(Exception):
    """The task ended in REVOKED: somebody cancelled it, or it expired in the queue."""


class Break(NamedTuple):
    """A connection has ended before the task did: why, and in how many seconds the next one will be tried."""

    reason: str
    delay: float


_REFUSALS: dict[int, type[WatchRefused]] = {
    4400: MalformedRequest,
    4401: Unauthorized,
    4403: Forbidden,
    4404: UnknownTask,
    # The same answers given before the handshake, by a proxy in front of the hub for instance.
    400: MalformedRequest,
    401: Unauthorized,
    403: Forbidden,
    404: UnknownTask,
}
_OVERLOADED = frozenset({1013, 4429, 429, 503})


class _Backoff:
    """Exponential backoff with full jitter: a thousand clients of one restarted hub must not come back as one."""

    def __init__(self) -> None:
        self._attempt = 0

    def reset(self) -> None:
        self._attempt = 0

    def delay(self, *, overloaded: bool) -> float:
        if overloaded:
            self._attempt = max(self._attempt, OVERLOADED_ATTEMPT)
        longest = OVERLOADED_WINDOW if overloaded else LONGEST_WINDOW
        window = min(longest, FIRST_WINDOW * 2.0**self._attempt)
        self._attempt = min(self._attempt + 1, 16)
        return random.uniform(0, window)  # noqa: S311 - spreads load, guards nothing


class _Lost(Exception):
    """A connection ended in a way that another one may mend."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.overloaded = code in _OVERLOADED


async def watch(
    url: str,
    task_id: str,
    cursor: str | None = None,
    token: str | None = None,
    *,
    on_break: Callable[[Break], None] | None = None,
) -> AsyncGenerator[TaskEvent, None]:
    """Follow a task until it has ended, over as many connections as it takes; the last event is the terminal one.

    `url` is the hub's (http, https, ws or wss); `cursor` is where an earlier watcher stood, to get the `state` and
    `log` events since then; `on_break` is told of each break. Every connection starts with a snapshot, so snapshots
    come again after a break, and what was missed comes after them, with a lower `seq`.

    There is no overall time limit: put it into `asyncio.timeout()`. Raises `WatchRefused` (its subclasses say why), and
    ValueError for a malformed url or cursor or when the other end speaks another protocol.
    """
    follower = Follower(Cursor.parse(cursor) if cursor is not None else None)
    backoff = _Backoff()
    endpoint = _endpoint(url, task_id)
    while True:
        try:
            async with aclosing(_one_connection(endpoint, token, follower, backoff)) as events:
                async for event in events:
                    yield event
        except _Lost as lost:
            delay = backoff.delay(overloaded=lost.overloaded)
            if on_break is not None:
                on_break(Break(str(lost), delay))
            await asyncio.sleep(delay)
        else:
            return


async def wait(url: str, task_id: str, token: str | None = None) -> Any:
    """Wait for a task and return its result. Raises `TaskFailed`, `TaskRevoked`, and what `watch` raises."""
    end: TaskEvent | None = None
    async for event in watch(url, task_id, token=token):
        if event.type != "log" and (end is None or event.seq >= end.seq):
            end = event
    if end is None or end.state is State.REVOKED:
        raise TaskRevoked(end.reason if end and end.reason is not UNSET else "the task was revoked")
    if end.state is State.FAILURE:
        raise TaskFailed(end.error if end.error is not UNSET else None)
    return None if end.result is UNSET else end.result


async def _one_connection(
    endpoint: str, token: str | None, follower: Follower, backoff: _Backoff
) -> AsyncGenerator[TaskEvent, None]:
    """Events from one connection. Ends when the task has; `_Lost` or `WatchRefused` when the connection ends first."""
    loop = asyncio.get_running_loop()
    opened = loop.time()
    try:
        async with _connect(endpoint, token, follower.cursor) as socket:
            while not follower.finished:
                event = decode(await socket.recv())
                verdict = follower.feed(event)
                if verdict is Verdict.GAP:
                    raise _Lost(f"an event before {event.seq} is missing")
                if verdict is Verdict.DELIVER:
                    if event.type != "snapshot":
                        backoff.reset()
                    yield event
    except ConnectionClosed as closed:
        if loop.time() - opened > HEALTHY_AFTER:
            backoff.reset()
        raise _after_close(closed) from closed
    except InvalidStatus as refused:
        raise _after_refusal(refused) from refused
    except (OSError, InvalidHandshake) as failure:
        raise _Lost(str(failure) or type(failure).__name__) from failure


def _connect(endpoint: str, token: str | None, cursor: Cursor | None) -> connect:
    on_this_machine = urlsplit(endpoint).hostname in ("localhost", "127.0.0.1", "::1")
    return connect(
        endpoint + (f"?{urlencode({'cursor': str(cursor)})}" if cursor is not None else ""),
        subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]  # a NewType of str, and nothing else
        # In a header and not in the address: addresses end up in logs.
        additional_headers={"Authorization": f"Bearer {token}"} if token is not None else None,
        # A proxy named by the environment has no way back to this machine.
        proxy=None if on_this_machine else True,
        open_timeout=OPEN_TIMEOUT,
        ping_interval=PING_INTERVAL,
        ping_timeout=PING_INTERVAL,
        close_timeout=1.0,  # the terminal event is here; nobody waits for a polite goodbye
        max_size=2**20,  # bytes; an event's largest part, an inlined result, is at most 64 KiB
    )


def _after_close(closed: ConnectionClosed) -> Exception:
    code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (None, "the connection broke")
    refusal = _REFUSALS.get(code or 0)
    # 1000 does not come here: `finished` ends the loop before. One that comes early, or in the middle of a recovery,
    # is a break like any other.
    return refusal(reason or refusal.__doc__) if refusal else _Lost(reason or f"the hub closed with {code}", code)


def _after_refusal(refused: InvalidStatus) -> Exception:
    status = refused.response.status_code
    refusal = _REFUSALS.get(status)
    return refusal(f"the hub answered {status}") if refusal else _Lost(f"the hub answered {status}", status)


def _endpoint(url: str, task_id: str) -> str:
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.netloc:
        raise ValueError(f"not the address of a hub: {url!r} (expected http://host:port)")
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/ws/task/{quote(task_id, safe='')}"
