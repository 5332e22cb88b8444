"""Every error answer of the HTTP side: `application/problem+json` (RFC 9457), or a page for a browser that opens the
address; never a stack trace."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import redis
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from hub.history import DatabaseUnavailable
from hub.rendering import page, prefers_html

log = structlog.get_logger()


class Problem(Exception):
    """An answer that says what is wrong and what would be right. `members` are RFC 9457 extension members."""

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.members = members


def response(problem: Problem, request: Request) -> Response:
    """The answer to send."""
    told = {"title": HTTPStatus(problem.status).phrase, "status": problem.status, "detail": problem.detail}
    answer: Response
    if prefers_html(request):
        answer = page(request, "problem.html", told, problem.status, problem.headers)
    else:
        body = {"type": "about:blank", **told, "instance": request.url.path, **problem.members}
        answer = JSONResponse(body, problem.status, problem.headers, "application/problem+json")
    answer.headers.add_vary_header("Accept")
    return answer


async def on_problem(request: Request, error: Exception) -> Response:
    """A problem that a handler found."""
    assert isinstance(error, Problem)  # noqa: S101  # registered for this type only
    return response(error, request)


async def on_http(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: unknown paths, wrong methods."""
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for this type only
    details = {
        404: f"There is nothing at {request.url.path}.",
        405: f"{request.method} is not possible at {request.url.path}.",
    }
    detail = details.get(error.status_code, error.detail)
    headers = dict(error.headers) if error.headers else None
    return response(Problem(error.status_code, detail, headers=headers), request)


async def on_outage(request: Request, error: Exception) -> Response:
    """A server behind the hub is away: nothing is lost, and asking again is right."""
    where = "the database" if isinstance(error, DatabaseUnavailable) else "the progress store"
    log.warning("outage", server=where, error=str(error))
    detail = f"The hub cannot reach {where} at the moment; nothing was changed."
    return response(Problem(503, detail, headers={"Retry-After": "2"}), request)


async def on_gone(request: Request, _: Exception) -> Response:
    """The client went away in the middle of its body: nobody reads the answer, and nothing is wrong here."""
    return response(Problem(400, "The body ended before its time."), request)


async def on_bug(request: Request, error: Exception) -> Response:
    """Something the hub did not foresee: logged with its traceback, told without."""
    log.error("unhandled error", exc_info=error)
    return response(Problem(500, "The hub failed to answer; the error has been logged."), request)


HANDLERS: dict[Any, Any] = {
    Problem: on_problem,
    HTTPException: on_http,
    redis.RedisError: on_outage,
    DatabaseUnavailable: on_outage,
    ConnectionError: on_outage,
    ClientDisconnect: on_gone,
}
