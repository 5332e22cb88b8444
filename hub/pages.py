"""The pages: the front page with its form and the recent jobs, a page for each job, and the catalogue.

Everything is rendered here first, so that it can be read with scripts off; static/*.js keeps it live. Nothing is inline
(no script, no style), so that the pages live under `Content-Security-Policy: default-src 'self'`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec
import redis
import structlog
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from headway.storage import REF, UnknownRef
from hub import api, card
from hub.models import Job
from hub.offer import offer
from hub.rendering import page, prefers_html
from hub.resource import read_resource
from hub.services import Services

Endpoint = Callable[[Request], Awaitable[Response]]

log = structlog.get_logger()

_STATIC = Path(__file__).parent.parent / "static"

OUTAGES = (redis.RedisError, DBAPIError, OSError)
"""What the clients of Redis and PostgreSQL raise when their server is away."""
RECENT = 20
"""Jobs on the front page. The whole history has a page of its own."""


async def home(request: Request) -> Response:
    """`GET /`, with the bar of the job named by `?job=` on top."""
    wanted = request.query_params.get("job", "")
    focus = await _known(request, wanted) if wanted else None
    jobs = [job for job in await _services(request).jobs.recent(RECENT) if job.task_id != wanted]
    recent = await asyncio.gather(*(_card(request, job) for job in jobs))
    context = {"focus": focus, "missing": None if focus else wanted, "recent": recent}
    return page(request, "home.html", context)


async def job(request: Request) -> Response:
    """`GET /jobs/{id}`."""
    task_id = request.path_params["task_id"]
    known = await _known(request, task_id)
    if known is None:
        return page(request, "missing.html", {"task_id": task_id}, 404)
    return page(request, "job.html", {"job": known})


async def catalogue(request: Request) -> Response:
    """`GET /catalogue`: for programs as JSON, for people as a page that says the same."""
    answer = await api.tasks(request)
    if prefers_html(request):
        base = str(request.base_url).rstrip("/")
        offers = [offer(entry, base) for entry in msgspec.json.decode(answer.body)["tasks"]]
        answer = page(request, "catalogue.html", {"offers": offers, "base": base})
    answer.headers.add_vary_header("Accept")
    return answer


async def favicon(_: Request) -> Response:
    """`GET /favicon.ico`, which browsers ask for on answers that are no pages (a download, a JSON document)."""
    return FileResponse(_STATIC / "favicon.svg", media_type="image/svg+xml")


def _patient(endpoint: Endpoint) -> Endpoint:
    """While a server behind the hub is away, people get a page that says so and tries again, and not a JSON problem."""

    async def patient(request: Request) -> Response:
        try:
            return await endpoint(request)
        except OUTAGES as error:
            log.warning("outage", error=str(error), path=request.url.path)
            return page(request, "away.html", {}, 503)

    return patient


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _known(request: Request, task_id: str) -> card.Card | None:
    known = await read_resource(_services(request), task_id)
    if known is None:
        return None
    title = await _title(request, known["task"], known["args"])
    created = known["created_at"]
    return card.card(task_id, known["task"] or "task", title, card.moment(created) if created else None, known)


async def _card(request: Request, job: Job) -> card.Card:
    known = await read_resource(_services(request), job.task_id)
    return card.card(job.task_id, job.task, await _title(request, job.task, job.args), job.created_at, known)


async def _title(request: Request, task: str | None, args: dict[str, Any] | None) -> str:
    """The name of the file a job works on, where it has one: people know their files, not our task ids."""
    for value in (args or {}).values():
        if isinstance(value, str) and REF.fullmatch(value):
            try:
                return await anyio.to_thread.run_sync(_services(request).storage.name, value)
            except UnknownRef:
                break  # the upload has been deleted, its job is still history
    return task or "task"


class _Revalidated(StaticFiles):
    """Files that a browser asks about each time (a 304 mostly): an upgrade must not meet yesterday's scripts."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


routes: list[BaseRoute] = [
    Route("/", _patient(home), name="home"),
    Route("/jobs/{task_id}", _patient(job), name="job"),
    Route("/favicon.ico", favicon),
    Mount("/static", _Revalidated(directory=_STATIC), name="static"),
]
