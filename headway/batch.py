"""One script for many who ask at the same time: the questions of one turn of the event loop share a round trip.

Taking a connection from redis-py's pool, sending and giving it back costs five times what the question itself costs.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis.asyncio
from redis.exceptions import NoScriptError

LARGEST = 100
"""Questions that share a round trip: their answers are in memory together."""


class _Question(NamedTuple):
    keys: Sequence[str]
    args: Sequence[str | bytes | float]
    answer: asyncio.Future[Any]


class Batch:
    """Runs one script. Nobody waits for another's turn: what is asked meanwhile goes over another connection."""

    def __init__(self, client: redis.asyncio.Redis, script: str) -> None:
        self._client = client
        self._script = script
        self._sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._asked: list[_Question] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, keys: Sequence[str], args: Sequence[str | bytes | float]) -> Any:
        """The script's answer; redis-py's errors. As with any script that only reads, it may be run twice."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._flush)
        self._asked.append(_Question(keys, args, answer))
        return await answer

    def _flush(self) -> None:
        asked, self._asked = self._asked, []
        for first in range(0, len(asked), LARGEST):
            task = asyncio.get_running_loop().create_task(self._send(asked[first : first + LARGEST]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, questions: list[_Question]) -> None:
        try:
            answers = await self._ask(questions)
            if any(isinstance(answer, NoScriptError) for answer in answers):
                await self._client.script_load(self._script)
                answers = await self._ask(questions)
        except asyncio.CancelledError:
            for question in questions:
                question.answer.cancel()
            raise
        except Exception as error:
            answers = [error] * len(questions)
        for question, answer in zip(questions, answers, strict=True):
            _settle(question.answer, answer)

    async def _ask(self, questions: list[_Question]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for keys, args, _ in questions:
                pipe.evalsha(self._sha, len(keys), *keys, *args)
            return await pipe.execute(raise_on_error=False)


def _settle(future: asyncio.Future[Any], answer: object) -> None:
    if future.done():
        return  # whoever asked has gone
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
