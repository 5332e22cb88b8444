"""What is made of the clients' answers."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from bench.client import bucket
from bench.load import percentile, shares


def test_a_percentile_is_the_latency_of_the_slowest_within_it() -> None:
    """Ninety fast ones, ten slow ones."""
    latency = Counter({bucket(0.001): 90, bucket(0.1): 10})
    assert percentile(latency, 0.5) == pytest.approx(1.0, rel=0.03)
    assert percentile(latency, 0.9) == pytest.approx(1.0, rel=0.03)
    assert percentile(latency, 0.91) == pytest.approx(100.0, rel=0.03)


def test_nothing_has_no_percentile() -> None:
    """It is not 0."""
    assert math.isnan(percentile(Counter(), 0.5))


@pytest.mark.parametrize(("sockets", "processes"), [(10, 1), (10, 3), (10_000, 4), (2, 4)])
def test_every_socket_is_opened_by_one_process(sockets: int, processes: int) -> None:
    """None twice, none not at all."""
    opened = [number for first, count in shares(sockets, processes) for number in range(first, first + count)]
    assert opened == list(range(sockets))
