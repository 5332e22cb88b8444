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


def attempts(*given: tuple[str | None, float | None]) -> str:
    """How these attempts (state and end of each) are worded."""
    listed = [{"attempt": n, "state": state, "finished_at": end} for n, (state, end) in enumerate(given, 1)]
    made = card.card("t", "import_csv", "a.csv", None, {"state": "PROGRESS", "attempts": listed})
    (fact,) = [fact for fact in made.facts if fact.key == "attempts"]
    assert isinstance(fact.value, list)
    return ", ".join(f"{number} {fate}" for number, fate in fact.value)


def test_only_the_newest_attempt_runs() -> None:
    """One that never said its end was handed over to the next."""
    assert attempts((None, None)) == "1 running"
    assert attempts(("RETRY", 5.0), (None, None)) == "1 RETRY, 2 running"
    assert attempts((None, 5.0), (None, None)) == "1 handed over, 2 running"
    assert attempts((None, None), (None, None)) == "1 handed over, 2 running"
    assert attempts((None, 5.0)) == "1 handed over"


def test_a_runtime_of_nothing_is_shown() -> None:
    """A job that has just started has run for 0.0 s."""
    made = card.card("t", "import_csv", "a.csv", None, {"state": "STARTED", "runtime": 0.0, "worker": None})
    assert [(fact.key, fact.value) for fact in made.facts] == [("runtime", "0.0 s")]
