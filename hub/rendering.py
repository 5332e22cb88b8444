"""What every page is made with: the templates, and whether whoever asks wants a page at all."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.templating import Jinja2Templates

from hub import card

_QUALITY = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")

templates = Jinja2Templates(directory=Path(__file__).parent.parent / "templates")
templates.env.filters.update(when=card.when, amount=card.amount, plain=card.plain, label=card.label, linked=card.linked)
templates.env.globals.update(now=time.time)
templates.env.trim_blocks = templates.env.lstrip_blocks = True


def page(
    request: Request, name: str, context: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A page from the template of this name."""
    # A page is true for a moment only: going back to it must not show that moment as the present.
    headers = {"Cache-Control": "no-cache", **(headers or {})}
    return templates.TemplateResponse(request, name, context, status_code=status, headers=headers)


def prefers_html(request: Request) -> bool:
    """Whether an answer that there is as JSON and as a page should be the page: a browser wants it, `*/*` does not."""
    accept = ",".join(request.headers.getlist("accept")).lower()
    return _quality(accept, "text/html") > _quality(accept, "application/json")


def _quality(accept: str, kind: str) -> float:
    """How much a media type is wanted, 0 to 1 (RFC 9110, 12.5.1): the range that names it most exactly decides."""
    found = {}
    for part in accept.split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        given = [match[1] for word in parameters if (match := _QUALITY.fullmatch(word))]
        found[name] = float(given[0]) if given else 1.0
    ranges = (kind, f"{kind.partition('/')[0]}/*", "*/*")
    return next((found[name] for name in ranges if name in found), 0.0)
