"""A thread's own connection for the one call that is made all the time.

Taking a connection from redis-py's pool and giving it back costs a third of the CPU of a published event. Connecting,
AUTH and TLS stay redis-py's business: the connection is one of the pool's kind, only not the pool's.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import NoScriptError, ResponseError

IDLE = 1.0
"""Seconds after which a connection is looked at before it is used: the server may have closed it meanwhile."""


class _Kept:
    """A connection that is closed at once when nobody keeps it: its thread has ended, or its lane is gone."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.pid = os.getpid()
        self.used = time.monotonic()

    def __del__(self) -> None:
        self.connection.disconnect()

    def refresh(self) -> None:
        """Let go of a connection that died while it was idle; the next use makes a new one."""
        if time.monotonic() - self.used > IDLE:
            try:
                stale = self.connection.can_read()  # there is nothing to read but the end
            except (redis.ConnectionError, redis.TimeoutError):
                stale = True
            if stale:
                self.connection.disconnect()


class Lane:
    """Runs one script, over a connection for each thread of each process."""

    def __init__(self, client: redis.Redis, script: str) -> None:
        self._pool: Any = client.connection_pool
        self._script = script
        self._sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._local = threading.local()

    def run(self, keys: Sequence[str], args: Sequence[str | bytes | float]) -> Any:
        """The script's answer; redis-py's errors. It never tries twice: who may repeat a call, knows."""
        try:
            return self._call("EVALSHA", self._sha, len(keys), *keys, *args)
        except NoScriptError:
            return self._call("EVAL", self._script, len(keys), *keys, *args)

    def _call(self, *words: str | bytes | float) -> Any:
        kept = self._kept()
        connection = kept.connection
        try:
            connection.send_command(*words)
            answer = connection.read_response()
        except ResponseError:
            raise  # an answer: the connection is as good as before
        except BaseException:
            connection.disconnect()  # what is still on its way must not be the answer to the next call
            raise
        kept.used = time.monotonic()
        return answer

    def _kept(self) -> _Kept:
        """This thread's connection. A forked child's is its own: its parent goes on to use the one it was born with."""
        kept: _Kept | None = getattr(self._local, "kept", None)
        if kept is None or kept.pid != os.getpid():
            kept = self._local.kept = _Kept(self._pool.connection_class(**self._pool.connection_kwargs))
        kept.refresh()
        return kept
