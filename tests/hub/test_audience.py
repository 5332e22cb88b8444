"""The audience of a room: one write a turn for each socket, whatever has come."""

from __future__ import annotations

from headway.events import State
from hub.audience import Audience
from hub.backlog import Backlog
from hub.mailbox import Mailbox
from hub.message import Message, frame
from hub.writer import CHUNK
from tests.hub.envelopes import Publisher, waiting

PRESENT = Message(type="snapshot", frame=frame(b"{}"), task_id="t1", epoch=1, seq=1)


class Wire(Backlog):
    """A socket that takes everything: its writes."""

    __slots__ = ("writes",)

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.through = self

    def write(self, frame: bytes, /) -> None:
        """One system call."""
        self.writes.append(frame)

    def push(self, message: Message) -> None:
        self.write(message.frame)

    def open(self, snapshot: Message, missed: object = ()) -> None:
        self.write(snapshot.frame)


def gathering() -> tuple[Audience, list[Audience]]:
    """An audience whose turn ends when the test says so."""
    news: list[Audience] = []
    return Audience(lambda: PRESENT, lambda call: call(), news.append), news


def test_what_comes_in_a_turn_leaves_in_one_write() -> None:
    """The same bytes for every socket, in order; the room is named once."""
    audience, news = gathering()
    wires = [Wire(), Wire()]
    for wire in wires:
        audience.let_in(wire, PRESENT)
    task = Publisher()
    messages = [Message.of("t1", envelope) for envelope in (task.progress(1), task.said(), task.progress(2))]
    for message in messages:
        audience.bring(message)
    assert news == [audience]
    audience.flush()
    audience.flush()
    for wire in wires:
        assert wire.writes == [PRESENT.frame, b"".join(message.frame for message in messages)]
    assert wires[0].writes[1] is wires[1].writes[1]


def test_who_fetches_gets_each_event() -> None:
    """A backlog takes messages and not bytes: it conflates what it may."""
    audience, _ = gathering()
    mailbox = Mailbox()
    audience.let_in(mailbox, PRESENT)
    task = Publisher()
    for envelope in (task.said(), task.progress(1), task.progress(2)):
        audience.bring(Message.of("t1", envelope))
    audience.flush()
    assert [message.seq for message in waiting(mailbox)] == [1, 1, 3]


def test_much_leaves_before_the_turn_ends() -> None:
    """Between two chunks a socket can say that it is enough."""
    audience, _ = gathering()
    wire = Wire()
    audience.let_in(wire, PRESENT)
    task = Publisher()
    for _ in range(20):
        audience.bring(Message.of("t1", task.said("x" * 4_000)))
    assert len(wire.writes) > 2
    assert all(len(written) < CHUNK + 8_000 for written in wire.writes)


def test_the_end_comes_after_all_else() -> None:
    """In a write of its own: it may close the socket."""
    audience, _ = gathering()
    wire = Wire()
    audience.let_in(wire, PRESENT)
    task = Publisher()
    events = [Message.of("t1", envelope) for envelope in (task.said(), task.said(), task.became(State.SUCCESS))]
    for message in events:
        audience.bring(message)
    audience.flush()
    assert wire.writes[1:] == [events[0].frame + events[1].frame, events[2].frame]


def test_who_knew_what_the_store_has_lost_begins_again() -> None:
    """Ahead before the store was asked, and of its answer: a snapshot. Who came later may just have asked later."""
    audience, _ = gathering()
    early, late = Wire(), Wire()
    future = Message(type="snapshot", frame=frame(b'{"seq":5}'), task_id="t1", epoch=1, seq=5)
    audience.let_in(early, future, ahead=True)
    audience.asked()
    audience.let_in(late, future, ahead=True)
    audience.answered((1, 3))
    assert early.writes == [future.frame, PRESENT.frame]
    assert late.writes == [future.frame]
