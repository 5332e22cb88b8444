"""The feed of recent jobs: one subscription for all who follow it, there only while somebody does."""

from __future__ import annotations

import asyncio
import json

from headway import keys
from headway.events import State
from hub.feed import Feed
from hub.mailbox import Mailbox
from tests.hub.envelopes import Clock, Publisher, waiting
from tests.hub.fakes import Server, settle


def told(mailbox: Mailbox) -> list[str]:
    """The types of what is due."""
    return [message.type for message in waiting(mailbox)]


def test_followers_share_one_subscription() -> None:
    """Every feed channel once, however many follow; none when the last has gone."""

    async def work() -> None:
        server = Server(eager=True)
        feed, mailboxes = Feed(server), [Mailbox() for _ in range(5)]
        await asyncio.gather(*(feed.join(mailbox) for mailbox in mailboxes))
        assert sorted(server.subscribed) == sorted(keys.feeds())
        assert server.counts["subscribe"] == keys.PARTITIONS
        for mailbox in mailboxes:
            feed.leave(mailbox)
            feed.leave(mailbox)
        await settle()
        assert server.subscribed == {}

    Clock.run(work)


def test_one_who_gave_up_half_way_leaves_nothing() -> None:
    """Redis is away, the first follower goes: the channels go with it, and the next one follows as if first."""

    async def work() -> None:
        server = Server()
        feed, mailbox = Feed(server), Mailbox()
        joining = asyncio.ensure_future(feed.join(mailbox))
        await settle()
        server.acknowledge()
        joining.cancel()
        await settle()
        feed.leave(mailbox)
        await settle()
        assert server.subscribed == {}
        assert not server.asked
        server.eager = True
        await feed.join(mailbox)
        assert len(server.subscribed) == keys.PARTITIONS

    Clock.run(work)


def test_followers_hear_every_change_of_state_and_each_break_once() -> None:
    """A break tells 64 channels; the follower is told once that it may have missed something."""
    server, mailbox = Server(eager=True), Mailbox()
    feed = Feed(server)

    async def join() -> None:
        await feed.join(mailbox)
        envelope = Publisher().became(State.STARTED)
        feed.received(b"s %d 1 0\n%b" % (envelope.epoch, envelope.data))
        feed.received(b"garbage")
        server.cut()
        server.mend()
        await settle()

    Clock.run(join)
    messages = waiting(mailbox)
    assert [message.type for message in messages] == ["feed", "state", "feed"]
    assert [json.loads(message.data).get("recovered") for message in messages] == [True, None, False]
    assert told(mailbox) == []
