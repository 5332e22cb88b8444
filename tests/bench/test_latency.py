"""Latency buckets and percentiles."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from bench.latency import bucket, milliseconds, percentile


@pytest.mark.parametrize("seconds", [0.000_05, 0.001, 0.25, 3.0])
def test_a_latency_bucket_is_within_three_percent(seconds: float) -> None:
    """Of what went in."""
    assert milliseconds(bucket(seconds)) == pytest.approx(seconds * 1e3, rel=0.03)


@pytest.mark.parametrize("seconds", [0.0, -0.01])
def test_a_clock_that_went_back_is_no_latency(seconds: float) -> None:
    """The wall clock of a machine may be set."""
    assert bucket(seconds) == 0


def test_a_percentile_is_the_latency_of_the_slowest_within_it() -> None:
    """Ninety fast ones, ten slow ones."""
    latency = Counter({bucket(0.001): 90, bucket(0.1): 10})
    assert percentile(latency, 0.5) == pytest.approx(1.0, rel=0.03)
    assert percentile(latency, 0.9) == pytest.approx(1.0, rel=0.03)
    assert percentile(latency, 0.91) == pytest.approx(100.0, rel=0.03)


def test_nothing_has_no_percentile() -> None:
    """It is not 0."""
    assert math.isnan(percentile(Counter(), 0.5))
