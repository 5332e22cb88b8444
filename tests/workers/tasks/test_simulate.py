"""simulate: time and failures as asked."""

from __future__ import annotations

import time

import pytest
from celery.exceptions import Retry

from workers.problems import BadArgument, SimulatedFailure
from workers.tasks.simulate import simulate


def attempt(retries: int, **args):
    """Run the body as its nth retry."""
    simulate.push_request(id="t", retries=retries, called_directly=False, is_eager=True)
    try:
        return simulate.run(**args)
    finally:
        simulate.pop_request()


def test_the_steps_take_the_time_asked_for():
    """All of it, and hardly more."""
    began = time.monotonic()
    assert simulate(steps=7, seconds=0.2)["steps"] == 7
    assert 0.2 <= time.monotonic() - began < 5


def test_it_fails_at_the_step_asked_for():
    """At once, not after all the seconds."""
    with pytest.raises(SimulatedFailure, match="Step 3 failed"):
        simulate(steps=1_000_000, seconds=0.5, fail_at=3)


def test_it_retries_until_the_failures_asked_for_are_over(monkeypatch):
    """Two failures, then it works."""
    monkeypatch.setattr(simulate, "retry", lambda **_: Retry("again"))
    args = {"steps": 3, "seconds": 0, "fail_at": 2, "fail_times": 2}
    for retries in (0, 1):
        with pytest.raises(Retry):
            attempt(retries, **args)
    assert attempt(2, **args)["steps"] == 3


def test_a_step_that_does_not_exist_cannot_fail():
    """A job that could never fail as asked is refused."""
    with pytest.raises(BadArgument, match="Step 4"):
        simulate(steps=3, seconds=0, fail_at=4)
