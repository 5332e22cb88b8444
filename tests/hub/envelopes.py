"""Events as they travel on a channel, made by hand: a publisher with the store's rules and none of its servers."""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
from collections.abc import Callable, Coroutine
from typing import Any

from headway.events import Cursor, Envelope, State, decode
from headway.store import Snapshot
from hub.mailbox import Mailbox
from hub.message import Message

EPOCH = 1763650000000


class Publisher:
    """One task's life, and what the store knows of it."""

    def __init__(self, task_id: str = "t1", epoch: int = EPOCH, *, replay: int = 1_000) -> None:
        self.task_id = task_id
        self.epoch = epoch
        self.seq = 0
        self.kept = 0
        self.state = State.PENDING
        self.replay = replay
        self.log: list[Envelope] = []
        self._rest = b""

    def progress(self, percent: float = 0.0) -> Envelope:
        """The next progress event."""
        return self._publish("p", "progress", State.PROGRESS, percent)

    def said(self, text: str = "a line") -> Envelope:
        """The next log line; the state stays what it was."""
        return self._publish("l", "log", self.state, None, level="info", message=text)

    def became(self, state: State) -> Envelope:
        """The next change of state."""
        extra = {"result": {"rows": 3}} if state is State.SUCCESS else {}
        return self._publish("t" if state.terminal else "s", "state", state, 100.0 if extra else None, **extra)

    def snapshot(self, since: Cursor | None = None) -> Snapshot:
        """What the store answers."""
        missed = []
        if since is not None and since.epoch == self.epoch:
            missed = [envelope for envelope in self.log[-self.replay :] if envelope.seq > since.seq]
        recovered = False
        if since is not None and since.epoch == self.epoch and since.seq <= self.seq:
            recovered = missed[0].prev <= since.seq if missed else self.kept <= since.seq
        return Snapshot(self.epoch, self.seq, self.kept, self.state, self._rest, missed, recovered)

    @property
    def cursor(self) -> Cursor:
        """Where the task stands."""
        return Cursor(self.epoch, self.seq)

    def _publish(self, kind: str, type_: str, state: State, percent: float | None, **extra: Any) -> Envelope:
        self.seq += 1
        head = {"v": 1, "type": type_, "task_id": self.task_id, "cursor": f"{self.epoch}-{self.seq}"}
        rest = {"attempt": 1, "state": state.value, "current": self.seq, "total": None, "unit": None, "stage": None}
        rest |= {"percent": percent, "message": None, "rate": None, "eta": None, "stalled": False, "ts": 1.0} | extra
        data = json.dumps(head | {"seq": self.seq, "prev": self.kept} | rest, separators=(",", ":")).encode()
        envelope = Envelope(kind, self.epoch, self.seq, self.kept, data)
        if kind != "l" or not self._rest:
            self._rest = json.dumps(rest, separators=(",", ":")).encode()[1:-1]
            self.state = state
        if kind != "p":
            self.kept = self.seq
            self.log.append(envelope)
        return envelope


def payload_of(envelope: Envelope) -> bytes:
    """As the publish script sends it."""
    kind, epoch, seq, prev, data = envelope
    return b"%s %d %d %d\n%s" % (kind.encode(), epoch, prev, seq, data)


def waiting(mailbox: Mailbox) -> list[Message]:
    """What is due now; empty if nothing is. Call it without a running loop."""

    async def take() -> list[Message]:
        taking = asyncio.ensure_future(mailbox.take())
        for _ in range(3):
            await asyncio.sleep(0)
        if taking.done():
            return taking.result()
        taking.cancel()
        return []

    return Clock.run(take)


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when nothing is left to do, and then at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        select = self._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None) -> Any:
            self.now += timeout or 0.0
            return select(0)

        self._selector.select = jump  # type: ignore[attr-defined]

    def time(self) -> float:
        """Seconds, as asyncio counts them."""
        return self.now

    @classmethod
    def run(cls, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run to the end, always on the same loop: a mailbox stays bound to its first one."""
        return _shared().run_until_complete(work())


@functools.cache
def _shared() -> Clock:
    loop = Clock()
    atexit.register(loop.close)
    return loop


class Watcher:
    """A client that believes nothing: it checks every message against the contract of DESIGN.md's events."""

    def __init__(self) -> None:
        self.mailbox = Mailbox()
        self.cursor: Cursor | None = None
        """Where it would resume."""
        self.kept: int | None = 0
        """The last state or log event it has seen; None while it cannot know."""
        self.state: dict[str, Any] = {}
        self.seen: list[tuple[int, int]] = []
        self.restarts = 0
        """How often it was told that it cannot know what it missed."""

    def read(self, messages: list[Message]) -> None:
        """Take messages in; AssertionError for a broken promise."""
        for message in messages:
            event = decode(message.data)
            cursor = Cursor.parse(event.cursor)
            if message.type == "snapshot":
                self._begin(event, cursor)
            else:
                self._go_on(message.type, event, cursor)
            if message.cursor is not None:
                assert message.cursor == cursor
                self.cursor = cursor
            # Missed events follow a snapshot that is newer than they are: they are history by then.
            if message.type == "snapshot" or (message.type != "log" and event.seq > self.state["seq"]):
                self.state = json.loads(message.data)

    def _begin(self, event: Any, cursor: Cursor) -> None:
        if event.recovered is True:
            assert self.cursor is None or cursor.epoch == self.cursor.epoch
            return  # what it missed follows, and is checked by its prev
        if event.recovered is False:
            self.restarts += 1
        self.kept = event.prev
        self.cursor = cursor

    def _go_on(self, kind: str, event: Any, cursor: Cursor) -> None:
        assert (cursor.epoch, cursor.seq) not in self.seen, "told twice"
        self.seen.append((cursor.epoch, cursor.seq))
        assert self.kept in (None, event.prev), "a state or log event is missing"
        if kind != "progress":
            self.kept = event.seq
