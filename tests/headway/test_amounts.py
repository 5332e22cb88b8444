"""The arithmetic of bars: nested stages, percent and pace."""

from __future__ import annotations

import itertools
import math
import threading
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.amounts import MAX_STAGES, Pace, Stage, percent, plain
from headway.events import Amount


class Index:
    """An integer of a foreign kind, as NumPy's are."""

    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize(("current", "total", "fraction"), [(0, 10, 0), (5, 10, 0.5), (11, 10, 1), (-1, 10, 0)])
def test_the_fraction_lies_between_0_and_1(current: int, total: int, fraction: float) -> None:
    """Whatever was counted."""
    stage = Stage()
    stage.current, stage.total = current, total
    assert stage.fraction == fraction


@pytest.mark.parametrize("total", [None, 0, -3, math.nan])
def test_without_a_total_nobody_knows(total: float | None) -> None:
    """There is a count, and no fraction."""
    stage = Stage()
    stage.current, stage.total = 5, total
    assert stage.fraction is None
    assert stage.amount().current == 5


def test_a_stage_has_the_rest_by_default() -> None:
    """Its weight is all that is left of its parent."""
    root = Stage()
    root.close(root.open("a", 0.25), complete=True)
    rest = root.open("b", None)
    assert rest.weight == 0.75
    rest.total, rest.current = 10, 5
    assert root.fraction == 0.25 + 0.75 / 2


def test_nested_stages_multiply() -> None:
    """A half of a half is a quarter."""
    root = Stage()
    inner = root.open("a", 0.5).open("b", 0.5)
    inner.current = inner.total = 3
    assert root.fraction == 0.25
    assert (root.innermost, inner.path) == (inner, "a/b")


@pytest.mark.parametrize(("complete", "fraction"), [(True, 0.5), (False, 0.1)])
def test_a_broken_off_stage_counts_as_far_as_it_came(complete: bool, fraction: float) -> None:
    """A complete one counts whole, also if it never counted."""
    root = Stage()
    child = root.open("a", 0.5)
    child.current, child.total = 1, 5
    root.close(child, complete=complete)
    assert root.fraction == pytest.approx(fraction)


def test_a_stage_closes_once() -> None:
    """Closing it again, or after another has opened, changes nothing."""
    root = Stage()
    first = root.open("a", 0.5)
    root.close(first, complete=True)
    second = root.open("b", 0.5)
    root.close(first, complete=True)
    assert root.child is second
    assert root.fraction == 0.5


@pytest.mark.parametrize("weight", [-0.1, 0.6, 2, math.nan, math.inf])
def test_a_stage_cannot_take_what_is_not_left(weight: float) -> None:
    """The shares of a bar add up to one bar."""
    root = Stage()
    root.close(root.open("a", 0.5), complete=True)
    with pytest.raises(ValueError, match="'b' cannot have weight"):
        root.open("b", weight)


def test_only_one_stage_is_open() -> None:
    """Two at once in one parent would be two bars."""
    root = Stage()
    root.open("a", 0.5)
    with pytest.raises(ValueError, match="'a' is still open"):
        root.open("b", 0.5)


def test_a_parent_has_a_bounded_number_of_stages() -> None:
    """A loop that opens a stage per item wants `track()`."""
    root = Stage()
    for _ in range(MAX_STAGES):
        root.close(root.open("a", 0.0), complete=True)
    with pytest.raises(ValueError, match="more than 1000 stages"):
        root.open("b", 0.0)


@st.composite
def shares(draw: st.DrawFn) -> list[float]:
    """Weights that add up to at most 1."""
    parts = draw(st.lists(st.integers(0, 100), min_size=1, max_size=8))
    whole = sum(parts) + draw(st.integers(0, 100)) or 1
    return [part / whole for part in parts]


def work(stage: Stage, plan: list[Any], seen: list[float], root: Stage) -> None:
    """Do the plan (a list of weight, steps or inner plan, whether it completes), noting the root's fraction."""
    for weight, part, complete in plan:
        child = stage.open("x", weight)
        if isinstance(part, list):
            work(child, part, seen, root)
        else:
            child.total = part
            for _ in range(part):
                child.advance(1)
                seen.append(root.fraction or 0.0)
        stage.close(child, complete=complete)
        seen.append(root.fraction or 0.0)


@st.composite
def plans(draw: st.DrawFn, depth: int = 3) -> list[Any]:
    """Stages within stages."""
    part = st.integers(0, 5) | plans(depth - 1) if depth else st.integers(0, 5)
    return [(weight, draw(part), draw(st.booleans())) for weight in draw(shares())]


