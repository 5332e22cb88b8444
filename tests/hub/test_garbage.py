"""The collector: measured, and with little to do."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from hub import garbage


@pytest.fixture
def pauses() -> Iterator[garbage.Pauses]:
    """A tamed collector, which is let loose again."""
    thresholds = gc.get_threshold()
    pauses = garbage.tame()
    yield pauses
    gc.set_threshold(*thresholds)
    gc.callbacks.remove(pauses)
    gc.unfreeze()


def test_what_is_there_is_not_looked_at_again(pauses: garbage.Pauses) -> None:
    """Nearly nothing is left to collect, however large the program is."""
    assert gc.get_freeze_count() > 10_000
    assert len(gc.get_objects()) < 5_000


def test_pauses_are_counted(pauses: garbage.Pauses) -> None:
    """Each collection, and the longest."""
    before = pauses.count
    gc.collect()
    assert pauses.count == before + 1
    assert pauses.longest > 0
    with capture_logs() as logs:
        pauses.tell()
    assert logs == [
        {
            "event": "garbage collections",
            "log_level": "info",
            "count": pauses.count,
            "longest_ms": round(pauses.longest * 1e3, 2),
        }
    ]


def test_a_long_pause_is_told(pauses: garbage.Pauses, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the generation, as it happens."""
    monkeypatch.setattr(garbage, "LONG", 0.0)
    with capture_logs() as logs:
        gc.collect()
    assert logs[0]["event"] == "garbage collection"
    assert logs[0]["generation"] == 2
