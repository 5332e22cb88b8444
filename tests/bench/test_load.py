"""The load clients, as processes."""

from __future__ import annotations

import pytest

from bench.load import shares


@pytest.mark.parametrize(("sockets", "processes"), [(10, 1), (10, 3), (10_000, 4), (2, 4)])
def test_every_socket_is_opened_by_one_process(sockets: int, processes: int) -> None:
    """None twice, none not at all."""
    opened = [number for first, count in shares(sockets, processes) for number in range(first, first + count)]
    assert opened == list(range(sockets))