@given(plans())
def test_the_bar_only_grows(plan: list[Any]) -> None:
    """However stages are nested, weighted, and broken off; and it never passes its end."""
    seen: list[float] = [0.0]
    root = Stage()
    work(root, plan, seen, root)
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(seen))
    assert min(seen) >= 0
    assert max(seen) <= 1


def test_a_closing_stage_is_never_counted_twice() -> None:
    """The sampler reads in the middle of everything."""
    root = Stage()
    worst: list[float] = []
    done = threading.Event()

    def sample() -> None:
        while not done.is_set():
            worst.append(root.fraction or 0.0)

    sampler = threading.Thread(target=sample)
    sampler.start()
    highest = 0.0
    for number in range(1, MAX_STAGES + 1):
        child = root.open("x", 0.5 / MAX_STAGES)
        child.current = child.total = 1
        root.close(child, complete=True)
        highest = number * 0.5 / MAX_STAGES
    done.set()
    sampler.join()
    assert max(worst) <= highest + 1e-9
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(worst))


def test_threads_count_together() -> None:
    """No unit is lost."""
    stage = Stage()

    def count() -> None:
        for _ in range(10_000):
            stage.advance(1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stage.count() == 40_000


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_percent_is_rounded_down(total: int, current: int) -> None:
    """To two decimals of the exact value; 100 is said only of what is complete."""
    current = min(current, total)
    exact = math.floor(Fraction(current, total) * 10_000)
    assert percent(current / total) == exact / 100
    assert (percent(current / total) == 100) is (current == total)


def test_ten_tenths_are_a_whole() -> None:
    """Although they add up to 0.9999999999999999."""
    root = Stage()
    for _ in range(10):
        root.close(root.open("x", 0.1), complete=True)
    assert percent(root.fraction or 0) == 100


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (True, 1),
        (Index(), 7),
        (Decimal("1.5"), 1.5),
        (Fraction(1, 2), 0.5),
        (10**15, 10**15),
        (10**17, 1e17),
        (10**400, None),
        (math.nan, None),
        (math.inf, None),
        (None, None),
        ("many", None),
        (object(), None),
    ],
)
def test_a_number_of_any_kind_is_a_plain_one(value: object, number: float | None) -> None:
    """Or none: readers get numbers they can read."""
    result = plain(value)
    assert result == number
    assert type(result) in (int, float, type(None))


def test_an_amount_is_always_readable() -> None:
    """A count that is no number is 0, a total that is none is unknown."""
    stage = Stage()
    stage.current, stage.total = math.nan, math.inf
    assert stage.amount() == Amount(0, None)
    assert stage.fraction is None


def test_pace_needs_two_samples() -> None:
    """One says nothing about speed."""
    pace = Pace()
    assert pace.update(0.0, 0) is None
    assert pace.update(1.0, 10) == pytest.approx(10)


@given(st.floats(0.1, 1000), st.lists(st.floats(0.01, 10), min_size=1, max_size=50))
def test_the_pace_of_steady_work_is_its_speed(speed: float, gaps: list[float]) -> None:
    """From the second sample on, however irregular the samples."""
    pace, now = Pace(), 0.0
    pace.update(now, 0.0)
    for gap in gaps:
        now += gap
        assert pace.update(now, speed * now) == pytest.approx(speed, rel=1e-6)


@given(st.lists(st.tuples(st.just(0.0) | st.floats(0.001, 10), st.floats(-100, 100)), max_size=50))
def test_pace_is_never_negative(steps: list[tuple[float, float]]) -> None:
    """Also when the count is set back or the clock stands still."""
    pace, now, value = Pace(), 0.0, 0.0
    for gap, change in steps:
        now, value = now + gap, value + change
        speed = pace.update(now, value)
        assert speed is None or (speed >= 0 and math.isfinite(speed))


def test_pace_follows_a_change() -> None:
    """After three windows little is left of the old speed."""
    pace = Pace(window=1.0)
    for tick in range(11):
        pace.update(tick / 10, tick * 10)
    for tick in range(31):
        speed = pace.update(1 + tick / 10, 100 + tick)
    assert speed == pytest.approx(10, rel=0.6)


def test_a_count_set_back_begins_the_pace_again() -> None:
    """Speed is not negative."""
    pace = Pace()
    pace.update(0.0, 100)
    pace.update(1.0, 200)
    assert pace.update(2.0, 0) is None
    assert pace.update(3.0, 5) == pytest.approx(5)
