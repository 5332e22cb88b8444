"""Logging: structlog and the standard library's loggers (uvicorn's, Celery's) through one pipeline.

JSON lines where nobody reads along, coloured text on a terminal; bound context (`structlog.contextvars`) is in every
line. Needs structlog, which hub and workers have; nothing else in this package imports it.
"""

from __future__ import annotations

import logging
import logging.config
import os
import sys
from typing import Any

import structlog

from headway.events import encode


def configure(service: str) -> None:
    """Set up this process's logging; `service` is in each line. HEADWAY_LOG_LEVEL (default INFO) sets the level."""
    level = os.environ.get("HEADWAY_LOG_LEVEL", "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise ValueError(f"HEADWAY_LOG_LEVEL must be a level such as INFO or DEBUG, not {level!r}")
    terminal = sys.stderr.isatty()
    # What every record would be made to carry, at a cost, and no line of ours shows.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if sys.version_info >= (3, 12):
        logging.logAsyncioTasks = False

    def name_service(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(allow=["task_id", "request_id"]),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_service,
    ]
    last: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if terminal:
        last.append(structlog.dev.ConsoleRenderer())
    else:
        last += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_json)]
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "pipeline": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "processors": last,
                    "foreign_pre_chain": shared,
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "pipeline"}},
            "root": {"level": level, "handlers": ["stderr"]},
        }
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _json(event: structlog.typing.EventDict, **_: Any) -> str:
    return encode(event).decode()
