"""WebSocket frames, as a server sends them (RFC 6455, 5.2)."""

from __future__ import annotations

TEXT, CLOSE, PING = 1, 8, 9
"""Opcodes."""


def frames(data: bytes) -> tuple[list[tuple[int, int, int]], int]:
    """The whole frames in what a server sent: (opcode, begin, end of payload) each, and how many bytes they take."""
    found = []
    offset, size = 0, len(data)
    while size - offset >= 2:
        length, head = data[offset + 1], 2  # a server does not mask
        if length == 126:
            if size - offset < 4:
                break
            length, head = data[offset + 2] << 8 | data[offset + 3], 4
        elif length == 127:
            if size - offset < 10:
                break
            length, head = int.from_bytes(data[offset + 2 : offset + 10], "big"), 10
        end = offset + head + length
        if end > size:
            break
        found.append((data[offset] & 15, offset + head, end))
        offset = end
    return found, offset
