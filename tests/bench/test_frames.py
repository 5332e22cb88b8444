"""Walking over frames."""

from __future__ import annotations

import pytest

from bench.frames import TEXT, frames


def framed(payload: bytes, opcode: int = TEXT) -> bytes:
    """A frame as a server sends it (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65_536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_frame_of_any_size_is_walked_whole(size: int) -> None:
    """All three ways of writing a length."""
    data = framed(b"x" * size)
    assert frames(data) == ([(TEXT, len(data) - size, len(data))], len(data))


def test_frames_are_found_one_after_the_other() -> None:
    """With their opcodes."""
    first, ping, last = framed(b"one"), framed(b"?", 9), framed(b"two" * 100)
    found, walked = frames(first + ping + last)
    assert [opcode for opcode, _, _ in found] == [TEXT, 9, TEXT]
    assert walked == len(first + ping + last)


@pytest.mark.parametrize("size", [5, 300, 70_000])
def test_a_frame_that_is_not_all_there_waits(size: int) -> None:
    """Wherever it is cut, also within its head."""
    whole, cut = framed(b"a"), framed(b"b" * size)
    for end in {*range(10), len(cut) - 1} & set(range(len(cut))):
        found, walked = frames(whole + cut[:end])
        assert (len(found), walked) == (1, len(whole))
