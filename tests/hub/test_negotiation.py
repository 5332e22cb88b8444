"""Who gets a page and who gets JSON, where there are both."""

from __future__ import annotations

import json
from types import SimpleNamespace

import httpx
import pytest
import redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Route

from hub import pages
from hub.problems import HANDLERS, Problem
from hub.rendering import prefers_html
from hub.security import Guard
from hub.settings import Settings
from hub.telemetry import Telemetry
from tests.hub.running import SIMULATE

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
EVIL = '<script>alert("x")</script>'


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("TEXT/HTML; charset=utf-8", True),
        ("text/*", True),
        ("application/json;q=0.5, text/html;q=0.6", True),
        ("*/*", False),
        (None, False),
        ("", False),
        ("application/json", False),
        ("application/problem+json", False),
        ("text/event-stream", False),
        ("text/html, application/json", False),
        ("text/html;q=0, */*", False),
        ("text/html;q=0.5, */*", False),
    ],
)
def test_a_page_is_for_whoever_prefers_one(accept: str | None, html: bool) -> None:
    """Not for `*/*`, which is what curl says: it names nothing it would rather have."""
    headers = [] if accept is None else [(b"accept", accept.encode())]
    assert prefers_html(Request({"type": "http", "headers": headers})) is html


async def ask(path: str, accept: str, *, method: str = "GET", host: str = "hub") -> httpx.Response:
    """Ask a hub with one task in its catalogue, and some ways to fail."""

    async def refuse(_: Request) -> None:
        raise Problem(404, f"There is no {EVIL}.", hint="x")

    async def fail(request: Request) -> None:
        raise redis.ConnectionError if request.url.path == "/away" else ValueError("a secret")

    async def catalogue() -> dict[str, bytes]:
        return {"simulate": json.dumps(SIMULATE).encode(), "evil": json.dumps(SIMULATE | {"task": EVIL}).encode()}

    async def announced() -> dict[str, float]:
        return {"simulate": 4e9}

    routes = [Route("/tasks/x", refuse), Route("/away", fail), Route("/bug", fail)]
    routes += [Route("/catalogue", pages.catalogue)]
    middleware = [Middleware(Telemetry), Middleware(Guard, settings=Settings())]
    app = Starlette(routes=routes, middleware=middleware, exception_handlers=HANDLERS)
    app.state.services = SimpleNamespace(store=SimpleNamespace(catalogue=catalogue, announced=announced))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{host}") as client:
        return await client.request(method, path, headers={"Accept": accept})


FAILURES = [
    ("GET", "/nosuchpage", "hub", 404),
    ("GET", "/tasks/x", "hub", 404),
    ("PUT", "/catalogue", "hub", 405),
    ("GET", "/catalogue", "evil.example", 421),
    ("GET", "/bug", "hub", 500),
    ("GET", "/away", "hub", 503),
]


@pytest.mark.parametrize(("method", "path", "host", "status"), FAILURES)
async def test_an_error_is_a_page_in_a_browser(method: str, path: str, host: str, status: int) -> None:
    """In words, with a way back, and no markup of anybody else's."""
    answer = await ask(path, BROWSER, method=method, host=host)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert "Accept" in answer.headers["vary"]
    assert 'href="/"' in answer.text
    assert "a secret" not in answer.text
    assert EVIL not in answer.text
    assert ('http-equiv="refresh"' in answer.text) is (status == 503)


@pytest.mark.parametrize(("method", "path", "host", "status"), FAILURES)
async def test_an_error_is_a_problem_elsewhere(method: str, path: str, host: str, status: int) -> None:
    """curl and programs get RFC 9457, on every path."""
    answer = await ask(path, "*/*", method=method, host=host)
    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Accept" in answer.headers["vary"]


async def test_the_headers_of_an_error_are_those_of_its_page_too() -> None:
    """405 says what is allowed, 503 when to come back."""
    assert "GET" in (await ask("/catalogue", BROWSER, method="PUT")).headers["allow"]
    assert (await ask("/away", BROWSER)).headers["retry-after"] == "2"


async def test_the_catalogue_is_a_page_in_a_browser() -> None:
    """Names, parameters, a command to copy; JSON for everybody else."""
    page = await ask("/catalogue", BROWSER)
    assert page.headers["content-type"].startswith("text/html")
    assert "steps" in page.text
    assert "curl http://hub/tasks" in page.text
    assert EVIL not in page.text
    answer = await ask("/catalogue", "*/*")
    assert [entry["task"] for entry in answer.json()["tasks"]] == [EVIL, "simulate"]
    assert page.headers["vary"] == answer.headers["vary"] == "Accept"


async def test_a_task_that_nobody_serves_is_told() -> None:
    """Once, of the two there are: it may be submitted, and would wait."""
    assert (await ask("/catalogue", BROWSER)).text.count("No worker has announced this task lately") == 1
