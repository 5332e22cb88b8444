"""Latencies, counted in buckets: of a million of them no client keeps a list."""

from __future__ import annotations

import math
from collections import Counter

STEPS = 32
"""Buckets in each factor of e: 3 % apart."""


def bucket(seconds: float) -> int:
    """The latency bucket of a duration; `milliseconds()` is the way back."""
    return max(0, int(math.log(max(seconds * 1e6, 1.0)) * STEPS))


def milliseconds(index: int) -> float:
    """The middle of a bucket."""
    return math.exp((index + 0.5) / STEPS) / 1e3


def percentile(latency: Counter[int], share: float) -> float:
    """Milliseconds within which this share (0 to 1) of the latencies lies; NaN when there are none."""
    wanted, seen = share * latency.total(), 0
    for index in sorted(latency):
        seen += latency[index]
        if seen >= wanted:
            return milliseconds(index)
    return float("nan")
