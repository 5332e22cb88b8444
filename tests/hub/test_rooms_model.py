"""Rooms and their manager against any order of what a network and a store can do to them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import redis
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headway.events import Cursor, State
from hub import audience, crowd
from hub.connections import LINGER
from hub.mailbox import Mailbox
from tests.hub.envelopes import Clock, Publisher, Watcher, waiting
from tests.hub.fakes import Server, settle


class Rooms(RuleBasedStateMachine):
    """One task, its watchers, and a Redis whose every step is a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.task = Publisher(replay=4)
        self.server = Server(self.task)
        self.watchers: list[Watcher] = []
        self.joining: dict[Watcher, asyncio.Task[None]] = {}
        self.gone: list[Watcher] = []
        self.rewound = False
        self.ended = False

    def run(self, *work: Any) -> None:
        """Call these, then let the manager go on."""

        async def go() -> None:
            for call in work:
                call()
            await settle()

        Clock.run(go)
        for watcher, joining in list(self.joining.items()):
            if joining.done():
                del self.joining[watcher]
                if not joining.cancelled() and joining.exception() is None:
                    self.watchers.append(watcher)
                else:
                    assert joining.cancelled() or isinstance(joining.exception(), redis.RedisError)

    @initialize()
    def begin(self) -> None:
        self.task.became(State.STARTED)

    @precondition(lambda self: not self.ended and not self.rewound)
    @rule(kind=st.sampled_from(["progress", "progress", "said", "retry", "end"]))
    def publish(self, kind: str) -> None:
        if kind == "end":
            self.ended = True
            envelope = self.task.became(State.SUCCESS)
        elif kind == "retry":
            envelope = self.task.became(State.RETRY)
        else:
            envelope = getattr(self.task, kind)()
        self.run(lambda: self.server.publish("t1", envelope))

    @precondition(lambda self: self.server.channel)
    @rule(times=st.integers(1, 5))
    def deliver(self, times: int) -> None:
        for _ in range(min(times, len(self.server.channel))):
            self.run(self.server.deliver)

    @precondition(lambda self: self.server.channel)
    @rule()
    def duplicate(self) -> None:
        self.server.channel.appendleft(self.server.channel[0])

    @precondition(lambda self: self.server.asked and self.server.up)
    @rule()
    def acknowledge(self) -> None:
        self.run(self.server.acknowledge)

    @precondition(lambda self: any(not question.served for question in self.server.reads))
    @rule()
    def serve(self) -> None:
        self.run(self.server.serve)

    @precondition(lambda self: self.server.reads and self.server.reads[0].served)
    @rule()
    def reply(self) -> None:
        self.run(self.server.reply)

    @precondition(lambda self: self.server.reads)
    @rule()
    def fail(self) -> None:
        self.run(self.server.fail)

    @precondition(lambda self: self.server.up)
    @rule()
    def cut(self) -> None:
        self.run(self.server.cut)

    @precondition(lambda self: not self.server.up)
    @rule()
    def mend(self) -> None:
        self.run(self.server.mend)

    @rule()
    def time_passes(self) -> None:
        Clock.run(lambda: asyncio.sleep(LINGER + 1))

    @rule(how=st.sampled_from(["fresh", "fresh", "start", "future", "other epoch"]))
    def join(self, how: str) -> None:
        watcher = Watcher()
        watcher.kept = None if how == "future" else 0  # a cursor that was made up comes true some day
        watcher.cursor = {
            "fresh": None,
            "start": Cursor(self.task.epoch, 0),
            "future": Cursor(self.task.epoch, self.task.seq + 3),
            "other epoch": Cursor(self.task.epoch - 7, 1),
        }[how]
        self.enter(watcher)

    @precondition(lambda self: self.gone)
    @rule(number=st.integers(0, 100))
    def come_back(self, number: int) -> None:
        self.enter(self.gone.pop(number % len(self.gone)))

    def enter(self, watcher: Watcher) -> None:
        watcher.mailbox = Mailbox()

        def start() -> None:
            work = self.server.connections.join("t1", watcher.mailbox, watcher.cursor)
            self.joining[watcher] = asyncio.ensure_future(work)

        self.run(start)

    @precondition(lambda self: self.joining)
    @rule(number=st.integers(0, 100))
    def give_up_joining(self, number: int) -> None:
        self.run(list(self.joining.values())[number % len(self.joining)].cancel)

    @precondition(lambda self: self.watchers)
    @rule(number=st.integers(0, 100))
    def leave(self, number: int) -> None:
        watcher = self.watchers.pop(number % len(self.watchers))
        watcher.read(waiting(watcher.mailbox))
        self.run(lambda: self.server.connections.leave("t1", watcher.mailbox))
        self.gone.append(watcher)

    @rule()
    def the_store_loses_the_task(self) -> None:
        """A new life begins with the next event; a restart has broken the link, too."""
        self.run(self.server.cut)
        lost = self.task
        self.task = self.server.tasks["t1"] = Publisher(epoch=lost.epoch + 10, replay=4)
        self.ended = self.rewound = False
        self.task.became(State.STARTED)

    @precondition(lambda self: self.task.seq > 1)
    @rule()
    def the_store_loses_the_last_second(self) -> None:
        """A crash of the machine: the same epoch, a smaller seq. Nobody publishes before the hubs are back."""
        self.run(self.server.cut)
        old = self.task
        self.task = self.server.tasks["t1"] = Publisher(epoch=old.epoch, replay=4)
        self.task.became(State.STARTED)
        self.rewound = True
        self.ended = False
        self.gone.clear()  # a cursor of lost events cannot be told from one of the events that take their place

    @invariant()
    def chains_are_unbroken(self) -> None:
        for watcher in self.watchers:
            watcher.read(waiting(watcher.mailbox))
        room = self.server.connections.rooms
        if self.rewound and self.server.up and not self.joining and not self.server.reads:
            self.rewound = False
        assert room <= 1

    def teardown(self) -> None:
        """Everything arrives at last: every watcher knows the newest state, and nothing is left running."""
        if not self.server.up:
            self.run(self.server.mend)
        for _ in range(50):
            if self.server.asked:
                self.run(self.server.acknowledge)
            self.run(self.server.serve)
            if self.server.reads:
                self.run(self.server.reply)
            if self.server.channel:
                self.run(self.server.deliver)
            Clock.run(lambda: asyncio.sleep(0.5))
        assert not self.joining
        for watcher in self.watchers:
            watcher.read(waiting(watcher.mailbox))
            newest = json.loads(b"{%b}" % self.task.snapshot().rest)
            assert watcher.kept in (None, self.task.kept)
            assert {name: watcher.state[name] for name in newest} == newest
            self.run(lambda watcher=watcher: self.server.connections.leave("t1", watcher.mailbox))
        Clock.run(lambda: asyncio.sleep(LINGER + 1))
        assert self.server.connections.rooms == 0
        assert self.server.subscribed == {}
        assert not self.server.connections._tasks  # noqa: SLF001  # nothing is left running
        Clock.run(self.server.connections.aclose)


class Crowds(Rooms):
    """The same, with every watcher a slice of its own: joins and ends fall between two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for module in (crowd, audience):
            self.patch.setattr(module, "SLICE", 1)

    def teardown(self) -> None:
        super().teardown()
        self.patch.undo()


Rooms.TestCase.settings = Crowds.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.reuse, Phase.generate],  # the steps of a failure are readable as they are; shrinking takes minutes
)
test_rooms = Rooms.TestCase
test_crowds = Crowds.TestCase
