"""Claims and leases in the store: which delivery of a task may run, and for how long nobody else may.

The worker's side of it is `headway.celery.claims`.
"""

from __future__ import annotations

from collections.abc import Mapping

import redis

from headway import keys
from headway.store import KEEP, REFUSALS, Refused, Retention, source


class Spare(Refused):
    """Another delivery of this task runs, and one more waits for its end already: this one is not needed."""


class Held(Refused):
    """Another delivery of this task runs, or did a moment ago: its lease ends in `seconds` unless it is renewed.

    This message is to be sent again for then.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"held for another {seconds:.1f} s")
        self.seconds = seconds


class Leases:
    """The leases of all tasks. `client` must not decode responses."""

    def __init__(self, client: redis.Redis, retention: Retention = KEEP) -> None:
        self._client = client
        self._retention = retention
        self._claim = client.register_script(source("claim"))
        self._renew = client.register_script(source("renew"))

    def claim(self, task_id: str, generation: int, token: str, lease: float, attempt: int | str = "") -> int:
        """Begin the next attempt and hold the task for `lease` seconds; returns the attempt.

        `token` names this delivery, so that a call whose reply was lost may be repeated. `attempt` is for one that runs
        already and whose claim the store has lost. Raises `Finished`, `Superseded` (the message is of an older
        generation than the task, or somebody has claimed it since), `Held` or `Spare`.
        """
        args: list[str | int] = [generation, token, round(lease * 1000), self._retention.live, attempt]
        reply = self._claim(keys=[keys.of(task_id).task], args=args)
        if int(reply[0]) > 0:
            return int(reply[0])
        if reply[1] == b"held":
            raise Held(int(reply[2]) / 1000)
        refusal = Spare if reply[1] == b"spare" else REFUSALS[reply[1]]
        raise refusal(reply[1].decode())

    def renew(self, tokens: Mapping[str, str], lease: float) -> set[str]:
        """Hold tasks (id → token) for another `lease` seconds, 0 to give them up; the ids that are no longer held."""
        with self._client.pipeline(transaction=False) as pipe:
            for task_id, token in tokens.items():
                self._renew(keys=[keys.of(task_id).task], args=[token, round(lease * 1000)], client=pipe)
            replies = pipe.execute()
        return {task_id for task_id, reply in zip(tokens, replies, strict=True) if not reply}
