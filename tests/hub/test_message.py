"""Messages: framed as any WebSocket library does it, and what was framed can be read again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from websockets.frames import Frame, Opcode

from headway.events import Cursor, State, decode
from hub.message import Message, answer, frame
from tests.hub.envelopes import Publisher


def framed(data: bytes) -> bytes:
    """As the websockets library frames a server's text."""
    return Frame(Opcode.TEXT, data).serialize(mask=False)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000])
def test_a_frame_of_any_size(size: int) -> None:
    """RFC 6455, 5.2: three ways to write a length, and each where it belongs."""
    data = b"x" * size
    assert frame(data) == framed(data)
    assert Message(type="log", frame=frame(data)).data == data


@given(st.binary(max_size=200), st.sampled_from([0, 65_400]))
def test_whatever_the_bytes(data: bytes, more: int) -> None:
    """None of them matters to the frame, and all come back."""
    data += bytes(more)
    assert frame(data) == framed(data)
    assert Message(type="log", frame=frame(data)).data == data


def test_an_event_is_framed_as_it_was_published() -> None:
    """Not one byte is written anew; what routes it says the same as what it says itself."""
    task = Publisher()
    task.said()
    for envelope in (task.progress(42.0), task.said("b"), task.became(State.SUCCESS)):
        message = Message.of("t1", envelope)
        event = decode(message.data)
        assert message.data == envelope.data
        assert (message.type, message.seq, message.prev) == (event.type, event.seq, event.prev)
        assert message.cursor == Cursor.parse(event.cursor)
        assert message.last == (event.state == "SUCCESS")


def test_a_snapshot_says_where_it_stands() -> None:
    """Its cursor in the message is the one in its text; it is the last one of a task that has ended."""
    task = Publisher()
    task.became(State.SUCCESS)
    for recovered in (None, True, False):
        present = task.snapshot()
        message = Message.snapshot("t1", task.cursor, present.kept, present.rest, recovered, ended=True)
        event = decode(message.data)
        assert (event.type, event.state, event.seq, event.prev) == ("snapshot", "SUCCESS", 1, 1)
        assert message.cursor == Cursor.parse(event.cursor) == task.cursor
        assert message.last
        assert getattr(event, "recovered", None) in (recovered, UNSET)


def test_an_answer_is_nowhere_to_resume_from() -> None:
    """It is no event of a task."""
    message = answer("error", code=4404, detail="no such task")
    assert message.data == b'{"type":"error","code":4404,"detail":"no such task"}'
    assert (message.cursor, message.task_id, message.last) == (None, "", False)
