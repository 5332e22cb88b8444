"""What every answer carries, and what is logged of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from hub.problems import HANDLERS
from hub.telemetry import SECURITY_HEADERS, Telemetry


async def ok(_: Request) -> Response:
    structlog.get_logger().info("inside")
    return Response("ok")


async def broken(_: Request) -> Response:
    raise RuntimeError("a secret of ours")


async def half(_: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        raise RuntimeError("too late")

    return StreamingResponse(body())


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """An app behind the middleware."""
    routes = [Route("/tasks/{id}", ok), Route("/broken", broken), Route("/half", half)]
    app = Starlette(routes=routes, middleware=[Middleware(Telemetry)], exception_handlers=HANDLERS)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hub") as client:
        yield client


async def test_every_line_has_the_ids(client: httpx.AsyncClient) -> None:
    """Request and task, in whatever is logged while it is served."""
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        answer = await client.get("/tasks/t1?token=secret", headers={"X-Request-ID": "r-1"})
    assert answer.headers["X-Request-ID"] == "r-1"
    assert [(line["request_id"], line["task_id"]) for line in lines] == [("r-1", "t1")] * 2
    assert (lines[1]["status"], lines[1]["path"]) == (200, "/tasks/t1")


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "é", "a\tb"])
async def test_a_request_id_that_is_none_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    """What a stranger sends does not get into the logs unchecked."""
    answer = await client.get("/tasks/t1", headers={"X-Request-ID": given.encode()})
    assert len(answer.headers["X-Request-ID"]) == 32


async def test_a_bug_is_told_without_its_trace_and_logged_with_it(client: httpx.AsyncClient) -> None:
    """500 as a problem, with the id by which the log line is found; once."""
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        answer = await client.get("/broken")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert all(answer.headers[name] == value for name, value in SECURITY_HEADERS.items())
    (error,) = [line for line in lines if line["log_level"] == "error"]
    assert error["request_id"] == answer.headers["X-Request-ID"]
    assert isinstance(error["exc_info"], RuntimeError)
    assert lines[-1]["status"] == 500


async def test_an_answer_that_breaks_off_is_no_second_answer(client: httpx.AsyncClient) -> None:
    """What has been sent cannot be taken back: the server cuts the connection."""
    with pytest.raises(RuntimeError, match="too late"):
        await client.get("/half")
