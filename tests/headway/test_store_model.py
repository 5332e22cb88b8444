"""The store against a model of it: whatever is published in whatever order, readers get what the contract says."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import redis
import redis.asyncio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from headway.events import Amount, Cursor, Report, State, decode
from headway.store import AsyncStore, Finished, Refused, Store, Superseded

ATTEMPTS = st.sampled_from(["", 0, 1, 2, 3])
PERCENT = st.none() | st.integers(0, 10_000).map(lambda hundredths: hundredths / 100)


class Model(RuleBasedStateMachine):
    """One task in a few lines of Python, beside the real one."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.client = redis.Redis.from_url(self.url)
        self.reader = redis.asyncio.Redis.from_url(self.url)
        self.store, self.face = Store(self.client), AsyncStore(self.reader)
        self.task = uuid.uuid4().hex
        self.epoch = 0
        self.events: list[tuple[str, int]] = []  # type and prev; seq is the index + 1
        self.state: str | None = None
        self.attempt = 0
        self.peak = 0.0
        self.over: set[int] = set()  # attempts that have said RETRY

    def teardown(self) -> None:
        self.runner.run(self.reader.aclose())
        self.runner.close()
        self.client.close()

    @property
    def kept(self) -> int:
        return max((seq for seq, (kind, _) in enumerate(self.events, 1) if kind != "progress"), default=0)

    def refusal(self, report: Report, attempt: int | str) -> type[Refused] | None:
        if self.state in ("SUCCESS", "FAILURE", "REVOKED"):
            return Finished
        if attempt == "+":
            return None
        mine = self.attempt if attempt == "" else int(attempt)
        over = self.state == "RETRY" and mine in self.over
        barred = over and (report.type == "progress" or report.state == "RETRY")
        return Superseded if mine < self.attempt or barred else None

    def publish(self, report: Report, attempt: int | str) -> None:
        refusal = self.refusal(report, attempt)
        try:
            position = self.store.publish(self.task, report, attempt=attempt)
        except Refused as error:
            assert type(error) is refusal  # noqa: PT017  # what the model expects is not always an error
            return
        assert refusal is None
        self.epoch = self.epoch or position.epoch
        if not (self.state and report.state == "PENDING"):
            self.events.append((report.type, self.kept))
            self.settle(report, attempt)
        assert position.seq == len(self.events)
        assert position.epoch == self.epoch

    def settle(self, report: Report, attempt: int | str) -> None:
        mine = self.attempt + 1 if attempt == "+" else self.attempt if attempt == "" else int(attempt)
        if report.type == "log":
            self.attempt = self.attempt if self.state else mine
            self.state = self.state or "PENDING"
            return
        self.peak = self.peak if mine == self.attempt else 0.0
        self.attempt = mine
        if report.state == "RETRY" and mine:
            self.over.add(mine)
        self.state = report.state if isinstance(report.state, str) else self.state

    @initialize()
    def nothing_is_known(self) -> None:
        assert self.runner.run(self.face.read(self.task)) is None

    @rule(percent=PERCENT, attempt=ATTEMPTS)
    def progress(self, percent: float | None, attempt: int | str) -> None:
        self.publish(
            Report(type="progress", state=State.PROGRESS, ts=1.0, amount=Amount(1, 2), percent=percent), attempt
        )

    @rule(attempt=ATTEMPTS)
    def log(self, attempt: int | str) -> None:
        self.publish(Report(type="log", ts=1.0, message="line"), attempt)

    @rule()
    def submit(self) -> None:
        self.publish(Report(type="state", state=State.PENDING, ts=1.0, amount=Amount(), percent=None), "")

    @rule()
    def start(self) -> None:
        self.publish(Report(type="state", state=State.STARTED, ts=1.0, amount=Amount(), percent=None), "+")

    @rule(attempt=ATTEMPTS)
    def retry(self, attempt: int | str) -> None:
        self.publish(Report(type="state", state=State.RETRY, ts=1.0), attempt)

    @precondition(lambda self: len(self.events) > 8)
    @rule(attempt=ATTEMPTS, end=st.sampled_from([State.SUCCESS, State.FAILURE, State.REVOKED]))
    def end(self, attempt: int | str, end: State) -> None:
        self.publish(Report(type="state", state=end, ts=1.0), attempt)

    @precondition(lambda self: self.events)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        """From any seq on, a reader gets exactly the kept events behind it, each a link of the chain."""
        since = data.draw(st.integers(0, len(self.events) + 2))
        snapshot = self.runner.run(self.face.read(self.task, Cursor(self.epoch, since)))
        assert snapshot is not None
        kept = [seq for seq, (kind, _) in enumerate(self.events, 1) if kind != "progress" and seq > since]
        assert [event.seq for event in snapshot.missed] == kept
        assert [event.prev for event in snapshot.missed] == [self.events[seq - 1][1] for seq in kept]
        assert snapshot.recovered is (since <= len(self.events))
        for envelope in snapshot.missed:
            event = decode(envelope.data)
            assert (event.type, event.seq) == (self.events[envelope.seq - 1][0], envelope.seq)

    @invariant()
    def the_present_is_right(self) -> None:
        snapshot = self.runner.run(self.face.read(self.task))
        if not self.events:
            assert snapshot is None
            return
        assert snapshot is not None
        assert (snapshot.epoch, snapshot.seq, snapshot.kept) == (self.epoch, len(self.events), self.kept)
        shown: dict[str, Any] = json.loads(b"{" + snapshot.rest + b"}")
        assert snapshot.state == shown["state"] == self.state
        assert shown["attempt"] == max(1, self.attempt)
        if shown["percent"] is not None:
            assert shown["percent"] >= self.peak
            self.peak = shown["percent"]


def test_the_store_does_what_the_model_does(redis_url: str) -> None:
    """Sequence, chain, attempts, refusals, percent and recovery, over random lives of a task."""
    Model.url = redis_url
    run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
