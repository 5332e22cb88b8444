"""The HTTP side: ask for a result, ask what there is, ask whether all is well."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import redis
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hub import catalogue
from hub.broker import BrokerUnavailable
from hub.problems import Problem
from hub.resource import read_resource
from hub.responses import Json
from hub.services import Services
from hub.sse import unknown

CHECK_TIMEOUT = 3.0
"""Seconds each server has to answer `/readyz`."""


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
