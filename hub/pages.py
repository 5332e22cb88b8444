"""The pages: the front page with its form and the recent jobs, and a page for each job.

Everything is rendered here first, so that it can be read with scripts off; static/*.js keeps it live. Nothing is inline
(no script, no style), so that the pages live under `Content-Security-Policy: default-src 'self'`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from starlette.responses import FileResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from headway.storage import UnknownRef
from hub import card

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

_ROOT = Path(__file__).parent.parent
_STATIC = _ROOT / "static"
_REF = re.compile(r"f_[0-9a-f]{32}")

RECENT = 20
"""Jobs on the front page. The whole history has a page of its own."""

templates = Jinja2Templates(directory=_ROOT / "templates")
templates.env.filters.update(
    when=card.when, amount=card.amount, plain=card.plain, label=card.label, duration=card.duration
)
templates.env.trim_blocks = templates.env.lstrip_blocks = True


async def home(request: Request) -> Response:
    """`GET /`, with the bar of the job named by `?job=` on top."""
    wanted = request.query_params.get("job", "")
    focus = await _known(request, wanted) if wanted else None
    jobs = await request.app.state.jobs.recent(RECENT)
    recent = [await _card(request, job) for job in jobs if job.task_id != wanted]
    context = {"focus": focus, "missing": None if focus else wanted, "recent": recent}
    return _page(request, "home.html", context)


async def job(request: Request) -> Response:
    """`GET /jobs/{id}`."""
    task_id = request.path_params["task_id"]
    known = await _known(request, task_id)
    if known is None:
        return _page(request, "missing.html", {"task_id": task_id}, status_code=404)
    return _page(request, "job.html", {"job": known})


async def favicon(_: Request) -> Response:
    """`GET /favicon.ico`, which browsers ask for on answers that are no pages (a download, a JSON document)."""
    return FileResponse(_STATIC / "favicon.svg", media_type="image/svg+xml")


def _page(request: Request, name: str, context: dict[str, Any], status_code: int = 200) -> Response:
    # A page is true for a moment only: going back to it must not show that moment as the present.
    headers = {"Cache-Control": "no-cache"}
    return templates.TemplateResponse(request, name, context, status_code=status_code, headers=headers)


async def _known(request: Request, task_id: str) -> card.Card | None:
    resource = await request.app.state.store.resource(task_id)
    if resource is None:
        return None
    created = resource.get("created_at")
    return card.card(
        task_id,
        resource.get("task") or "task",
        await _title(request, resource.get("task"), resource.get("args")),
        card.moment(created) if created is not None else None,
        resource,
    )


async def _card(request: Request, job: Any) -> card.Card:
    resource = await request.app.state.store.resource(job.task_id)
    title = await _title(request, job.task, job.args)
    return card.card(job.task_id, job.task, title, card.moment(job.created_at), resource)


async def _title(request: Request, task: str | None, args: dict[str, Any] | None) -> str:
    """The name of the file a job works on, where it has one: people know their files, not our task ids."""
    for value in (args or {}).values():
        if isinstance(value, str) and _REF.fullmatch(value):
            try:
                return await anyio.to_thread.run_sync(request.app.state.storage.name, value)
            except UnknownRef:
                break  # the upload has expired, its job is still history
    return task or "task"


class _Revalidated(StaticFiles):
    """Files that a browser asks about each time (a 304 mostly): an upgrade must not meet yesterday's scripts."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


routes: list[BaseRoute] = [
    Route("/", home, name="home"),
    Route("/jobs/{task_id}", job, name="job"),
    Route("/favicon.ico", favicon),
    Mount("/static", _Revalidated(directory=_STATIC), name="static"),
]
