"""`python -m hub.keeper`: the role that will keep the promises behind the sockets (DESIGN.md: recorder, reconciler).

It has no duty yet but to remove uploads that were abandoned half-way.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

import structlog

from headway.logs import configure
from headway.storage import Storage
from hub.settings import Settings, SettingsError, load

log = structlog.get_logger("hub.keeper")  # not __main__

ABANDONED = 86_400.0
"""Seconds after which a partial upload that nobody writes to is removed."""
INTERVAL = 600.0
"""Seconds between two rounds."""


async def keep(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    storage = Storage(settings.storage)
    log.info("keeper is up")
    while not stop.is_set():
        try:
            swept = await asyncio.to_thread(storage.sweep, ABANDONED)
        except OSError as error:
            log.warning("abandoned uploads cannot be removed", error=str(error))
        else:
            if swept:
                log.info("removed abandoned uploads", files=swept)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL):
                await stop.wait()
    log.info("keeper is down")


def main() -> int:
    """Run the keeper; 1 and one sentence on stderr if the settings are wrong."""
    try:
        configure("keeper")
        settings = load()
    except (SettingsError, ValueError) as error:
        print(f"headway: {error}", file=sys.stderr)  # noqa: T201  # a command's answer, not a log line
        return 1
    asyncio.run(keep(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
