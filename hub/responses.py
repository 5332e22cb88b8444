"""JSON answers, written by the one encoder that events have."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from headway.events import encode


class Json(Response):
    """A JSON body."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return encode(content)
