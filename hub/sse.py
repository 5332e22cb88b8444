"""The SSE side: `GET /tasks/{id}/events`, the same events for clients that cannot hold a WebSocket."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import cast

import anyio
import redis
import structlog
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headway.events import Cursor
from hub.backlog import Closed
from hub.connections import JOIN_TIMEOUT, UnknownTask
from hub.mailbox import Mailbox
from hub.problems import Problem
from hub.services import Services

log = structlog.get_logger()

KEEP_ALIVE = 15
"""Seconds between the comments that keep proxies from closing a quiet stream."""
RETRY = 1_000
"""Milliseconds after which a browser reconnects."""
SEND_TIMEOUT = 30.0
"""Seconds a client may take to accept one message."""
GRACE = 2.0
"""Seconds a stream has to end when the hub goes away; less than the requests of `hub.__main__` have."""


async def events(request: Request) -> Response:
    """The task's events as a stream that ends after the terminal one; resumes after `Last-Event-ID` or `?cursor=`."""
    services: Services = request.app.state.services
    task_id = request.path_params["task_id"]
    cursor = parse_cursor(request.headers.get("last-event-id") or request.query_params.get("cursor"))
    mailbox = Mailbox()
    await join(services, task_id, mailbox, cursor)
    if "last-event-id" in request.headers and services.connections.ended_at(task_id) == cursor:
        # A browser comes back after every end. To one that has seen this one, 204 says: stop (HTML, 9.2.3).
        services.connections.leave(task_id, mailbox)
        return Response(status_code=204)
    return _Stream(services, task_id, mailbox)


class _Stream(EventSourceResponse):
    """The answer, which leaves the task however it ends: a client may be gone before its first event is asked for."""

    def __init__(self, services: Services, task_id: str, mailbox: Mailbox) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(
            _messages(mailbox),
            headers=headers,
            ping=KEEP_ALIVE,
            send_timeout=SEND_TIMEOUT,
            shutdown_event=cast("anyio.Event", _Farewell(mailbox)),
            shutdown_grace_period=GRACE,
        )
        self._leave = functools.partial(services.connections.leave, task_id, mailbox)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except* SendTimeoutError:
            log.info("an event stream was given up: its client reads nothing")
        finally:
            self._leave()


class _Farewell:
    """What sse-starlette sets when the server is told to go: the stream ends in order, after what is waiting."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def set(self) -> None:
        self._mailbox.close(1001, "the hub goes away")


async def _messages(mailbox: Mailbox) -> AsyncIterator[ServerSentEvent]:
    retry: int | None = RETRY
    try:
        while True:
            for message in await mailbox.take():
                # A snapshot that missed events follow carries no id: resuming from it would pass over them.
                mark = str(message.cursor) if message.cursor else None
                yield ServerSentEvent(message.data.decode(), event=message.type, id=mark, retry=retry)
                retry = None
                if message.last:
                    return
    except Closed:
        return  # too slow, or the hub goes away: the browser reconnects after its last event


async def join(services: Services, task_id: str, mailbox: Mailbox, cursor: Cursor | None) -> None:
    """Let an HTTP watcher in, or answer why not."""
    try:
        async with asyncio.timeout(JOIN_TIMEOUT):
            await services.connections.join(task_id, mailbox, cursor)
    except UnknownTask:
        raise unknown(task_id) from None
    except TimeoutError:
        raise redis.ConnectionError("no answer") from None


def unknown(task_id: str) -> Problem:
    """The answer about a task that nobody has heard of."""
    return Problem(404, f"There is no task {task_id[:100]!r}, or it ended so long ago that it has been forgotten.")


def parse_cursor(text: str | None) -> Cursor | None:
    """A cursor of a request; a malformed one is a 400."""
    if not text:
        return None
    try:
        return Cursor.parse(text)
    except ValueError as error:
        raise Problem(400, f"{error}".capitalize() + ".") from None
