"""Who may ask: the origins a browser may come from. (DESIGN.md, HTTP.)"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from hub.problems import Problem, response
from hub.settings import Settings


def origin_allowed(connection: HTTPConnection, settings: Settings) -> bool:
    """Whether a page of the request's Origin may talk to this hub.

    Browsers let any page open a WebSocket or post a form to any address, so that is for the server to check. Programs
    send no Origin.
    """
    origin = connection.headers.get("origin")
    if origin is None or origin in settings.origins:
        return True
    try:
        return urlsplit(origin).netloc == connection.headers.get("host") != ""
    except ValueError:  # no address at all
        return False


class OriginGuard:
    """ASGI middleware: a page of another origin may not make this browser submit anything here.

    WebSockets look for themselves, as they have to answer with a close code.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            request = Request(scope)
            if not origin_allowed(request, self._settings):
                origin = request.headers["origin"][:200]
                problem = Problem(403, f"The origin {origin} is not allowed here; see HEADWAY_ORIGINS.")
                await response(problem, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)
