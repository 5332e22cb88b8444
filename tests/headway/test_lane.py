"""The connection that a thread keeps for publishing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.valkey import Valkey
from headway.lane import IDLE, Lane
from tests.conditions import eventually

ECHO = "return {KEYS[1], ARGV[1]}"


def client_of(url: str) -> redis.Redis:
    """A client as workers have it: bounded in time, never trying twice."""
    return redis.Redis.from_url(url, socket_timeout=0.3, socket_connect_timeout=0.3, retry=Retry(NoBackoff(), 0))


def fails(lane: Lane) -> bool:
    """Whether a call fails, after which its connection is closed.

    The frames of redis-py's errors keep a test's own as garbage, and an open socket in it would be a warning: a test
    that sees one fail lets the last one fail, too.
    """
    try:
        lane.run(["k"], ["lost"])
    except (redis.ConnectionError, redis.TimeoutError):
        return True
    return False


def test_a_script_that_the_server_has_forgotten_is_sent_again(redis_url: str) -> None:
    """SCRIPT FLUSH, or a server that was restarted."""
    with client_of(redis_url) as client:
        lane = Lane(client, ECHO)
        for _ in range(2):
            client.script_flush()
            assert lane.run(["k"], ["a"]) == [b"k", b"a"]


def test_an_error_of_the_script_costs_no_connection(redis_url: str) -> None:
    """It is an answer."""
    with client_of(redis_url) as client:
        lane = Lane(client, "if ARGV[1] == 'x' then return redis.error_reply('NO x') end return ARGV[1]")
        lane.run(["k"], ["a"])
        before = client.info("stats")["total_connections_received"]
        with pytest.raises(redis.ResponseError, match="NO x"):
            lane.run(["k"], ["x"])
        assert lane.run(["k"], ["a"]) == b"a"
        assert client.info("stats")["total_connections_received"] == before


def test_a_late_answer_is_nobodys(valkey_factory: Callable[[], Valkey]) -> None:
    """A call that timed out took its connection along: the next one is answered what it asked."""
    valkey = valkey_factory()
    with client_of(valkey.url) as client:
        lane = Lane(client, ECHO)
        lane.run(["k"], ["before"])
        valkey.pause()
        assert fails(lane)
        valkey.resume()
        assert lane.run(["k"], ["after"]) == [b"k", b"after"]
        valkey.kill()
        assert fails(lane)


def test_a_server_that_came_back_is_used_again(valkey_factory: Callable[[], Valkey]) -> None:
    """The call that finds the connection dead fails, once; it may not be repeated by anybody who does not know it."""
    valkey = valkey_factory()
    with client_of(valkey.url) as client:
        lane = Lane(client, ECHO)
        lane.run(["k"], ["before"])
        valkey.kill()
        assert fails(lane)
        valkey.start()
        assert lane.run(["k"], ["after"]) == [b"k", b"after"]
        valkey.kill()
        assert fails(lane)


def test_a_connection_that_died_while_idle_is_replaced(redis_url: str) -> None:
    """Nobody's call has to fail to find that out."""
    with client_of(redis_url) as client:
        lane = Lane(client, ECHO)
        lane.run(["k"], ["before"])
        client.client_kill_filter(_type="normal", skipme=True)
        time.sleep(IDLE + 0.1)  # the rule is about a time
        assert lane.run(["k"], ["after"]) == [b"k", b"after"]


def test_each_thread_has_a_connection_of_its_own(redis_url: str) -> None:
    """Two calls at the same moment cannot take each other's answer; a thread's own goes with it."""
    with client_of(redis_url) as client:
        lane = Lane(client, ECHO)
        wrong: list[object] = []

        def call(name: str) -> None:
            for number in range(200):
                said = f"{name}{number}"
                if lane.run([name], [said]) != [name.encode(), said.encode()]:
                    wrong.append(said)

        threads = [threading.Thread(target=call, args=(f"t{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # the child runs no thread
def test_a_forked_child_has_a_connection_of_its_own(redis_url: str) -> None:
    """Parent and child go on at the same time, and neither hears the other's answers."""
    with client_of(redis_url) as client:
        lane = Lane(client, ECHO)

        def right(name: str) -> bool:
            words = [f"{name}{number}" for number in range(500)]
            return all(lane.run([name], [word]) == [name.encode(), word.encode()] for word in words)

        assert right("before")
        child = os.fork()
        if child == 0:  # another process: nothing of pytest's may run in it
            os._exit(0 if right("child") else 1)
        assert right("parent")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_lane_that_is_gone_leaves_no_connection(redis_url: str) -> None:
    """Closed at once, not when the garbage is collected; so is that of a thread that has ended."""
    with client_of(redis_url) as client:
        lane = Lane(client, ECHO)

        def open_connections() -> int:
            return len(client.client_list(_type="normal"))

        before = open_connections()
        thread = threading.Thread(target=lane.run, args=(["k"], ["a"]))
        thread.start()
        thread.join()
        eventually(lambda: open_connections() == before)
        lane.run(["k"], ["a"])
        assert open_connections() == before + 1
        del lane
        eventually(lambda: open_connections() == before)
