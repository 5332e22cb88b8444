"""How figures are worded."""

from __future__ import annotations

from typing import Any

import pytest

from hub import card


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0, None, "0"),
        (1234567, "rows", "1,234,567"),
        (8.25, "rows", "8.2"),
        (812.6, "rows", "813"),
        (999, "bytes", "999 B"),
        (1824, "bytes", "1.8 kB"),
        (123_456_789, "bytes", "123 MB"),
        (5e15, "bytes", "5000 TB"),
    ],
)
def test_amounts(value: float, unit: str | None, words: str) -> None:
    """Thousands are separated, bytes are scaled, a decimal is there only where it says something."""
    assert card.amount(value, unit) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.71, "0.7 s"), (12.4, "12 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float, words: str) -> None:
    """Two units at most."""
    assert card.duration(seconds) == words


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"current": 0, "total": None, "unit": None}, ""),
        ({"current": 7, "total": None, "unit": "files"}, "7 files"),
        ({"current": 420, "total": 1000, "unit": "rows"}, "420 of 1,000 rows"),
        ({"current": 1_200_000, "total": 4_000_000, "unit": "bytes"}, "1.2 MB of 4.0 MB"),
        ({"current": 3, "total": 4, "unit": None}, "3 of 4"),
    ],
)
def test_counts(event: dict[str, Any], words: str) -> None:
    """Counted in the event's own unit; an unknown total is left out, not made up."""
    assert card.counted(event) == words


def test_long_values_are_cut() -> None:
    """A page is for reading."""
    assert len(card.plain(["x" * 300] * 9)) == 500


def test_a_waiting_job_has_no_pace() -> None:
    """The rate of a job that is not running is over."""
    known = {"state": "RETRY", "rate": 5.0, "eta": 3.0, "current": 5, "total": 10, "unit": "rows", "percent": 50.0}
    made = card.card("t", "import_csv", "a.csv", None, known)
    assert made.pace == ""
    assert "try again" in made.note
