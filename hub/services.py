"""What the endpoints share: one of each a process, made by `hub.app` and found in `app.state.services`."""

from __future__ import annotations

import asyncio
import dataclasses

from headway.storage import Storage
from headway.store import AsyncStore
from hub.broker import Broker
from hub.connections import Connections
from hub.feed import Feed
from hub.history import Jobs
from hub.mailbox import Mailbox
from hub.settings import Settings


@dataclasses.dataclass
class Services:
    """The parts of a running hub."""

    settings: Settings
    store: AsyncStore
    connections: Connections
    feed: Feed
    jobs: Jobs
    broker: Broker
    storage: Storage
    sockets: int = 0
    """WebSockets open on this process."""
    polls: set[Mailbox] = dataclasses.field(default_factory=set)
    """Requests that wait for news of a task."""
    reads: dict[str, asyncio.Task[None]] = dataclasses.field(default_factory=dict)
    """Watched tasks whose record is being read for polls."""

    def farewell(self) -> None:
        """The process is about to end: nobody waits any longer."""
        for mailbox in self.polls:
            mailbox.close(1001, "the hub goes away")
