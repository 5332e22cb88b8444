"""The store: the atomic operations on a task's state, over the Lua scripts in `scripts/`.

Two faces over the same scripts: `Store` for workers, which publish synchronously, and `AsyncStore` for the hub.
Both take a redis-py client that the caller configures (timeouts, TLS, pool) and owns.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple, cast

import msgspec
import redis
import redis.asyncio
from msgspec import UNSET

from headway import keys
from headway.batch import Batch
from headway.events import Amount, Cursor, Envelope, Extra, Report, State, encode
from headway.lane import Lane

DAY = 86_400

MAX_CHILDREN = 1_000
"""Tasks that a task's resource names as its children."""


Details = Mapping[str, str | bytes | float]
"""Fields of the task resource besides the newest event."""


class Retention(NamedTuple):
    """How long, and how much of it, the store keeps a task."""

    live: int = 30 * DAY
    """Seconds after the last `state` or `log` event of a task that has not ended."""
    ended: int = DAY
    """Seconds after the end."""
    replay: int = 1_000
    """`state` and `log` events of a task, about."""
    journal: int = 10_000
    """Events of a partition that wait for the recorder, about."""


KEEP = Retention()


class Refused(Exception):
    """The store did not accept a report; nothing was published."""


class Superseded(Refused):
    """Another attempt of this task has taken over: this one must stop, and its words no longer count."""


class Finished(Refused):
    """The task has ended; nothing follows its terminal event."""


class Position(NamedTuple):
    """Where a published event stands."""

    seq: int
    attempt: int
    epoch: int


class Snapshot(NamedTuple):
    """A task at one moment, and what a reader's cursor had not seen by then."""

    epoch: int
    seq: int
    kept: int
    """`seq` of the last `state` or `log` event."""
    state: State
    rest: bytes
    """The event's members from `attempt` on, as JSON."""
    missed: list[Envelope]
    recovered: bool
    """Whether `missed` is everything that was missed."""
    rev: int = 0
    """How often details or children have changed without an event."""


class Record(NamedTuple):
    """Everything the store holds of a task, at one moment."""

    tag: str
    """Of two records of one task with equal tags, all is equal: `<epoch>-<seq>` and, unless it is 0, `.<rev>`."""
    fields: dict[str, bytes]
    children: list[str]


REFUSALS: dict[bytes, type[Refused]] = {b"finished": Finished, b"superseded": Superseded}


@functools.cache
def source(name: str) -> str:
    """The text of a script in `scripts/`."""
    return resources.files("headway").joinpath("scripts", f"{name}.lua").read_text()


def _member(value: Any) -> bytes:
    return b"" if value is UNSET else encode(value)


def _inner(value: msgspec.Struct) -> bytes:
    """The members of an object without its braces."""
    return encode(value)[1:-1]


def _publish_args(
    task_id: str,
    report: Report,
    attempt: int | str,
    operation: str,
    details: Details,
    retention: Retention,
) -> list[str | bytes | float]:
    extra = _inner(report.extra)
    args: list[str | bytes | float] = [
        encode(task_id),
        report.type,
        "" if report.state is UNSET else report.state.value,
        attempt,
        operation,
        encode(report.ts),
        b"" if report.amount is UNSET else _inner(report.amount),
        _member(report.percent),
        _member(report.message),
        b'"rate":%b,"eta":%b' % (encode(report.rate), encode(report.eta)),
        b"," + extra if extra else b"",
        retention.live,
        retention.ended,
        retention.replay,
        retention.journal,
    ]
    for field, value in details.items():
        args += (field, value)
    return args


def _position(reply: Sequence[Any]) -> Position:
    if int(reply[0]) < 0:
        raise REFUSALS[bytes(reply[1])](bytes(reply[1]).decode())
    return Position(int(reply[0]), int(reply[1]), int(reply[2]))


def _snapshot(reply: Sequence[Any] | None, since: Cursor | None) -> Snapshot | None:
    if reply is None:
        return None
    epoch, seq, kept = int(reply[0]), int(reply[1]), int(reply[2])
    missed = [Envelope.parse(payload) for payload in reply[5]]
    recovered = False
    if since is not None and since.epoch == epoch and since.seq <= seq:
        # The chain of `prev` tells whether the capped stream still reaches back to the reader's position.
        recovered = missed[0].prev <= since.seq if missed else kept <= since.seq
    return Snapshot(epoch, seq, kept, State(reply[3].decode()), reply[4], missed, recovered, int(reply[6]))


