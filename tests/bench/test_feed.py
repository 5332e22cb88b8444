"""The benchmark's events are the store's, and come at an even pace."""

from __future__ import annotations

import time

import msgspec
import pytest
import redis

from bench import feed
from bench.feed import HttpLane, Publisher, RedisLane, due
from headway import keys
from headway.events import Amount, Envelope, Report, State, TaskEvent, decode
from headway.store import Store

NAMES = feed.named("tests")


def test_as_much_is_due_as_time_has_passed() -> None:
    """The first at once."""
    assert due(0.0, 50, 0, 100) == 1
    assert due(0.1, 50, 1, 100) == 1
    assert due(0.11, 50, 6, 100) == 0


def test_a_pause_is_not_made_up_for_in_one_burst() -> None:
    """A two-hundredth of a second's events, however many are due."""
    assert due(10.0, 20_000, 0, 200_000) == 100
    assert due(10.0, 50, 0, 500) == 1


def test_no_more_is_published_than_was_meant() -> None:
    """At the end of the window."""
    assert due(10.0, 20_000, 199_990, 200_000) == 10
    assert due(10.0, 20_000, 200_000, 200_000) == 0


def test_servers_do_not_hear_each_other() -> None:
    """Their tasks have other names, of one length."""
    ids = {feed.named(server) % 7 for server in ("headway", "node", "floor")}
    assert len(ids) == 3
    assert {len(task_id) for task_id in ids} == {36}


def heard(url: str, task_id: str, publish: Publisher | None, store: Store | None) -> TaskEvent:
    """What watchers are sent when this publishes one event."""
    with redis.Redis.from_url(url) as client, client.pubsub() as pubsub:
        pubsub.ssubscribe(keys.of(task_id).channel)
        assert pubsub.get_sharded_message(timeout=5)["type"] == "ssubscribe"
        if publish is not None:
            assert publish.run(1_000, 0.001) == 1
        if store is not None:
            members = {"amount": Amount(1, feed.TOTAL, "rows"), "percent": 0.0001, "message": "importing rows"}
            pace = {"rate": 812.3, "eta": 0.71}
            report = Report(type="progress", state=State.PROGRESS, ts=time.time(), **members, **pace)
            store.publish(task_id, report, attempt=1)
        return decode(Envelope.parse(pubsub.get_sharded_message(timeout=5)["data"]).data)


def test_the_script_is_told_what_the_store_tells_it(fresh_redis_url: str) -> None:
    """An event of the benchmark differs from one of `Store.publish` in its place and time only."""
    feed.begin_all(fresh_redis_url, NAMES, 2)
    publisher = Publisher([RedisLane(fresh_redis_url)], feed.scripted(NAMES, 1), 1)
    with redis.Redis.from_url(fresh_redis_url) as client:
        ours = heard(fresh_redis_url, NAMES % 0, publisher, None)
        theirs = heard(fresh_redis_url, NAMES % 1, None, Store(client))
    publisher.close()
    assert time.time() - ours.ts < 5
    same = {"task_id": "", "cursor": "", "ts": 0.0}
    assert msgspec.structs.replace(ours, **same) == msgspec.structs.replace(theirs, **same)


def test_the_peers_get_the_same_bytes(fresh_redis_url: str) -> None:
    """But for the epoch, which the store takes from its clock."""
    feed.begin_all(fresh_redis_url, NAMES, 1)
    publisher = Publisher([RedisLane(fresh_redis_url)], feed.scripted(NAMES, 1), 1)
    ours = heard(fresh_redis_url, NAMES % 0, publisher, None)
    publisher.close()
    peers = decode(feed.event((NAMES % 0).encode(), 1, ours.ts))
    assert msgspec.structs.replace(peers, cursor=ours.cursor) == ours


def test_a_refused_event_is_no_figure(fresh_redis_url: str) -> None:
    """A task that has ended takes none."""
    feed.begin_all(fresh_redis_url, NAMES, 1)
    with redis.Redis.from_url(fresh_redis_url) as client:
        end = Report(type="state", state=State.SUCCESS, ts=time.time())
        Store(client).publish(NAMES % 0, end)
    publisher = Publisher([RedisLane(fresh_redis_url)], feed.scripted(NAMES, 1), 1)
    with pytest.raises(redis.RedisError, match="refused"):
        publisher.run(100, 0.05)
    publisher.close()


class Deaf(HttpLane):
    """A publisher's connection to nobody."""

    def __init__(self) -> None:
        self._rest = b""


ANSWER = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"


def test_http_answers_are_counted_however_they_are_cut() -> None:
    """Each once."""
    data = ANSWER * 3
    for cut in range(1, len(data)):
        lane = Deaf()
        assert lane.take(data[:cut]) + lane.take(data[cut:]) == 3


def test_an_http_publisher_that_refuses_is_heard() -> None:
    """503, as Nchan answers while its Redis is away."""
    with pytest.raises(OSError, match="refused"):
        Deaf().take(ANSWER + b"HTTP/1.1 503 Service Unavailable\r\n")
