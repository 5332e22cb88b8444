"""Many questions in one round trip, against a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis
import redis.asyncio

from headway import batch
from headway.batch import Batch

ECHO = "return {KEYS[1], ARGV[1]}"


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the shared server."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


async def test_each_gets_its_own_answer(client: redis.asyncio.Redis) -> None:
    """Also of more than go together."""
    echo = Batch(client, ECHO)
    count = 2 * batch.LARGEST + 1
    answers = await asyncio.gather(*(echo.run([f"k{number}"], [number]) for number in range(count)))
    assert answers == [[b"k%d" % number, b"%d" % number] for number in range(count)]


async def test_those_who_ask_at_once_share_a_round_trip(redis_url: str) -> None:
    """They need one connection, and no other may be made here."""
    async with redis.asyncio.Redis.from_url(redis_url, max_connections=1) as client:
        echo = Batch(client, ECHO)
        answers = await asyncio.gather(*(echo.run(["k"], [number]) for number in range(batch.LARGEST)))
    assert len(answers) == batch.LARGEST


async def test_a_server_that_has_lost_the_script_is_given_it(client: redis.asyncio.Redis) -> None:
    """After a restart or a SCRIPT FLUSH."""
    echo = Batch(client, ECHO)
    for _ in range(2):
        await client.script_flush()
        assert await echo.run(["k"], ["a"]) == [b"k", b"a"]


async def test_one_failure_is_nobody_elses(client: redis.asyncio.Redis) -> None:
    """A script's error is the answer to one question."""
    picky = Batch(client, "if ARGV[1] == 'bad' then return redis.error_reply('no') end return ARGV[1]")
    answers = await asyncio.gather(*(picky.run([], [word]) for word in ("a", "bad", "b")), return_exceptions=True)
    assert (answers[0], answers[2]) == (b"a", b"b")
    assert isinstance(answers[1], redis.ResponseError)


async def test_one_who_goes_takes_nobody_along(client: redis.asyncio.Redis) -> None:
    """The others are answered."""
    echo = Batch(client, ECHO)
    going, staying = (asyncio.create_task(echo.run(["k"], [word])) for word in ("a", "b"))
    await asyncio.sleep(0)
    going.cancel()
    assert await staying == [b"k", b"b"]
    assert going.cancelled()


async def test_a_server_that_is_away_is_told_to_all() -> None:
    """Nobody waits for ever."""
    async with redis.asyncio.Redis(host="127.0.0.1", port=1) as nowhere:
        echo = Batch(nowhere, ECHO)
        answers = await asyncio.gather(*(echo.run(["k"], ["a"]) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, redis.ConnectionError) for answer in answers)
