"""The heartbeat: everybody once a round, on one timer, and nothing when nobody is there."""

from __future__ import annotations

import asyncio

import pytest

from hub.beat import SECTORS, Beat
from tests.hub.envelopes import Clock


class Heart:
    """Remembers when it was called."""

    def __init__(self) -> None:
        self.beats: list[float] = []

    def beat(self) -> None:
        self.beats.append(asyncio.get_running_loop().time())


def test_once_a_round() -> None:
    """The first time after a whole round, then in equal intervals."""

    async def work() -> None:
        beat, heart = Beat(16.0), Heart()
        began = asyncio.get_running_loop().time()
        sector = beat.add(heart)
        await asyncio.sleep(16.5 * 3)
        assert [round(when - began) for when in heart.beats] == [16, 32, 48]
        beat.remove(heart, sector)

    Clock.run(work)


def test_who_has_left_is_not_called() -> None:
    """And when nobody is left, no timer runs; the next one starts it again."""

    async def work() -> None:
        beat, staying, leaving = Beat(16.0), Heart(), Heart()
        here, there = beat.add(staying), beat.add(leaving)
        beat.remove(leaving, there)
        await asyncio.sleep(20)
        assert (len(staying.beats), leaving.beats) == (1, [])
        beat.remove(staying, here)
        await asyncio.sleep(20)
        assert beat._timer is None  # noqa: SLF001
        here = beat.add(staying)
        await asyncio.sleep(20)
        assert len(staying.beats) == 2
        beat.remove(staying, here)

    Clock.run(work)


def test_members_may_leave_while_they_are_called() -> None:
    """A socket that is given up goes from the very round it was asked in."""

    async def work() -> None:
        beat = Beat(16.0)

        class Last(Heart):
            def beat(self) -> None:
                super().beat()
                for heart, sector in sectors.items():
                    beat.remove(heart, sector)

        sectors: dict[Heart, int] = {}
        for heart in (Last(), Last(), Last()):
            sectors[heart] = beat.add(heart)
        await asyncio.sleep(16 * 3 + 1)
        assert sum(len(heart.beats) for heart in sectors) >= 1
        assert all(len(heart.beats) <= 1 for heart in sectors)

    Clock.run(work)


def test_a_heart_that_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the round goes on."""

    async def work() -> None:
        class Broken(Heart):
            def beat(self) -> None:
                raise RuntimeError("broken")

        beat, hearts = Beat(16.0), [Broken(), Heart(), Broken(), Heart()]
        sectors = [beat.add(heart) for heart in hearts]
        await asyncio.sleep(16.5 * 2)
        assert [len(heart.beats) for heart in hearts] == [0, 2, 0, 2]
        for heart, sector in zip(hearts, sectors, strict=True):
            beat.remove(heart, sector)

    Clock.run(work)
    assert "a heartbeat failed" in caplog.text


def test_one_for_each_loop_and_interval() -> None:
    """All sockets of a server share it."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        assert Beat.of(loop, 12.0) is Beat.of(loop, 12.0)
        assert Beat.of(loop, 12.0) is not Beat.of(loop, 1.0)

    Clock.run(work)
    assert SECTORS > 1
