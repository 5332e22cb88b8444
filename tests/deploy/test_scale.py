"""Which processes go when their number is lowered; test_up.py does it on a real stack."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from deploy.rescale import departures
from deploy.scale import occupation
from deploy.server import free_port

# By the number that the process manager gave them, which is the order of their start here.
PROCESSES: Any = [SimpleNamespace(wid=wid, started=float(wid)) for wid in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("number", "idle", "busy", "gone"),
    [
        (2, [], [], [4, 3]),  # nobody knows, or a hub
        (3, [1, 2], [3, 4], [2]),
        (1, [1, 2], [3, 4], [2, 1, 4]),
        (2, [1], [4], [1, 3]),  # 2 and 3 said nothing: they are starting, or hard at work
        (4, [1], [], []),
        (5, [1], [], []),
    ],
)
def test_the_idle_go_first_and_the_busy_last(number: int, idle: list[int], busy: list[int], gone: list[int]) -> None:
    """And of those that are alike, the youngest."""
    assert [process.wid for process in departures(PROCESSES, number, idle, busy)] == gone


def test_without_a_broker_nobody_is_known_to_be_busy() -> None:
    """No exception, and no wait for a broker that may never come."""
    assert occupation(f"redis://127.0.0.1:{free_port()}/0", [1, 2]) == ([], [])
