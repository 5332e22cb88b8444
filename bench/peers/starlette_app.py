"""The form of the tutorials: a listener for each channel, a set of sockets, `await ws.send_text()` for each of them."""

from __future__ import annotations

import asyncio
import os

import redis.asyncio as redis
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

# A connection for each channel: more than the 100 of redis-py's pool.
client = redis.from_url(os.environ["REDIS_URL"], decode_responses=True, max_connections=5_000)
sockets: dict[str, set[WebSocket]] = {}
listeners: dict[str, asyncio.Task[None]] = {}


async def listen(channel: str) -> None:
    """Pass on what a channel says."""
    async with client.pubsub() as pubsub:
        await pubsub.subscribe(channel)
        async for message in pubsub.listen():
            if message["type"] == "message":
                for ws in list(sockets[channel]):
                    await ws.send_text(message["data"])


async def watch(ws: WebSocket) -> None:
    """`/ws/{task_id}`."""
    channel = f"task:{ws.path_params['task_id']}"
    await ws.accept()
    sockets.setdefault(channel, set()).add(ws)
    if channel not in listeners:
        listeners[channel] = asyncio.create_task(listen(channel))
    try:
        while True:
            await ws.receive_text()
    except WebSocketDisconnect:
        sockets[channel].discard(ws)
        if not sockets[channel]:
            listeners.pop(channel).cancel()


app = Starlette(routes=[WebSocketRoute("/ws/{task_id}", watch)])
