"""Repeating and comparing: every figure is a median over rounds in which the contenders take turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

Measurement = Callable[[], float]


def medians(contenders: Mapping[str, Measurement], rounds: int) -> dict[str, float]:
    """Run all contenders once a round, one after the other, so that a drifting machine drifts for all of them."""
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for measure in contenders.values():
        measure()  # warm-up: imports, connections, caches
    for _ in range(rounds):
        for name, measure in contenders.items():
            figures[name].append(measure())
    return {name: statistics.median(values) for name, values in figures.items()}
