"""The feed of recent jobs: every change of state of every task, for dashboards."""

from __future__ import annotations

import asyncio
import logging

from headway import keys
from headway.events import Envelope
from hub.backlog import Backlog
from hub.connections import Channels
from hub.message import Message, answer, frame

logger = logging.getLogger(__name__)


class Feed:
    """One subscription to the feed channels for all who follow it; there only while somebody does."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._followers: set[Backlog] = set()
        self._turn = asyncio.Lock()
        self._subscribed = False
        self._leaving: set[asyncio.Task[None]] = set()
        self._announced = False

    async def join(self, follower: Backlog) -> None:
        """Follow; the follower gets `state` events from now on, and a `feed` message when some may have been lost."""
        self._followers.add(follower)
        async with self._turn:
            if not self._subscribed:
                await asyncio.gather(*(self._channels.subscribe(name, self) for name in keys.feeds()))
                self._subscribed = True
        follower.tell(_FOLLOWED)

    def leave(self, follower: Backlog) -> None:
        """Follow no longer; leaving twice is harmless."""
        if follower in self._followers:
            self._followers.discard(follower)
            if not self._followers:
                task = asyncio.get_running_loop().create_task(self._rest())
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    def received(self, payload: bytes) -> None:
        try:
            data = Envelope.parse(payload).data
        except ValueError as error:
            logger.warning("ignored on a feed channel: %s", error)
            return
        message = Message(type="state", frame=frame(data))
        for follower in tuple(self._followers):
            follower.tell(message)

    def restored(self) -> None:
        """The link was broken: what happened meanwhile is for the followers to ask (once, not for each channel)."""
        if not self._announced:
            self._announced = True
            asyncio.get_running_loop().call_soon(self._announce)

    def _announce(self) -> None:
        self._announced = False
        for follower in tuple(self._followers):
            follower.tell(_BROKEN)

    async def _rest(self) -> None:
        async with self._turn:
            if not self._followers:  # subscribed or half-way: whoever was first may have given up
                self._subscribed = False
                await asyncio.gather(*(self._channels.unsubscribe(name, self) for name in keys.feeds()))


_FOLLOWED = answer("feed", feed="recent", recovered=True)
_BROKEN = answer("feed", feed="recent", recovered=False)
