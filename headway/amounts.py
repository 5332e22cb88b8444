"""How far a task has come: nested stages, and the pace of the work. Pure arithmetic, no clock and no I/O."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable

from headway.events import Amount

Number = int | float

MAX_STAGES = 1_000
"""Stages one stage may have; a loop that opens a stage per item wants `track()`."""


class Stage:
    """A part of a task's work: counted itself, or divided into stages of which each has a share (`weight`)."""

    def __init__(self, name: str | None = None, weight: float = 1.0, parent: Stage | None = None) -> None:
        self.name = name
        self.weight = weight
        self.parent = parent
        self.current: Number = 0
        self.total: Number | None = None
        self.unit: str | None = None
        self.source: Callable[[], Number] | None = None
        """Where the count is read from while an iterator is tracked."""
        self.child: Stage | None = None
        self._given = 0.0
        self._done = 0.0
        self._opened = 0
        self._lock = threading.Lock()

    @property
    def innermost(self) -> Stage:
        """The open stage in which the work is."""
        stage = self
        while stage.child is not None:
            stage = stage.child
        return stage

    @property
    def path(self) -> str | None:
        """Names of the stages down to this one, `a/b`; None for the task as a whole."""
        names = []
        stage: Stage | None = self
        while stage is not None and stage.name is not None:
            names.append(stage.name)
            stage = stage.parent
        return "/".join(reversed(names)) or None

    def open(self, name: str, weight: float | None) -> Stage:
        """Begin a stage that has `weight` (a share in 0..1) of this one; by default all that is left."""
        with self._lock:
            if self.child is not None:
                raise ValueError(f"stage {name!r} cannot begin: stage {self.child.name!r} is still open")
            if self._opened >= MAX_STAGES:
                raise ValueError(f"stage {name!r} cannot begin: more than {MAX_STAGES} stages")
            left = max(0.0, 1.0 - self._given)
            share = left if weight is None else weight
            if not 0 <= share <= left + 1e-9:
                raise ValueError(f"stage {name!r} cannot have weight {share:g}: {left:g} of its parent is left")
            self._given += share
            self._opened += 1
            self.child = Stage(name, share, self)
            return self.child

    def close(self, child: Stage, *, complete: bool) -> None:
        """End a stage; a complete one counts with its whole weight, another one as far as it came."""
        with self._lock:
            if self.child is child:
                self._done += child.weight * (1.0 if complete else child.fraction or 0.0)
                self.child = None

    def count(self) -> Number:
        """How many units are done."""
        source = self.source
        return plain(self.current if source is None else source()) or 0

    def advance(self, number: Number) -> None:
        """Add to the count; safe from several threads."""
        with self._lock:
            self.current += number

    @property
    def fraction(self) -> float | None:
        """How much is done, 0 to 1; None when nobody can know."""
        # With the lock: a stage seen both as closed and as open would count twice, and percent never comes back down.
        with self._lock:
            if self._opened:
                open_part = self.child.weight * (self.child.fraction or 0.0) if self.child else 0.0
                return min(1.0, self._done + open_part)
        total = plain(self.total)
        if total is None or not total > 0:
            return None
        return min(1.0, max(0.0, self.count() / total))

    def amount(self) -> Amount:
        """What an event shows of this stage."""
        return Amount(self.count(), plain(self.total), self.unit, self.path)


def plain(value: object) -> Number | None:
    """A number of whatever kind (NumPy's, Decimal, …) as JSON knows it; None for what is not one, or not finite."""
    if type(value) is int and -_LARGEST <= value <= _LARGEST:
        return value
    try:
        whole = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        pass
    else:
        if -_LARGEST <= whole <= _LARGEST:
            return whole
    try:
        real = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return real if math.isfinite(real) else None


_LARGEST = 2**53
"""The integers that every reader of JSON knows exactly (RFC 8259, section 6)."""


def percent(fraction: float) -> float:
    """0-100 with two decimals, rounded down: 100 is said only of what is complete."""
    # The summand undoes the error of the product: 0.57 * 10_000 is 5699.999999999999.
    return 100.0 if fraction >= _COMPLETE else min(99.99, math.floor(fraction * 10_000 + 1e-6) / 100)


_COMPLETE = 1 - 1e-14
"""Ten stages of a tenth each add up to 0.9999999999999999."""


class Pace:
    """The speed of a growing number: an exponentially weighted mean over about `window` seconds."""

    def __init__(self, window: float = 5.0) -> None:
        self._window = window
        self._last: tuple[float, Number] | None = None
        self._mean = 0.0
        self._weight = 0.0

    def update(self, time: float, value: Number) -> float | None:
        """Take a sample at `time` (seconds); the speed per second, or None while there is nothing to tell it from."""
        if self._last is None or value < self._last[1]:  # the first sample, or the count was set back: begin again
            self._last, self._mean, self._weight = (time, value), 0.0, 0.0
            return None
        elapsed = time - self._last[0]
        if elapsed > 0:
            decay = math.exp(-elapsed / self._window)
            self._mean = self._mean * decay + (1 - decay) * (value - self._last[1]) / elapsed
            self._weight = self._weight * decay + (1 - decay)
            self._last = (time, value)
        # Divided by the weight seen so far: the mean is right from the second sample on, not after a window.
        return self._mean / self._weight if self._weight else None
