"""Garbage collection, kept out of everybody's way.

A full collection looks at every object that could be part of a cycle, and all sockets wait meanwhile. So what a socket
leaves behind is freed by its reference count alone (`hub.wire` cuts its cycles), and what the program itself consists
of, which is most of what there would be to look at, is taken out of the collector's sight once it is there. Little is
left for a full collection, and it is made seldom.
"""

from __future__ import annotations

import gc
import time
from contextvars import Context
from typing import Any, Literal

import structlog

log = structlog.get_logger()

THRESHOLDS = (1_000, 20, 50)
"""When the collector looks at the young, the older and all objects (`gc.set_threshold`): at all of them after a million
that have come and not gone. 10,000 sockets that join are a fifth of that."""
LONG = 0.05
"""Seconds of a pause that are worth a line in the log."""


class Pauses:
    """How often everything has stood still for the collector, and for how long."""

    def __init__(self) -> None:
        self.count = 0
        self.longest = 0.0
        """Seconds."""
        self._began = 0.0

    def __call__(self, phase: Literal["start", "stop"], info: dict[str, Any]) -> None:
        """For `gc.callbacks`."""
        if phase == "start":
            self._began = time.perf_counter()
            return
        pause = time.perf_counter() - self._began
        self.count += 1
        self.longest = max(self.longest, pause)
        if pause > LONG:
            # Of its own: it can fall into anybody's request.
            Context().run(log.warning, "garbage collection", milliseconds=round(pause * 1e3, 1), **info)

    def tell(self) -> None:
        """Say what there was, at the end."""
        log.info("garbage collections", count=self.count, longest_ms=round(self.longest * 1e3, 2))


def tame() -> Pauses:
    """Take all there is out of the collector's sight, and watch what it does with the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    pauses = Pauses()
    gc.callbacks.append(pauses)
    return pauses
