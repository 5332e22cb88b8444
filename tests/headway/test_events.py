"""The events: cursors, envelopes, and JSON of whatever a task says."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.events import NOTE, Cursor, Envelope, Extra, Note, State, TaskEvent, decode, encode

EVENT = (
    b'{"v":1,"type":"progress","task_id":"t","cursor":"1763650000000-17","seq":17,"prev":9,"attempt":1,'
    b'"state":"PROGRESS","current":420,"total":1000,"unit":"rows","stage":null,"percent":42.0,'
    b'"message":"importing rows","rate":812.3,"eta":0.71,"stalled":false,"ts":1763650001.234,"new":[1]}'
)


@pytest.mark.parametrize("state", State)
def test_only_three_states_are_terminal(state: State) -> None:
    """SUCCESS, FAILURE and REVOKED end a task; RETRY does not."""
    assert state.terminal is (state in {"SUCCESS", "FAILURE", "REVOKED"})


@given(epoch=st.integers(0, 10**16 - 1), seq=st.integers(0, 10**16 - 1))
def test_a_cursor_reads_what_it_writes(epoch: int, seq: int) -> None:
    """`<epoch>-<seq>`, both ways."""
    cursor = Cursor(epoch, seq)
    assert str(cursor) == f"{epoch}-{seq}"
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "1", "1-", "-1", "1-2-3", "a-1", "1 -2", " 1-2", "1-2\n", "+1-2", "01-2", "1-02", "1_0-2", "1e3-2"),
        *("\u0661-\u0662", "9" * 17 + "-1", "1-" + "9" * 17, "1.0-2", "0x1-2", "1-2\x00", "x" * 10_000),
    ],
)
def test_a_malformed_cursor_is_refused(text: str) -> None:
    """The error says what a well-formed one looks like, and does not repeat a novel."""
    with pytest.raises(ValueError, match="expected <epoch>-<seq>, as in 1763650000000-17") as refusal:
        Cursor.parse(text)
    assert len(str(refusal.value)) < 400


def test_cursors_are_ordered_by_epoch_then_seq() -> None:
    """A later epoch is later, whatever its seq."""
    assert Cursor(1, 9) < Cursor(1, 10) < Cursor(2, 0)


def test_an_envelope_is_taken_apart() -> None:
    """Routing line, newline, JSON; newlines after the first belong to the JSON."""
    envelope = Envelope.parse(b'l 1763650000000 9 17\n{"a":\n1}')
    assert envelope == ("l", 1763650000000, 17, 9, b'{"a":\n1}')
    assert envelope.cursor == Cursor(1763650000000, 17)


@pytest.mark.parametrize(("kind", "kept", "terminal"), [("p", 0, 0), ("l", 1, 0), ("s", 1, 0), ("t", 1, 1)])
def test_the_kind_says_what_may_be_dropped(kind: str, kept: int, terminal: int) -> None:
    """Only progress may be conflated; only `t` ends a task."""
    envelope = Envelope.parse(f"{kind} 1 2 0\n{{}}".encode())
    assert (envelope.kept, envelope.terminal) == (bool(kept), bool(terminal))


@pytest.mark.parametrize(
    "payload", [b"", b"\n", b"p 1 2 3", b"x 1 2 3\n{}", b"p 1 2\n{}", b"p 1 2 3 4\n{}", b"p a 2 3\n{}", b"{}\n{}"]
)
def test_a_foreign_message_is_not_an_envelope(payload: bytes) -> None:
    """A channel is open to all: what is not ours is a ValueError."""
    with pytest.raises(ValueError, match=r"not an event|invalid literal"):
        Envelope.parse(payload)


def test_a_note_is_no_event() -> None:
    """It is told by its first letter, and taken apart like a routing line."""
    payload = b"n 1763650000000 17 2\n"
    assert payload.startswith(NOTE)
    assert Note.parse(payload) == Note(1763650000000, 17, 2)
    with pytest.raises(ValueError, match="not an event"):
        Envelope.parse(payload)


@pytest.mark.parametrize("payload", [b"n ", b"n 1 2", b"n 1 2 x\n", b"n 1 2 3 4\n"])
def test_a_foreign_message_is_not_a_note(payload: bytes) -> None:
    """As with events: a ValueError."""
    with pytest.raises(ValueError, match=r"not a note|invalid literal"):
        Note.parse(payload)


def test_an_event_is_read_and_unknown_fields_are_ignored() -> None:
    """The example of the contract, with a field of a later version."""
    event = decode(EVENT)
    assert (event.seq, event.percent, event.state) == (17, 42.0, State.PROGRESS)
    assert event.error is msgspec.UNSET


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b"[]", EVENT.replace(b'"seq":17', b'"seq":"17"')])
def test_what_is_not_an_event_is_a_value_error(data: bytes) -> None:
    """Syntax, missing fields and wrong types alike."""
    with pytest.raises(ValueError, match=r".+"):
        decode(data)


def test_an_event_cannot_be_changed() -> None:
    """Events are shared between readers."""
    event: TaskEvent = decode(EVENT)
    with pytest.raises(AttributeError):
        event.seq = 18  # type: ignore[misc]


class _Mute:
    def __str__(self) -> str:
        raise RuntimeError("no words")


class _Quirky:
    def __str__(self) -> str:
        return "half \udc80 pair"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        ("half \udc80 pair", "half ? pair"),
        ({"\udc80": {"\udcff", 1} - {1}}, {"?": ["?"]}),
        (_Quirky(), "half ? pair"),
        ([_Quirky(), 1, None, True, 1.5, b"\xff", ("\ud800",)], ["half ? pair", 1, None, True, 1.5, "/w==", ["?"]]),
        (Extra(reason="\udc80", result=msgspec.Raw(b"[1]")), {"reason": "?", "result": [1]}),
        (_Mute(), "<_Mute>"),
        (1j, "1j"),
        ({1}, [1]),
        ({(1, 2): 3}, {"(1, 2)": 3}),
        (2**70, 2**70),
    ],
)
def test_whatever_a_task_says_is_written_as_json(value: object, written: object) -> None:
    """A result or message that JSON cannot say must not fail the task that said it."""
    assert json.loads(encode(value)) == written


def test_a_value_that_contains_itself_is_left_out() -> None:
    """A note stands in its place."""
    endless: list[object] = []
    endless.append(endless)
    assert json.loads(encode(endless)) == {"omitted": "nested too deeply"}
