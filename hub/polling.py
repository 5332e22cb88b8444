"""Polling, `GET /tasks/{id}`: one round trip to Redis."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from headway.events import Cursor
from hub.backlog import Closed
from hub.circumstances import parse
from hub.mailbox import Mailbox
from hub.resource import retry_after, stored
from hub.responses import Json
from hub.services import Services
from hub.sse import join, parse_cursor, unknown

MAX_WAIT = 30.0
"""Seconds for which `Prefer: wait` holds an answer, at most."""
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,9})\"?", re.IGNORECASE)


async def show(request: Request) -> Response:
    """`GET /tasks/{id}`: the task resource; 304 for a known ETag; `Prefer: wait` holds until something is newer."""
    services: Services = request.app.state.services
    task_id: str = request.path_params["task_id"]
    cursor = parse_cursor(request.query_params.get("cursor"))
    known = request.headers.get("if-none-match", "").split(",")
    tags = [text.strip().removeprefix("W/").strip('"') for text in known]
    headers = {"Cache-Control": "no-cache"}
    if match := _WAIT.search(request.headers.get("prefer", "")):
        wait = min(float(match[1]), MAX_WAIT)
        headers["Preference-Applied"] = f"wait={wait:.0f}"
        await _newer(services, task_id, cursor or _position(tags[0])[0], wait)
    present, body = await _present(services, task_id, tags)
    headers["ETag"] = f'"{present}"'
    if body is None:
        return Response(status_code=304, headers=headers)
    pause = retry_after(body["state"])
    if pause is not None:
        headers["Retry-After"] = str(pause)
    return Json(body, headers=headers)


async def _present(services: Services, task_id: str, tags: Sequence[str]) -> tuple[str, dict[str, Any] | None]:
    """The tag of the task's resource, and the resource unless the client has it; a 404 if there is no such task."""
    found = await services.store.changed(task_id, tags)
    if found is None:
        raise unknown(task_id)
    return (found, None) if isinstance(found, str) else (found.tag, stored(task_id, found))


def _position(text: str) -> tuple[Cursor | None, int]:
    try:
        return parse(text)
    except ValueError:
        return None, 0


async def _newer(services: Services, task_id: str, known: Cursor | None, wait: float) -> None:
    """Return when the task stands elsewhere than at `known`, or has ended, or after `wait` seconds."""
    mailbox = Mailbox()
    await join(services, task_id, mailbox, None)
    services.polls.add(mailbox)
    try:
        async with asyncio.timeout(wait):
            while True:
                for message in await mailbox.take():
                    if message.last or known is None or message.cursor != known:
                        return
    except (TimeoutError, Closed):
        return
    finally:
        services.polls.discard(mailbox)
        services.connections.leave(task_id, mailbox)
