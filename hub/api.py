"""The HTTP side: ask for a task, ask what there is, ask whether all is well."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from typing import Any

import redis
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headway.events import Cursor
from hub import catalogue
from hub.broker import BrokerUnavailable
from hub.mailbox import Closed, Mailbox
from hub.problems import Problem
from hub.resource import read_resource, retry_after
from hub.responses import Json
from hub.services import Services
from hub.sse import join, parse_cursor, unknown

MAX_WAIT = 30.0
"""Seconds for which `Prefer: wait` holds an answer, at most."""
CHECK_TIMEOUT = 3.0
"""Seconds each server has to answer `/readyz`."""
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,9})\"?", re.IGNORECASE)


async def show(request: Request) -> Response:
    """`GET /tasks/{id}`: the task resource; 304 for a known ETag; `Prefer: wait` holds until something is newer."""
    services: Services = request.app.state.services
    task_id = request.path_params["task_id"]
    known = parse_cursor(request.query_params.get("cursor"))
    tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    match = _WAIT.search(request.headers.get("prefer", ""))
    headers = {"Cache-Control": "no-cache"}
    if match:
        wait = min(float(match[1]), MAX_WAIT)
        headers["Preference-Applied"] = f"wait={wait:.0f}"
        await _newer(services, task_id, known or _tagged(tags), wait)
    here = await services.store.cursor(task_id)
    if here is None:
        raise unknown(task_id)
    tag = _tag(*here)
    if tag in tags or "*" in tags:
        return Response(status_code=304, headers={**headers, "ETag": tag})
    body = await _resource(services, task_id)
    headers["ETag"] = _tag(body["cursor"], len(body["children"]))
    pause = retry_after(body["state"])
    if pause is not None:
        headers["Retry-After"] = str(pause)
    return Json(body, headers=headers)


def _tag(cursor: Cursor | str, children: int) -> str:
    """The ETag of a task resource: children come without an event of their parent."""
    return f'"{cursor}.{children}"' if children else f'"{cursor}"'


def _tagged(tags: list[str]) -> Cursor | None:
    """The cursor in an ETag of ours."""
    try:
        return Cursor.parse(tags[0].strip('"').partition(".")[0])
    except ValueError:
        return None


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


async def result(request: Request) -> Response:
    """`GET /tasks/{id}/result`: a result that was too large for the event."""
    services: Services = request.app.state.services
    task_id = request.path_params["task_id"]
    body = await _resource(services, task_id)
    if body["state"] != "SUCCESS":
        raise Problem(404, f"The task has no result: it is {body['state']}.", state=body["state"])
    try:
        return Json(await services.broker.result(task_id))
    except LookupError:
        detail = "The result is not stored: it has expired, or the task's app stores no results."
        raise Problem(404, detail, state=body["state"]) from None
    except BrokerUnavailable:
        raise Problem(503, "The result cannot be read at the moment.", headers={"Retry-After": "2"}) from None


async def tasks(request: Request) -> Response:
    """`GET /catalogue`: the tasks that may be submitted, with their schemas."""
    services: Services = request.app.state.services
    return Json({"tasks": catalogue.parse(await services.store.catalogue(), await services.store.announced())})


async def healthz(_: Request) -> Response:
    """`GET /healthz`: this process answers."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """`GET /readyz`: 200 when every server behind the hub answers, else 503; the body says which does not."""
    services: Services = request.app.state.services
    checks: dict[str, Awaitable[Any]] = {
        "redis": services.store.ping(),
        "database": services.jobs.ping(),
        "broker": services.broker.ping(),
    }
    states = dict(zip(checks, await asyncio.gather(*map(_state, checks.values())), strict=True))
    ready = set(states.values()) == {"ok"}
    return JSONResponse({"status": "ready" if ready else "unready", "checks": states}, 200 if ready else 503)


async def _state(check: Awaitable[Any]) -> str:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await check
    except (redis.RedisError, DBAPIError, BrokerUnavailable, OSError):
        return "unreachable"
    return "ok"


async def _resource(services: Services, task_id: str) -> dict[str, Any]:
    body = await read_resource(services, task_id)
    if body is None:
        raise unknown(task_id)
    return body
