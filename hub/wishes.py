"""What a WebSocket client may ask for."""

from __future__ import annotations

from typing import Any

import msgspec

from hub.backlog import Closed

MAX_MESSAGE = 256 * 1024
"""Characters of a client's message."""


class Wish(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower):
    """What a client may send."""


class Ping(Wish, frozen=True):
    """Asks for a `pong`."""


class Cancel(Wish, frozen=True):
    """Asks that the task be cancelled."""


class Rate(Wish, frozen=True):
    """Asks for at most so many progress messages a second."""

    hz: float


class Watched(msgspec.Struct, frozen=True):
    """One task of a subscription, with the cursor to resume from."""

    id: str
    cursor: str | None = None


class Subscribe(Wish, frozen=True):
    """Asks for tasks, or for the feed of recent jobs."""

    tasks: list[Watched] = []
    feed: str | None = None


class Unsubscribe(Wish, frozen=True):
    """Asks for tasks, or the feed, no longer."""

    tasks: list[Watched | str] = []
    feed: str | None = None


one = msgspec.json.Decoder(Ping | Cancel | Rate)
"""What `/ws/task/{id}` understands."""
many = msgspec.json.Decoder(Ping | Rate | Subscribe | Unsubscribe)
"""What `/ws` understands."""


def decode(message: Any, decoder: msgspec.json.Decoder[Any]) -> Wish:
    """The wish in an ASGI message; `Closed` with 4400 and what is wrong with it."""
    text = message.get("text")
    if text is None:
        raise Closed(4400, "malformed message: send text, not binary")
    if len(text) > MAX_MESSAGE:
        raise Closed(4400, f"malformed message: {len(text)} characters are more than {MAX_MESSAGE}")
    try:
        wish: Wish = decoder.decode(text)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors, but for what is nested too deeply
        raise Closed(4400, f"malformed message: {error}"[:120]) from None
    return wish
