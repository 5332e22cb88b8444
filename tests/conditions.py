"""Waiting for a condition, never for a length of time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], object], timeout: float = 10.0) -> None:  # noqa: ASYNC109  # the caller's limit
    """Return as soon as `condition()` holds; fail after `timeout` seconds."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110  # any condition, also one that nobody announces
            await asyncio.sleep(0.005)


def eventually(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """The same for tests without an event loop."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout:g} s in vain"
        time.sleep(0.01)
