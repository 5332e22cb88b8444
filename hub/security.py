"""Who may ask: under which names, and from the pages of which origins. (DESIGN.md, HTTP.)"""

from __future__ import annotations

import functools
import ipaddress
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


def host_allowed(connection: HTTPConnection, settings: Settings) -> bool:
    """Whether the request names this hub in a way that no stranger can have arranged.

    Anybody may point a name of theirs at 127.0.0.1; a page they serve under that name is then of the same origin as the
    hub, in the browser of somebody who runs one (DNS rebinding). Addresses, `localhost` and names without a dot, as
    containers have them, cannot be had that way. Other names are those of HEADWAY_ORIGINS.
    """
    return _goes_by(connection.headers.get("host", ""), settings.origins)


@functools.lru_cache(maxsize=256)  # clients come under few names, and a stranger's fill no more than this
def _goes_by(host: str, origins: tuple[str, ...]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if "." not in name or name.endswith(".localhost"):
        return True  # "::1" is among them
    if any(urlsplit(origin).hostname == name for origin in origins):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware: no request under a stranger's name, and no page of another origin that submits anything here.

    WebSockets look for themselves, as they have to answer with a close code.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._problem(HTTPConnection(scope)) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await response(problem, Request(scope))(scope, receive, send)

    def _problem(self, request: HTTPConnection) -> Problem | None:
        if not host_allowed(request, self._settings):
            host = request.headers["host"][:200]
            return Problem(421, f"This hub does not go by the name {host}; HEADWAY_ORIGINS lists the names it has.")
        if request.scope["method"] not in ("GET", "HEAD", "OPTIONS") and not origin_allowed(request, self._settings):
            origin = request.headers["origin"][:200]
            return Problem(403, f"The origin {origin} is not allowed here; HEADWAY_ORIGINS lists those that are.")
        return None
