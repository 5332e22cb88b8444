"""The Starlette app: routes, middleware, and the parts that live as long as the process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, WebSocketRoute

from headway.storage import Storage
from headway.store import AsyncStore
from hub import api, history, pages, polling, sse, submit, uploads, websocket
from hub.broker import Broker
from hub.connections import Connections
from hub.feed import Feed
from hub.link import SILENCE_LIMIT, Link
from hub.problems import HANDLERS
from hub.security import Guard
from hub.services import Services
from hub.settings import Settings
from hub.telemetry import Telemetry

CONNECTIONS = 64
"""Connections to Redis beside the link's, at most; whoever asks for one more waits for its turn."""

routes = [
    Route("/tasks/{task_id}", polling.show),  # first, as it is asked for most
    Route("/tasks", submit.submit, methods=["POST"]),
    Route("/tasks/{task_id}/events", sse.events),
    Route("/tasks/{task_id}/result", api.result),
    Route("/uploads", uploads.create, methods=["POST"]),
    Route("/files/{ref}", uploads.download),
    Route("/catalogue", pages.catalogue),
    Route("/healthz", api.healthz),
    Route("/readyz", api.readyz),
    WebSocketRoute("/ws/task/{task_id}", websocket.task),
    WebSocketRoute("/ws", websocket.many),
    *pages.routes,
]


def create_app(settings: Settings) -> Starlette:
    """The hub, not yet connected to anything: its lifespan does that."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with running(settings) as services:
            app.state.services = services
            yield

    middleware = [Middleware(Telemetry), Middleware(Guard, settings=settings)]
    if settings.origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer"],
            expose_headers=["ETag", "Location", "Retry-After"],
        )
        middleware.insert(1, cors)
    return Starlette(routes=routes, middleware=middleware, exception_handlers=HANDLERS, lifespan=lifespan)


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Services]:
    """Everything a hub needs while it serves. It starts, and keeps trying, also when its servers are away."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        settings.redis_url,
        max_connections=CONNECTIONS,
        timeout=SILENCE_LIMIT,
        protocol=2,  # pub/sub messages arrive as plain replies, which is what the link reads
        socket_timeout=SILENCE_LIMIT,
        socket_connect_timeout=SILENCE_LIMIT,
        socket_keepalive=True,
        # A pooled connection that died with the server is found out by using it: once more, on a new one.
        retry=Retry(ConstantBackoff(0.05), 1),
    )
    client = redis.asyncio.Redis.from_pool(pool)
    link = Link(client)
    store = AsyncStore(client)
    connections = Connections(link, store)
    link.turned = connections.turned
    database = history.engine(settings)
    broker = Broker(settings)
    storage = Storage(settings.storage)
    linked = asyncio.create_task(link.run())
    try:
        yield Services(settings, store, connections, Feed(link), history.Jobs(database), broker, storage)
    finally:
        await connections.aclose()
        linked.cancel()
        await asyncio.gather(linked, return_exceptions=True)
        await asyncio.to_thread(broker.close)
        await database.dispose()
        await client.aclose()
