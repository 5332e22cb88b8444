"""The line, fed by hand: parsing, dispatching and sending, without a server."""

from __future__ import annotations

import asyncio

import pytest
import redis

from hub.line import PIECE, Line, command


class Wire(asyncio.WriteTransport):
    """A transport that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.aborted = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


class Office:
    """Whoever sits at the end of a line, with one listener for the channel `a`."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.answers: list[object] = []
        self.wire = Wire()
        self.hears = {b"a": self.heard.append}
        self.turns: list[int] = []
        self.line = Line(self.wire, self.hears, self.answers.append, lambda: self.turns.append(len(self.heard)))


@pytest.fixture
async def office() -> Office:
    """A fresh line; it needs a running loop."""
    return Office()


def message(channel: bytes, payload: bytes) -> bytes:
    """As the server sends it: an array of strings, like a command."""
    return command(b"smessage", channel, payload)


async def test_a_stream_may_be_cut_anywhere(office: Office) -> None:
    """Where one chunk ends and the next begins makes no difference."""
    stream = message(b"a", b"one") + b"+PONG\r\n" + message(b"a", b"") + message(b"a", b"\r\n$3\r\n")
    for cut in range(len(stream) + 1):
        office.heard.clear()
        office.line.data_received(stream[:cut])
        office.line.data_received(stream[cut:])
        assert office.heard == [b"one", b"", b"\r\n$3\r\n"]
    assert office.answers == [b"PONG"] * (len(stream) + 1)


async def test_a_large_chunk_is_heard_whole_and_in_order(office: Office) -> None:
    """Also messages that are longer than what the parser is given at once."""
    payloads = [b"%d" % number * size for number, size in enumerate([1, 200, PIECE, 3 * PIECE, 7, 60 * 1024] * 3)]
    office.line.data_received(b"".join(message(b"a", payload) for payload in payloads))
    assert office.heard == payloads


async def test_a_turn_ends_when_all_has_been_heard(office: Office) -> None:
    """Once for what came at once, however many messages that were."""
    office.line.data_received(message(b"a", b"1") + message(b"a", b"2"))
    office.line.data_received(message(b"a", b"3"))
    assert office.turns == [2, 3]


async def test_what_was_heard_before_a_failure_is_not_held_back(office: Office) -> None:
    """The line ends, and its last messages are delivered all the same."""
    office.line.data_received(message(b"a", b"1") + b"nonsense\r\n")
    assert office.turns == [1]
    assert office.wire.aborted


async def test_a_message_for_nobody_is_dropped(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    """It was on its way when the last listener left: that is no error."""
    office.line.data_received(message(b"b", b"late") + message(b"a", b"x"))
    assert (office.heard, caplog.text) == ([b"x"], "")


async def test_a_failing_listener_loses_only_its_message(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    """The next message of the same chunk is heard; also when what failed was a look into a dictionary."""

    def fail(payload: bytes) -> None:
        raise KeyError(payload)

    office.hears[b"b"] = fail
    office.line.data_received(message(b"b", b"x") + message(b"a", b"y"))
    assert office.heard == [b"y"]
    assert "a listener failed" in caplog.text
    assert not office.wire.aborted


async def test_nothing_is_heard_behind_nonsense(office: Office) -> None:
    """The line is cut there, and says why once the transport is closed."""
    office.line.data_received(message(b"a", b"x") + b"nonsense\r\n" + message(b"a", b"y") * PIECE)
    assert (office.heard, office.wire.aborted) == ([b"x"], True)
    office.line.connection_lost(None)
    assert isinstance(await office.line.lost, redis.InvalidResponse)


async def test_errors_are_answers(office: Office) -> None:
    """Whoever asked decides what an error means."""
    office.line.data_received(b"-MOVED 1 elsewhere\r\n")
    [answer] = office.answers
    assert isinstance(answer, redis.ResponseError)
    assert str(answer) == "MOVED 1 elsewhere"


async def test_the_commands_of_a_turn_leave_in_one_write(office: Office) -> None:
    """Ten thousand subscriptions are not ten thousand system calls."""
    commands = [command(b"SSUBSCRIBE", b"%d" % number) for number in range(10_000)]
    for one in commands:
        office.line.send(one)
    await asyncio.sleep(0)
    assert office.wire.writes == [b"".join(commands)]


async def test_commands_wait_for_a_server_that_does_not_read(office: Office) -> None:
    """While writing is paused nothing is piled up in the transport; then all leave, in their order."""
    office.line.pause_writing()
    for turn in (b"1", b"2"):
        office.line.send(turn)
        await asyncio.sleep(0)
    assert office.wire.writes == []
    office.line.resume_writing()
    office.line.send(b"3")
    await asyncio.sleep(0)
    assert office.wire.writes == [b"12", b"3"]


async def test_nothing_is_written_to_a_closed_transport(office: Office) -> None:
    """A loop may take that for a mistake."""
    office.line.send(b"late")
    office.line.eof_received()
    await asyncio.sleep(0)
    assert office.wire.writes == []
