"""The link and the store as the connection manager sees them, each step of which a test takes by hand."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque

import redis

from headway import keys
from headway.events import Cursor, Envelope
from headway.store import Snapshot
from hub.connections import Connections
from hub.link import Listener
from tests.hub.envelopes import Publisher, payload_of


@dataclasses.dataclass
class Read:
    """One question to the store on its way."""

    task_id: str
    since: Cursor | None
    answer: asyncio.Future[Snapshot | None]
    served: bool = False
    snapshot: Snapshot | None = None


class Server:
    """A Redis that acknowledges, reads and delivers when it is told to; `eager` does so by itself."""

    def __init__(self, *publishers: Publisher, eager: bool = False) -> None:
        self.tasks = {publisher.task_id: publisher for publisher in publishers}
        self.eager = eager
        self.connections = Connections(self, self)
        self.subscribed: dict[str, Listener] = {}
        self.asked: deque[tuple[str, Listener, asyncio.Future[None]]] = deque()
        self.reads: deque[Read] = deque()
        self.channel: deque[tuple[str, Envelope]] = deque()
        """Messages on their way to the hub."""
        self.counts = {"subscribe": 0, "unsubscribe": 0, "read": 0}
        self.up = True

    async def subscribe(self, channel: str, listener: Listener) -> None:
        """As the link does: returns when it has been acknowledged."""
        self.counts["subscribe"] += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked.append((channel, listener, future))
        if self.eager:
            self.acknowledge()
        await future

    async def unsubscribe(self, channel: str, listener: Listener) -> None:
        """As the link does: only the listener that is there may go."""
        self.counts["unsubscribe"] += 1
        for asked in [asked for asked in self.asked if asked[0] == channel and asked[1] is listener]:
            self.asked.remove(asked)
            asked[2].cancel()
        if self.subscribed.get(channel) is listener:
            del self.subscribed[channel]

    def hears(self, channel: str) -> bool:
        """As the link does."""
        return self.up and channel in self.subscribed

    async def read(self, task_id: str, since: Cursor | None = None) -> Snapshot | None:
        """As the store does."""
        self.counts["read"] += 1
        question = Read(task_id, since, asyncio.get_running_loop().create_future())
        self.reads.append(question)
        if self.eager:
            self.serve()
            self.reply()
        return await question.answer

    def acknowledge(self) -> None:
        """The oldest SSUBSCRIBE takes effect and is answered."""
        channel, listener, future = self.asked.popleft()
        self.subscribed[channel] = listener
        if not future.done():
            future.set_result(None)

    def serve(self) -> None:
        """The server executes the oldest read that it has not; the answer is on its way."""
        for question in self.reads:
            if not question.served:
                publisher = self.tasks.get(question.task_id)
                question.served = True
                question.snapshot = publisher.snapshot(question.since) if publisher and publisher.seq else None
                return

    def reply(self) -> None:
        """The oldest answer arrives."""
        question = self.reads.popleft()
        if not question.answer.done():
            question.answer.set_result(question.snapshot)

    def fail(self) -> None:
        """The oldest read fails."""
        question = self.reads.popleft()
        if not question.answer.done():
            question.answer.set_exception(redis.ConnectionError("away"))

    def publish(self, task_id: str, envelope: Envelope) -> None:
        """SPUBLISH: only who is subscribed at this moment will hear it."""
        if self.up and keys.of(task_id).channel in self.subscribed:
            self.channel.append((task_id, envelope))

    def deliver(self) -> None:
        """The oldest message arrives."""
        task_id, envelope = self.channel.popleft()
        listener = self.subscribed.get(keys.of(task_id).channel)
        if listener is not None:
            listener.received(payload_of(envelope))
            self.connections.turned()

    def cut(self) -> None:
        """The link breaks: what is on its way is lost."""
        self.up = False
        self.channel.clear()

    def mend(self) -> None:
        """The link is back, and every listener is told."""
        self.up = True
        for listener in list(self.subscribed.values()):
            listener.restored()


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(8):
        await asyncio.sleep(0)
