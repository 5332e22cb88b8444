"""Polling, `GET /tasks/{id}`: from the room of a task that is watched here, else in one round trip to Redis."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from headway.events import Cursor
from hub.backlog import Closed
from hub.circumstances import parse, tag
from hub.mailbox import Mailbox
from hub.resource import resource, retry_after, stored
from hub.responses import Json
from hub.rooms import Room
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
        await _newer(services, task_id, (cursor, None) if cursor else _position(tags[0]), wait)
    present, body = await _present(services, task_id, tags, cursor)
    headers["ETag"] = f'"{present}"'
    if body is None:
        return Response(status_code=304, headers=headers)
    pause = retry_after(body["state"])
    if pause is not None:
        headers["Retry-After"] = str(pause)
    return Json(body, headers=headers)


async def _present(
    services: Services, task_id: str, tags: Sequence[str], cursor: Cursor | None
) -> tuple[str, dict[str, Any] | None]:
    """The tag of the task's resource, and the resource unless the client has it; a `Problem` if there is no such task.

    Tag and resource are of one moment: between a look at a room and its answer nothing is awaited.
    """
    room = services.connections.room(task_id)
    if room is not None:
        here = tag(room.cursor, room.circumstances.rev)
        if here in tags or "*" in tags:
            return here, None
        if not _behind(room, tags, cursor):
            answer = _told(room) or await _shared(services, task_id)
            if answer is not None:
                return answer
    found = await services.store.changed(task_id, tags)
    if found is None:
        raise unknown(task_id)
    return (found, None) if isinstance(found, str) else (found.tag, stored(task_id, found))


def _told(room: Room) -> tuple[str, dict[str, Any]] | None:
    """Tag and resource from a room alone; None if the store has to be asked."""
    record = room.circumstances.at(room.cursor)
    if record is None:
        return None
    return tag(room.cursor, room.circumstances.rev), resource(msgspec.json.decode(room.snapshot().data), record)


async def _shared(services: Services, task_id: str) -> tuple[str, dict[str, Any]] | None:
    """Tag and resource from the room, once it knows the circumstances: all who ask meanwhile share one read.

    None if it does not know them even then: more has happened during the read.
    """
    reading = services.reads.get(task_id)
    if reading is None:
        reading = services.reads[task_id] = asyncio.create_task(_read(services, task_id))
        reading.add_done_callback(functools.partial(_done, services, task_id))
    await asyncio.shield(reading)
    room = services.connections.room(task_id)
    return None if room is None else _told(room)


async def _read(services: Services, task_id: str) -> None:
    record = await services.store.details(task_id)
    room = services.connections.room(task_id)
    if record is not None and room is not None:
        room.circumstances.keep(record)


def _done(services: Services, task_id: str, reading: asyncio.Task[None]) -> None:
    del services.reads[task_id]
    if not reading.cancelled():
        reading.exception()  # told to those who wait; all of them may have gone


def _behind(room: Room, tags: Sequence[str], known: Cursor | None) -> bool:
    """Whether the client has seen more than the room yet: from another hub, or from Redis a moment ago."""
    cursor, rev = room.cursor, room.circumstances.rev
    seen = [*map(_position, tags), (known, 0)]
    return any(at is not None and at.epoch == cursor.epoch and (at, of) > (cursor, rev) for at, of in seen)


def _position(text: str) -> tuple[Cursor | None, int]:
    try:
        return parse(text)
    except ValueError:
        return None, 0


async def _newer(services: Services, task_id: str, known: tuple[Cursor | None, int | None], wait: float) -> None:
    """Return when the task stands elsewhere than at `known`, or has ended, or after `wait` seconds.

    `known` are cursor and revision. A new revision is no event to wait for, but one that is there already is news.
    """
    cursor, rev = known
    mailbox = Mailbox()
    await join(services, task_id, mailbox, None)
    services.polls.add(mailbox)
    try:
        room = services.connections.room(task_id)
        if room is not None and rev is not None and room.circumstances.rev != rev:
            return
        async with asyncio.timeout(wait):
            while True:
                for message in await mailbox.take():
                    if message.last or cursor is None or message.cursor != cursor:
                        return
    except (TimeoutError, Closed):
        return
    finally:
        services.polls.discard(mailbox)
        services.connections.leave(task_id, mailbox)
