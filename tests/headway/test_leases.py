"""Claims and leases in the store: of all deliveries of a task, one runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import redis

from headway import keys
from headway.events import Amount, Report, State
from headway.leases import Held, Leases, Spare
from headway.store import DAY, Finished, Store, Superseded
from tests.conditions import eventually

if TYPE_CHECKING:
    pass

LEASE = 60.0


@pytest.fixture
def leases(client: redis.Redis) -> Leases:
    """The leases of the shared Valkey."""
    return Leases(client)


def state(name: State) -> Report:
    """A change of state."""
    return Report(type="state", state=name, ts=1.0, amount=Amount(), percent=None, message=None)


def test_a_claim_begins_the_next_attempt(store: Store, leases: Leases, task: str) -> None:
    """Also of a task that nobody has announced."""
    assert leases.claim(task, 0, "a", LEASE) == 1
    store.publish(task, state(State.STARTED), attempt=1)
    assert leases.claim(task, 1, "b", LEASE) == 2
    with pytest.raises(Superseded):
        store.publish(task, state(State.SUCCESS), attempt=1)


def test_a_held_task_is_refused(leases: Leases, task: str) -> None:
    """With the time until its lease ends."""
    leases.claim(task, 0, "a", LEASE)
    with pytest.raises(Held) as held:
        leases.claim(task, 0, "b", LEASE)
    assert LEASE - 5 < held.value.seconds <= LEASE


def test_a_claim_sent_twice_counts_once(leases: Leases, task: str) -> None:
    """Its token tells: the first reply was lost."""
    assert [leases.claim(task, 0, "a", LEASE) for _ in range(2)] == [1, 1]


def test_a_lease_that_has_ended_can_be_claimed(leases: Leases, task: str) -> None:
    """The worker that held it is dead; the former holder learns it when it renews."""
    leases.claim(task, 0, "a", 0.0)
    assert leases.claim(task, 0, "b", LEASE) == 2
    assert leases.renew({task: "a"}, LEASE) == {task}
    assert leases.renew({task: "b"}, LEASE) == set()


def test_a_renewed_lease_holds(leases: Leases, task: str) -> None:
    """From then on."""
    leases.claim(task, 0, "a", 1.0)
    leases.renew({task: "a"}, LEASE)
    with pytest.raises(Held) as held:
        leases.claim(task, 0, "b", LEASE)
    assert held.value.seconds > LEASE - 5


def test_while_one_message_waits_others_are_spare(leases: Leases, task: str) -> None:
    """Until the lease that the first one met would have ended; then it has come back itself, and may be told again."""
    leases.claim(task, 0, "a", 0.2)
    with pytest.raises(Held):
        leases.claim(task, 0, "b", LEASE)
    leases.renew({task: "a"}, LEASE)
    with pytest.raises(Spare):
        leases.claim(task, 0, "c", LEASE)

    def told_again() -> bool:
        try:
            leases.claim(task, 0, "d", LEASE)
        except Spare:
            return False
        except Held:
            return True
        raise AssertionError("granted")

    eventually(told_again, 5)


def test_a_message_that_waits_is_no_spare_of_itself(leases: Leases, task: str) -> None:
    """The answer to its first claim was lost: taken for a spare, it would be dropped, and nobody would wait."""
    leases.claim(task, 0, "a", LEASE)
    for _ in range(2):
        with pytest.raises(Held):
            leases.claim(task, 0, "b", LEASE)
    with pytest.raises(Spare):
        leases.claim(task, 0, "c", LEASE)


def test_who_waits_for_an_earlier_generation_makes_none_spare(leases: Leases, task: str) -> None:
    """That message will be dropped as superseded: the retry needs one of its own that waits."""
    leases.claim(task, 0, "a", LEASE)
    with pytest.raises(Held):
        leases.claim(task, 0, "b", LEASE)
    leases.claim(task, 1, "retry", LEASE)
    with pytest.raises(Held):
        leases.claim(task, 1, "c", LEASE)


def test_a_lease_given_up_is_free_at_once(leases: Leases, task: str) -> None:
    """For a worker that hands its messages back."""
    leases.claim(task, 0, "a", LEASE)
    leases.renew({task: "a"}, 0.0)
    assert leases.claim(task, 0, "b", LEASE) == 2


def test_a_retry_does_not_wait_for_its_own_lease(leases: Leases, task: str) -> None:
    """It carries the next generation; the message before it is then too old."""
    leases.claim(task, 0, "a", LEASE)
    assert leases.claim(task, 1, "b", LEASE) == 2
    with pytest.raises(Superseded):
        leases.claim(task, 0, "c", LEASE)


@pytest.mark.parametrize("end", [State.SUCCESS, State.FAILURE, State.REVOKED])
def test_a_finished_task_is_not_run_again(store: Store, leases: Leases, task: str, end: State) -> None:
    """Whatever the generation."""
    leases.claim(task, 0, "a", LEASE)
    store.publish(task, state(end), attempt=1)
    for generation in (0, 1):
        with pytest.raises(Finished):
            leases.claim(task, generation, "b", LEASE)


def test_a_claim_that_the_store_has_lost_is_taken_again(leases: Leases, client: redis.Redis, task: str) -> None:
    """With the attempt that runs: a delivery that comes later is held, and the next attempt is the one after it."""
    leases.claim(task, 0, "a", LEASE)
    assert leases.claim(task, 1, "b", LEASE) == 2
    client.delete(keys.of(task).task)
    assert leases.renew({task: "b"}, LEASE) == {task}
    for _ in range(2):  # the first answer may be lost
        assert leases.claim(task, 1, "b", LEASE, attempt=2) == 2
    with pytest.raises(Held):
        leases.claim(task, 1, "c", LEASE)
    assert leases.renew({task: "b"}, 0.0) == set()
    assert leases.claim(task, 1, "c", LEASE) == 3


def test_a_claim_that_somebody_else_has_is_not_taken_again(leases: Leases, client: redis.Redis, task: str) -> None:
    """Whether his lease is live or not."""
    leases.claim(task, 0, "a", LEASE)
    client.delete(keys.of(task).task)
    for lease in (LEASE, 0.0):
        leases.claim(task, 0, "b", LEASE)
        leases.renew({task: "b"}, lease)
        with pytest.raises(Superseded):
            leases.claim(task, 0, "a", LEASE, attempt=1)


def test_renewing_nothing_is_nothing(store: Store, leases: Leases, task: str) -> None:
    """No task, or one that the store has lost."""
    assert leases.renew({}, LEASE) == set()
    assert leases.renew({task: "a"}, LEASE) == {task}


def test_the_attempt_that_was_claimed_begins_at_nothing(
    store: Store, leases: Leases, client: redis.Redis, task: str
) -> None:
    """The percent of the attempt before it does not hold it up."""
    leases.claim(task, 0, "a", 0.0)
    store.publish(task, state(State.STARTED), attempt=1)
    report = Report(type="progress", state=State.PROGRESS, ts=1.0, amount=Amount(9, 10), percent=90.0)
    store.publish(task, report, attempt=1)
    leases.claim(task, 0, "b", LEASE)
    store.publish(task, state(State.STARTED), attempt=2)
    report = Report(type="progress", state=State.PROGRESS, ts=1.0, amount=Amount(1, 10), percent=10.0)
    store.publish(task, report, attempt=2)
    assert client.hget(keys.of(task).task, "percent") == b"10.0"


def test_a_claimed_task_is_kept_like_a_live_one(leases: Leases, client: redis.Redis, task: str) -> None:
    """30 days."""
    leases.claim(task, 0, "a", LEASE)
    assert client.ttl(keys.of(task).task) == 30 * DAY


def test_of_many_deliveries_one_is_granted(leases: Leases, redis_url: str, task: str) -> None:
    """However they meet; and one of the others is told to come again."""
    granted: list[int] = []
    refused: list[type] = []
    barrier = threading.Barrier(8)

    def deliver(number: int) -> None:
        with redis.Redis.from_url(redis_url) as own:
            leases = Leases(own)
            barrier.wait()
            try:
                granted.append(leases.claim(task, 0, str(number), LEASE))
            except (Held, Spare) as refusal:
                refused.append(type(refusal))

    threads = [threading.Thread(target=deliver, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert granted == [1]
    assert sorted(kind.__name__ for kind in refused) == ["Held", *["Spare"] * 6]