class Store:
    """The synchronous face, for workers. `client` must not decode responses."""

    def __init__(self, client: redis.Redis, retention: Retention = KEEP) -> None:
        self._client = client
        self._retention = retention
        self._publish = Lane(client, source("publish"))
        self._withdraw = client.register_script(source("withdraw"))
        self._adopt = client.register_script(source("adopt"))

    def publish(
        self,
        task_id: str,
        report: Report,
        *,
        attempt: int | str = "",
        operation: str = "",
        details: Details | None = None,
    ) -> Position:
        """Publish one report; raises `Superseded`, `Finished`, or redis-py's errors.

        `attempt` is the publisher's, `""` for whichever is current, `"+"` to begin the next one. A call that may be
        sent twice names itself in `operation`. `details` are fields of the task resource.
        """
        args = _publish_args(task_id, report, attempt, operation, details or {}, self._retention)
        return _position(self._publish.run(keys.of(task_id)[:5], args))

    def withdraw(self, task_id: str, operation: str) -> bool:
        """Take back the PENDING published as `operation`; False if there is more of the task, which then stays."""
        return bool(self._withdraw(keys=keys.of(task_id)[:2], args=[operation]))

    def adopt(self, parent_id: str, task_id: str) -> None:
        """Remember that a task has sent another one; of many, the first `MAX_CHILDREN`."""
        names = keys.of(parent_id)
        args: list[str | int] = [task_id, MAX_CHILDREN, self._retention.live]
        self._adopt(keys=[names.task, names.children, names.channel], args=args)


class AsyncStore:
    """The asynchronous face, for the hub. `client` must not decode responses."""

    def __init__(self, client: redis.asyncio.Redis, retention: Retention = KEEP) -> None:
        self._client = client
        self._retention = retention
        self._publish = client.register_script(source("publish"))
        self._read = client.register_script(source("read"))
        self._details = Batch(client, source("details"))

    async def submit(self, task_id: str, ts: float, details: Details) -> Position:
        """Say that a task is queued. When a worker was faster, only `details` are added."""
        report = Report(type="state", state=State.PENDING, ts=ts, amount=Amount(), percent=None, message=None)
        args = _publish_args(task_id, report, "", "", details, self._retention)
        return _position(await self._publish(keys=keys.of(task_id)[:5], args=args))

    async def revoke(self, task_id: str, ts: float, reason: str) -> None:
        """End a task that was not accepted: should its message arrive all the same, nobody runs it."""
        report = Report(type="state", state=State.REVOKED, ts=ts, extra=Extra(reason=reason))
        args = _publish_args(task_id, report, "", "", {}, self._retention)
        _position(await self._publish(keys=keys.of(task_id)[:5], args=args))

    async def read(self, task_id: str, since: Cursor | None = None) -> Snapshot | None:
        """A task's present, and the `state` and `log` events after `since`; None if there is no such task."""
        names = keys.of(task_id)
        position = (since.epoch, since.seq) if since else ("", "")
        return _snapshot(await self._read(keys=[names.task, names.replay], args=position), since)

    async def details(self, task_id: str) -> Record | None:
        """Everything the store holds of a task; None if there is no such task."""
        record = await self.changed(task_id, ())
        return record if isinstance(record, Record) else None

    async def changed(self, task_id: str, known: Iterable[str]) -> Record | str | None:
        """What `details` says, or, when the reader's tags include that of the present (or `*`), only that tag."""
        names = keys.of(task_id)
        reply = await self._details.run([names.task, names.children], list(known))
        if reply is None:
            return None
        tag = reply[0].decode()
        if len(reply) == 1:
            return cast("str", tag)
        flat = iter(reply[1])
        fields = {name.decode(): value for name, value in zip(flat, flat, strict=True)}
        return Record(tag, fields, [child.decode() for child in reply[2]])

    async def catalogue(self) -> dict[str, bytes]:
        """Task name → JSON of its catalogue entry."""
        return await self._hash(keys.CATALOGUE)

    async def announced(self) -> dict[str, float]:
        """Task name → when a worker last announced it, in Unix seconds of that worker."""
        return {name: float(when) for name, when in (await self._hash(keys.ANNOUNCED)).items()}

    async def _hash(self, key: str) -> dict[str, bytes]:
        # redis-py types a reply as if the client might decode it; ours must not.
        fields = cast("dict[bytes, bytes]", await self._client.hgetall(key))
        return {name.decode(): value for name, value in fields.items()}

    async def ping(self) -> None:
        """Raise redis-py's errors unless the server answers."""
        await self._client.ping()
