"""Sending tasks: the hub's side of Celery. It knows tasks by name only, and their arguments by the catalogue."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import anyio
import anyio.to_thread
import structlog
from celery import Celery
from kombu.exceptions import ContentDisallowed, OperationalError, SerializationError

from hub.settings import Settings

TIMEOUT = 3.0
"""Seconds for one exchange with the broker."""
CONCURRENT = 8
"""Threads that send at the same time."""


class BrokerUnavailable(Exception):
    """The broker did not take the message."""


class Broker:
    """Publishes tasks and reads results. Celery's calls block, so each runs in a thread."""

    def __init__(self, settings: Settings) -> None:
        self._app = Celery("headway-hub", broker=settings.broker, backend=settings.redis_url, set_as_current=False)
        options = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "socket_keepalive": True}
        self._app.conf.update(
            task_serializer="json",
            accept_content=["json"],
            broker_transport_options=options,
            redis_socket_timeout=TIMEOUT,
            redis_socket_connect_timeout=TIMEOUT,
            result_backend_transport_options={"retry_policy": {"max_retries": 0}},
        )
        self._turns = asyncio.Semaphore(CONCURRENT)
        self._threads = anyio.CapacityLimiter(CONCURRENT)

    async def send(self, task: str, task_id: str, args: dict[str, Any], queue: str) -> None:
        """Queue a task; `BrokerUnavailable` if the broker did not say, within about 12 s, that it has taken it.

        The id of the request that is being answered goes with it, and comes up in the worker's log lines.
        """
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        send = functools.partial(
            self._app.send_task,
            task,
            kwargs=args,
            task_id=task_id,
            queue=queue,
            headers={"request_id": request_id} if request_id else None,
            retry=True,
            retry_policy={"max_retries": 1, "interval_start": 0.1},
            ignore_result=False,
        )
        await self._call(send)

    async def result(self, task_id: str) -> Any:
        """The result of a task that succeeded, from Celery's result backend; `LookupError` if none was stored there."""
        try:
            meta = await self._call(lambda: self._app.backend.get_task_meta(task_id))
        except (SerializationError, ContentDisallowed) as error:
            raise LookupError(task_id) from error
        if meta["status"] != "SUCCESS":
            raise LookupError(task_id)
        return meta["result"]

    async def ping(self) -> None:
        """Raise `BrokerUnavailable` unless the broker answers."""

        def connect() -> None:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=0, timeout=TIMEOUT)
                connection.default_channel.client.ping()

        await self._call(connect)

    async def _call(self, call: Any) -> Any:
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._turns.acquire()
        except TimeoutError:
            raise BrokerUnavailable("too many requests wait for it") from None
        try:
            return await anyio.to_thread.run_sync(call, limiter=self._threads)
        except (OperationalError, OSError) as error:
            raise BrokerUnavailable(str(error)) from error
        finally:
            self._turns.release()

    def close(self) -> None:
        """Give the connections back."""
        self._app.close()
