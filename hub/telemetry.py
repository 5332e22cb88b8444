"""A request's id in every log line, one access line a request, and the headers that every answer carries."""

from __future__ import annotations

import os
import re
import time
from typing import Any

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.problems import on_bug
from hub.wire import EXTENSION

log = structlog.get_logger("hub.access")

_REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_TASK_PATH = re.compile(r"/(?:ws/task|tasks|jobs)/([^/]{1,255})")
_ID = b"x-request-id"
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_DEFAULTS = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class Telemetry:
    """ASGI middleware. Paths are logged without their query, where tokens may be."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == _ID), "")
        request_id = given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        context = {"request_id": request_id}
        if match := _TASK_PATH.match(scope["path"]):
            context["task_id"] = match[1]
        seen: dict[str, Any] = {}
        began = time.perf_counter()

        async def sending(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                # The bare pairs, whose names ASGI wants in lower case: Starlette's wrapper costs as much as the answer.
                headers = [*message.get("headers", ()), (_ID, request_id.encode())]
                if message["type"] == "http.response.start":
                    seen["status"] = message["status"]
                    there = {name for name, _ in headers}
                    headers += [default for default in _DEFAULTS if default[0] not in there]
                message["headers"] = headers
            elif message["type"] == "websocket.close":
                seen["code"] = message.get("code", 1000)
            await send(message)

        with structlog.contextvars.bound_contextvars(**context):
            try:
                await self._app(scope, receive, sending)
            except Exception as error:
                # Here, and not in Starlette's own outermost layer: this answer carries the request's id, too.
                if scope["type"] != "http" or "status" in seen:
                    raise
                await (await on_bug(Request(scope), error))(scope, receive, sending)
            finally:
                if "code" in seen or EXTENSION not in scope.get("extensions", {}):
                    method = scope.get("method", "WS")
                    seconds = round(time.perf_counter() - began, 4)
                    log.info("request", method=method, path=scope["path"], seconds=seconds, **seen)
                # A socket that has been taken over goes on without this call: hub.websocket tells of its end.
