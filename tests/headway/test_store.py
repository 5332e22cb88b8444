"""The atomic operations of the store, against a real Valkey."""

from __future__ import annotations

import itertools
import json
import threading
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import redis
import redis.asyncio
from msgspec import UNSET

from headway import keys
from headway.events import NOTE, Amount, Cursor, Envelope, Extra, Failure, Note, Report, State, TaskEvent, decode
from headway.leases import Leases
from headway.store import (
    DAY,
    MAX_CHILDREN,
    AsyncStore,
    Finished,
    Position,
    Record,
    Retention,
    Snapshot,
    Store,
    Superseded,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

NASTY = [
    'quotes " and \\ backslashes',
    "emoji \N{PILE OF POO} and e\N{COMBINING ACUTE ACCENT}",
    "line\u2028separators\u2029and\nnewlines\r\n",
    "NUL \x00 and \x1b escape",
    "{braces} {p00} hw:{p63}:feed",
    "half a pair \udc80",
    "%s %d %% '; DROP TABLE",
    "",
    "x" * 100_000,
]


@pytest.fixture
async def reader(redis_url: str) -> AsyncIterator[AsyncStore]:
    """The asynchronous face."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield AsyncStore(client)


class Channel:
    """What subscribers of a task's channel get."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._pubsub = client.pubsub(ignore_subscribe_messages=False)
        self._pubsub.ssubscribe(name)
        assert self._pubsub.get_message(timeout=5)["type"] == "ssubscribe"

    def take(self, count: int) -> list[Envelope]:
        """The next `count` messages."""
        return [Envelope.parse(self._payload()) for _ in range(count)]

    def note(self) -> Note:
        """The next message, which is no event."""
        payload = self._payload()
        assert payload.startswith(NOTE)
        return Note.parse(payload)

    def events(self, count: int) -> list[TaskEvent]:
        """The next `count` messages as events, each with an envelope that says the same."""
        envelopes = self.take(count)
        events = [decode(envelope.data) for envelope in envelopes]
        for event, envelope in zip(events, envelopes, strict=True):
            assert (event.cursor, event.seq, event.prev) == (str(envelope.cursor), envelope.seq, envelope.prev)
            assert envelope.terminal is (event.state.terminal and event.type == "state")
            assert envelope.kept is (event.type != "progress")
        return events

    def close(self) -> None:
        self._pubsub.close()

    def _payload(self) -> bytes:
        payload = self._pubsub.get_message(timeout=5)["data"]
        assert isinstance(payload, bytes)
        return payload


@pytest.fixture
def channel(client: redis.Redis, task: str) -> Iterator[Channel]:
    """The task's own channel."""
    channel = Channel(client, keys.of(task).channel)
    yield channel
    channel.close()


def state(name: State, **more: Any) -> Report:
    """A change of state."""
    if name in (State.PENDING, State.STARTED):
        more = {"amount": Amount(), "percent": None, "message": None, **more}
    return Report(type="state", state=name, ts=1.5, **more)


def progress(current: float = 1, percent: float | None = None, total: float | None = 100, **more: Any) -> Report:
    """A progress report."""
    return Report(
        type="progress", state=State.PROGRESS, ts=2.5, amount=Amount(current, total, "rows"), percent=percent, **more
    )


def log(text: str = "line") -> Report:
    """A log line."""
    return Report(type="log", ts=3.5, message=text, extra=Extra(level="info"))


def test_seq_rises_by_one(store: Store, task: str) -> None:
    """Over all types and attempts."""
    reports = [state(State.PENDING), log(), progress(), state(State.RETRY), log()]
    seqs = [store.publish(task, report).seq for report in reports]
    seqs += [store.publish(task, state(State.STARTED), attempt="+").seq, store.publish(task, state(State.SUCCESS)).seq]
    assert seqs == [1, 2, 3, 4, 5, 6, 7]


def test_prev_is_the_last_kept_event(store: Store, task: str, channel: Channel) -> None:
    """State and log events are links of the chain, progress is not."""
    for report in (state(State.PENDING), progress(), progress(2), log(), progress(3), state(State.SUCCESS)):
        store.publish(task, report)
    assert [event.prev for event in channel.events(6)] == [0, 1, 1, 1, 4, 4]


def test_the_epoch_is_the_time_of_the_first_event(store: Store, client: redis.Redis, task: str) -> None:
    """In Unix milliseconds by the server's clock, and it stays."""
    seconds, micros = client.time()
    epoch = store.publish(task, state(State.PENDING)).epoch
    assert 0 <= epoch - (seconds * 1000 + micros // 1000) < 5_000
    assert store.publish(task, log()).epoch == epoch


def test_a_lost_past_is_another_epoch(store: Store, client: redis.Redis, task: str) -> None:
    """Also when the replay stream outlives the hash, as under eviction."""
    before = store.publish(task, state(State.PENDING))
    store.publish(task, log())
    client.pexpire(keys.of(task).task, 2)
    while client.exists(keys.of(task).task):
        pass
    after = store.publish(task, log())
    assert after.epoch > before.epoch
    assert after.seq == 1


def test_an_event_carries_all_fields(store: Store, task: str, channel: Channel) -> None:
    """Every field of the contract, as one JSON object."""
    position = store.publish(task, progress(42, 42.0, message="importing rows", rate=8.5, eta=0.71))
    (envelope,) = channel.take(1)
    assert json.loads(envelope.data) == {
        "v": 1,
        "type": "progress",
        "task_id": task,
        "cursor": f"{position.epoch}-1",
        "seq": 1,
        "prev": 0,
        "attempt": 1,
        "state": "PROGRESS",
        "current": 42,
        "total": 100,
        "unit": "rows",
        "stage": None,
        "percent": 42.0,
        "message": "importing rows",
        "rate": 8.5,
        "eta": 0.71,
        "stalled": False,
        "ts": 2.5,
    }


def test_extras_are_members_of_the_event(store: Store, task: str, channel: Channel) -> None:
    """What only some events carry."""
    store.publish(task, state(State.RETRY, extra=Extra(retry_at=9.5, reason='"', max_attempts=4)))
    store.publish(task, state(State.FAILURE, extra=Extra(error=Failure("E", "m", "f"))))
    retry, failure = channel.events(2)
    assert (retry.retry_at, retry.reason, retry.max_attempts) == (9.5, '"', 4)
    assert failure.error == Failure("E", "m", "f")
    assert failure.reason is UNSET


def test_percent_never_goes_back_within_an_attempt(store: Store, task: str, channel: Channel) -> None:
    """Whatever a reporter says, and also not by way of an unknown percent or the closing event."""
    for value in (10.0, 9.0, None, 3.0, 50.0):
        store.publish(task, progress(1, value))
    store.publish(task, state(State.FAILURE, percent=20.0))
    assert [event.percent for event in channel.events(6)] == [10.0, 10.0, None, 10.0, 50.0, 50.0]


def test_the_next_attempt_begins_at_nothing(store: Store, task: str, channel: Channel) -> None:
    """Percent, amount and message belong to an attempt."""
    store.publish(task, state(State.STARTED), attempt="+")
    store.publish(task, progress(90, 90.0, message="nearly"), attempt=1)
    store.publish(task, state(State.STARTED), attempt="+")
    store.publish(task, progress(5, 5.0), attempt=2)
    events = channel.events(4)
    assert [event.attempt for event in events] == [1, 1, 2, 2]
    assert [event.percent for event in events] == [None, 90.0, None, 5.0]
    assert (events[2].current, events[2].message) == (0, None)


@pytest.mark.parametrize(("percent", "shown"), [(37.5, 100.0), (None, None)])
def test_success_is_100_percent_if_there_is_a_percent(
    store: Store, task: str, channel: Channel, percent: float | None, shown: float | None
) -> None:
    """An unknown total stays unknown."""
    store.publish(task, progress(3, percent, total=8 if percent else None))
    store.publish(task, state(State.SUCCESS))
    assert channel.events(2)[1].percent == shown


def test_failure_keeps_the_percent(store: Store, task: str, channel: Channel) -> None:
    """What failed half-way is shown half-way."""
    store.publish(task, progress(50, 50.0))
    store.publish(task, state(State.FAILURE))
    assert channel.events(2)[1].percent == 50.0


def test_a_state_event_carries_the_last_amounts(store: Store, task: str, channel: Channel) -> None:
    """Each event has the whole state of its task."""
    store.publish(task, progress(7, 7.0, message="seven"))
    store.publish(task, state(State.RETRY))
    event = channel.events(2)[1]
    assert (event.current, event.total, event.unit, event.percent, event.message) == (7, 100, "rows", 7.0, "seven")


def test_a_superseded_attempt_is_refused(store: Store, task: str, channel: Channel) -> None:
    """Nothing of what it says reaches anybody."""
    store.publish(task, state(State.STARTED), attempt="+")
    store.publish(task, state(State.STARTED), attempt="+")
    for report in (progress(), log(), state(State.SUCCESS)):
        with pytest.raises(Superseded):
            store.publish(task, report, attempt=1, details={"worker": "zombie"})
    assert store.publish(task, log(), attempt=2).seq == 3
    assert [event.seq for event in channel.events(3)] == [1, 2, 3]


async def test_a_refused_report_changes_nothing(store: Store, reader: AsyncStore, task: str) -> None:
    """Not even the details that came with it."""
    store.publish(task, state(State.STARTED), attempt="+")
    store.publish(task, state(State.STARTED), attempt="+")
    before = await reader.details(task)
    assert before is not None
    with pytest.raises(Superseded):
        store.publish(task, log(), attempt=1, details={"worker": "zombie"})
    store.publish(task, state(State.SUCCESS))
    after = await reader.details(task)
    assert after is not None
    with pytest.raises(Finished):
        store.publish(task, log(), details={"worker": "zombie"})
    assert await reader.details(task) == after
    assert "worker" not in before.fields | after.fields


@pytest.mark.parametrize("end", [State.SUCCESS, State.FAILURE, State.REVOKED])
def test_nothing_follows_the_end(store: Store, task: str, end: State) -> None:
    """Neither another end, nor a new attempt, nor a log line."""
    store.publish(task, state(State.STARTED), attempt="+")
    store.publish(task, state(end))
    for report, attempt in itertools.product(
        [state(State.SUCCESS), state(State.STARTED), state(State.PENDING), log(), progress()], ["", "+", 1, 2]
    ):
        with pytest.raises(Finished):
            store.publish(task, report, attempt=attempt)


def test_progress_after_retry_is_refused(store: Store, task: str) -> None:
    """A sampler that has not noticed must not turn RETRY back into PROGRESS; the next attempt may.

    One RETRY is enough, too.
    """
    store.publish(task, state(State.STARTED), attempt="+")
    store.publish(task, state(State.RETRY), attempt=1)
    for report in (progress(), state(State.RETRY)):
        with pytest.raises(Superseded):
            store.publish(task, report, attempt=1)
    store.publish(task, state(State.STARTED), attempt="+")
    assert store.publish(task, progress(), attempt=2).attempt == 2


def test_a_call_sent_twice_counts_once(store: Store, task: str, channel: Channel) -> None:
    """The second call with the same operation id gets the first one's answer."""
    first = store.publish(task, state(State.STARTED), attempt="+", operation="a")
    store.publish(task, progress(), attempt=1)
    assert store.publish(task, state(State.STARTED), attempt="+", operation="a").attempt == first.attempt
    end = store.publish(task, state(State.SUCCESS), attempt=1, operation="b")
    assert store.publish(task, state(State.SUCCESS), attempt=1, operation="b") == end
    assert [event.state for event in channel.events(3)] == ["STARTED", "PROGRESS", "SUCCESS"]
    assert end.seq == 3


async def test_a_log_line_is_not_the_message(store: Store, reader: AsyncStore, task: str, channel: Channel) -> None:
    """Who joins later is shown what the task says of itself, not its last log line."""
    store.publish(task, progress(1, message="importing"))
    store.publish(task, log("row 7 is bad"))
    assert [event.message for event in channel.events(2)] == ["importing", "row 7 is bad"]
    assert snapshot_of(await reader.read(task))["message"] == "importing"


async def test_a_log_line_may_come_first(store: Store, reader: AsyncStore, task: str) -> None:
    """Then the task is known, and has said nothing else."""
    store.publish(task, log("early"))
    snapshot = await reader.read(task)
    assert snapshot_of(snapshot)["message"] is None
    assert snapshot is not None
    assert (snapshot.state, snapshot.seq, snapshot.kept) == ("PENDING", 1, 1)


async def test_a_late_submit_only_adds_details(store: Store, reader: AsyncStore, task: str) -> None:
    """The worker was faster than the hub: nobody is told that a running task is queued."""
    store.publish(task, state(State.STARTED), attempt="+")
    before = await reader.read(task)
    assert before is not None
    assert await reader.submit(task, 1.0, {"task": "t", "created_at": 1.0}) == Position(1, 1, before.epoch)
    assert await reader.read(task) == before._replace(rev=1)
    fields = (await known(reader, task)).fields
    assert (fields["task"], fields["created_at"]) == (b"t", b"1.0")


@pytest.mark.parametrize("report", [state(State.PENDING), progress(), log()], ids=lambda report: report.type)
async def test_details_without_a_change_of_state_are_a_revision(
    store: Store, reader: AsyncStore, task: str, channel: Channel, report: Report
) -> None:
    """Whoever keeps what the task resource shows is told that it shows something else."""
    epoch = store.publish(task, state(State.STARTED), attempt="+", details={"worker": "w"}).epoch
    assert (await known(reader, task)).tag == f"{epoch}-1"
    assert channel.take(1)[0].seq == 1
    store.publish(task, report, details={"queue": "q"})
    assert channel.note() == Note(epoch, 1, 1)
    snapshot = await reader.read(task)
    assert snapshot is not None
    assert snapshot.rev == 1
    assert (await known(reader, task)).tag == f"{epoch}-{snapshot.seq}.1"


async def test_a_report_without_details_is_no_revision(
    store: Store, reader: AsyncStore, task: str, channel: Channel
) -> None:
    """Events say for themselves what they change."""
    store.publish(task, state(State.STARTED), attempt="+")
    for report in (state(State.PENDING), progress(), log()):
        store.publish(task, report)
    assert [event.type for event in channel.events(3)] == ["state", "progress", "log"]
    assert "rev" not in (await known(reader, task)).fields


async def test_a_submitted_task_is_pending(reader: AsyncStore, task: str) -> None:
    """With its details, at attempt 1."""
    assert (await reader.submit(task, 1.0, {"task": "t"}))[:2] == (1, 0)
    shown = snapshot_of(await reader.read(task))
    assert (shown["state"], shown["attempt"], shown["current"], shown["total"]) == ("PENDING", 1, 0, None)


async def test_a_task_that_was_not_accepted_never_runs(reader: AsyncStore, client: redis.Redis, task: str) -> None:
    """Its message may arrive all the same: it cannot be claimed."""
    await reader.submit(task, 1.0, {"task": "t"})
    await reader.revoke(task, 2.0, "not accepted")
    shown = snapshot_of(await reader.read(task))
    assert (shown["state"], shown["reason"]) == ("REVOKED", "not accepted")
    with pytest.raises(Finished):
        Leases(client).claim(task, 0, "token", 15.0)


async def test_the_run_times_of_each_attempt_are_kept(store: Store, reader: AsyncStore, task: str) -> None:
    """When each began and how it ended."""
    store.publish(task, state(State.STARTED), attempt="+")
    store.publish(task, state(State.RETRY), attempt=1)
    store.publish(task, state(State.STARTED), attempt="+")
    store.publish(task, state(State.SUCCESS), attempt=2)
    fields = (await known(reader, task)).fields
    runs = {name: value for name, value in fields.items() if name.startswith("run:")}
    assert runs == {
        "run:1:started_at": b"1.5",
        "run:1:finished_at": b"1.5",
        "run:1:state": b"RETRY",
        "run:2:started_at": b"1.5",
        "run:2:finished_at": b"1.5",
        "run:2:state": b"SUCCESS",
    }


def test_a_live_task_is_kept_longer_than_an_ended_one(store: Store, client: redis.Redis, task: str) -> None:
    """30 days and 1 day; hash and stream go together."""
    names = keys.of(task)
    store.publish(task, progress())
    assert client.ttl(names.task) == 30 * DAY
    store.publish(task, log())
    assert {client.ttl(names.task), client.ttl(names.replay)} == {30 * DAY}
    store.publish(task, state(State.SUCCESS))
    assert {client.ttl(names.task), client.ttl(names.replay)} == {DAY}


def test_states_go_to_the_feed(store: Store, client: redis.Redis, task: str) -> None:
    """A dashboard gets every change of state, and neither progress nor log lines."""
    feed = Channel(client, keys.of(task).feed)
    for report in (state(State.PENDING), progress(), log(), state(State.SUCCESS)):
        store.publish(task, report)
    assert [event.state for event in feed.events(2)] == ["PENDING", "SUCCESS"]
    feed.close()


def test_the_journal_has_what_is_kept(store: Store, client: redis.Redis, task: str) -> None:
    """Every state and log event, in order, as it was sent."""
    for report in (state(State.PENDING), progress(), log(), state(State.SUCCESS)):
        store.publish(task, report)
    entries = [Envelope.parse(fields[b"e"]) for _, fields in client.xrange(keys.of(task).journal)]
    ours = [decode(entry.data) for entry in entries]
    assert [(event.seq, event.type) for event in ours if event.task_id == task] == [
        (1, "state"),
        (3, "log"),
        (4, "state"),
    ]


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
async def test_no_text_breaks_an_event(store: Store, reader: AsyncStore, client: redis.Redis, text: str) -> None:
    """Message, unit, stage, result and details come out as they went in."""
    said = text.replace("\udc80", "?")
    task = uuid.uuid4().hex
    channel = Channel(client, keys.of(task).channel)
    amount = Amount(1, 2, unit=text, stage=text)
    store.publish(task, progress(message=text), details={"args": msgspec.json.encode(said)})
    store.publish(task, log(text))
    store.publish(task, state(State.RETRY, amount=amount, extra=Extra(reason=text)))
    events = channel.events(3)
    assert [event.message for event in events] == [said, said, said]
    assert (events[2].unit, events[2].stage, events[2].reason) == (said, said, said)
    shown = snapshot_of(await reader.read(task))
    assert (shown["message"], shown["unit"], shown["stage"]) == (said, said, said)
    channel.close()


@pytest.mark.parametrize("text", [text for text in NASTY if "\udc80" not in text], ids=range(len(NASTY) - 1))
async def test_no_task_id_breaks_an_event(store: Store, reader: AsyncStore, client: redis.Redis, text: str) -> None:
    """An id is any text; braces in it do not move it to another slot."""
    task = text + uuid.uuid4().hex
    channel = Channel(client, keys.of(task).channel)
    store.publish(task, state(State.PENDING))
    assert channel.events(1)[0].task_id == task
    assert await reader.read(task) is not None
    channel.close()


def snapshot_of(snapshot: Snapshot | None) -> dict[str, Any]:
    """The members that a snapshot shows of its task."""
    assert snapshot is not None
    shown = json.loads(b"{" + snapshot.rest + b"}")
    assert isinstance(shown, dict)
    return shown


async def known(reader: AsyncStore, task: str) -> Record:
    """Everything the store holds of a task it knows."""
    record = await reader.details(task)
    assert record is not None
    return record


async def test_an_unknown_task_is_none(reader: AsyncStore, task: str) -> None:
    """It is never PENDING."""
    assert await reader.read(task) is None
    assert await reader.read(task, Cursor(1, 1)) is None
    assert await reader.details(task) is None
    assert await reader.changed(task, ["*"]) is None


async def test_a_first_read_has_missed_nothing(store: Store, reader: AsyncStore, task: str) -> None:
    """Without a cursor there is only the present, and nothing was recovered."""
    position = store.publish(task, state(State.PENDING))
    snapshot = await reader.read(task)
    assert snapshot is not None
    assert (snapshot.missed, snapshot.recovered) == ([], False)
    assert (snapshot.epoch, snapshot.seq, snapshot.kept) == (position.epoch, 1, 1)


async def test_a_reader_that_knows_the_present_is_told_no_more(store: Store, reader: AsyncStore, task: str) -> None:
    """By its tag, among others, or because any will do; else it gets everything."""
    epoch = store.publish(task, state(State.PENDING)).epoch
    store.adopt(task, "child")
    tag = f"{epoch}-1.1"
    for tags in ([tag], ["x", tag], ["*"]):
        assert await reader.changed(task, tags) == tag
    for tags in ([], [""], [f"{epoch}-1"], [f"{epoch}-1.2"], [f"{epoch}-11"]):
        assert await reader.changed(task, tags) == await known(reader, task)


async def test_a_reader_gets_exactly_the_kept_events_it_missed(store: Store, reader: AsyncStore, task: str) -> None:
    """From wherever it stands."""
    for report in (state(State.PENDING), progress(), log(), progress(), log(), progress()):
        epoch = store.publish(task, report).epoch
    for since, missed in [(0, [1, 3, 5]), (1, [3, 5]), (2, [3, 5]), (3, [5]), (4, [5]), (5, []), (6, [])]:
        snapshot = await reader.read(task, Cursor(epoch, since))
        assert snapshot is not None
        assert ([event.seq for event in snapshot.missed], snapshot.recovered) == (missed, True)


async def test_a_cursor_from_the_future_is_not_recovered(store: Store, reader: AsyncStore, task: str) -> None:
    """The store has lost what that reader saw (a failover): nobody may say that nothing is missing."""
    epoch = store.publish(task, state(State.PENDING)).epoch
    snapshot = await reader.read(task, Cursor(epoch, 2))
    assert snapshot is not None
    assert (snapshot.missed, snapshot.recovered) == ([], False)


async def test_a_cursor_of_another_epoch_is_not_recovered(store: Store, reader: AsyncStore, task: str) -> None:
    """Its seq says nothing here."""
    store.publish(task, state(State.PENDING))
    epoch = store.publish(task, log()).epoch
    for other in (epoch - 1, epoch + 1, 0):
        snapshot = await reader.read(task, Cursor(other, 1))
        assert snapshot is not None
        assert (snapshot.missed, snapshot.recovered) == ([], False)


async def test_what_the_capped_stream_has_lost_is_not_recovered(
    client: redis.Redis, reader: AsyncStore, task: str
) -> None:
    """The events that are left come all the same; a reader that stands behind the cap is not told of a gap."""
    store = Store(client, Retention(replay=1))
    for _ in range(300):
        epoch = store.publish(task, log()).epoch
    behind = await reader.read(task, Cursor(epoch, 1))
    assert behind is not None
    assert not behind.recovered
    oldest = behind.missed[0].seq
    assert oldest > 2
    assert [event.seq for event in behind.missed] == list(range(oldest, 301))
    for since, recovered in [(oldest - 2, False), (oldest - 1, True), (oldest, True), (300, True)]:
        snapshot = await reader.read(task, Cursor(epoch, since))
        assert snapshot is not None
        assert snapshot.recovered is recovered


async def test_only_a_task_that_nobody_has_taken_is_withdrawn(
    store: Store, reader: AsyncStore, client: redis.Redis, task: str
) -> None:
    """And by its own sender only: of two with one id, the other's may be on its way."""
    store.publish(task, state(State.PENDING), operation="one")
    assert not store.withdraw(task, "another")
    assert store.withdraw(task, "one")
    assert await reader.read(task) is None
    store.publish(task, state(State.PENDING), operation="two")
    Leases(client).claim(task, 0, "worker", 15)
    assert not store.withdraw(task, "two")
    assert await reader.read(task) is not None


async def test_children_are_named_up_to_a_bound(store: Store, reader: AsyncStore, task: str) -> None:
    """The first thousand, in the order in which they were sent."""
    for number in range(MAX_CHILDREN + 2):
        store.adopt(task, str(number))
    store.publish(task, state(State.PENDING))
    record = await known(reader, task)
    assert record.children == [str(number) for number in range(MAX_CHILDREN)]


async def test_a_child_is_a_revision(store: Store, reader: AsyncStore, task: str, channel: Channel) -> None:
    """It comes without an event of its parent; one that is not remembered is none."""
    epoch = store.publish(task, state(State.STARTED)).epoch
    for number in range(MAX_CHILDREN + 1):
        store.adopt(task, str(number))
    assert channel.take(1)[0].seq == 1
    assert [channel.note() for _ in range(MAX_CHILDREN)] == [Note(epoch, 1, rev) for rev in range(1, MAX_CHILDREN + 1)]
    assert (await known(reader, task)).tag == f"{epoch}-1.{MAX_CHILDREN}"


async def test_a_child_makes_no_task_of_its_parent(
    store: Store, reader: AsyncStore, client: redis.Redis, task: str
) -> None:
    """A parent that nobody has heard of stays unknown; once it speaks, it has the child."""
    store.adopt(task, "child")
    assert not client.exists(keys.of(task).task)
    store.publish(task, state(State.STARTED))
    assert (await known(reader, task)).children == ["child"]


async def test_the_catalogue_is_read(reader: AsyncStore, client: redis.Redis) -> None:
    """Task name → JSON."""
    client.hset(keys.CATALOGUE, "some.task", b"{}")
    assert (await reader.catalogue())["some.task"] == b"{}"
    client.hset(keys.ANNOUNCED, "some.task", 1.5)
    assert (await reader.announced())["some.task"] == 1.5


def test_concurrent_publishers_leave_no_gap(redis_url: str, client: redis.Redis, task: str) -> None:
    """Eight at once: seq has no gap, and the channel's order is its order."""
    channel = Channel(client, keys.of(task).channel)
    barrier = threading.Barrier(8)
    positions: list[Position] = []

    def publish(number: int) -> None:
        with redis.Redis.from_url(redis_url) as own:
            store = Store(own)
            barrier.wait()
            reports = [log() if (turn + number) % 3 else progress(turn) for turn in range(50)]
            positions.extend(store.publish(task, report) for report in reports)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(position.seq for position in positions) == list(range(1, 401))
    envelopes = channel.take(400)
    assert [envelope.seq for envelope in envelopes] == list(range(1, 401))
    kept = 0
    for envelope in envelopes:
        assert envelope.prev == kept
        kept = envelope.seq if envelope.kept else kept
    channel.close()


async def test_an_attempt_that_was_handed_over_is_over(store: Store, reader: AsyncStore, task: str) -> None:
    """It never said so; it ended when the next one began, in no state that Celery has a word for."""
    store.publish(task, state(State.STARTED), attempt="+")
    store.publish(task, state(State.STARTED), attempt="+")
    fields = (await known(reader, task)).fields
    assert fields["run:1:finished_at"] == fields["run:2:started_at"]
    assert "run:1:state" not in fields
