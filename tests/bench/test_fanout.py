"""The client, the servers and the publisher, together: with a handful of sockets."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bench.fanout import Measurement, Plan, summary
from bench.nchan import NchanMemory, NchanRedis
from bench.servers import Floor, Headway, Node, Server, Stage, Starlette
from bench.trial import running

SMALL = Plan(rounds=1, window=0.3, sizes=(3,), crowd=5, crowd_rounds=1, crowd_window=0.5)
"""The whole run, but small."""


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    """The files a server of the benchmark may open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def stage(tmp_path: Path, fresh_redis_url: str, database_url: str) -> Stage:
    """Where a server runs."""
    return Stage(tmp_path, fresh_redis_url, database_url)


@pytest.mark.parametrize("kind", [Headway, Starlette, NchanMemory, NchanRedis, Floor, Node])
def test_every_server_delivers_everything(kind: type[Server], stage: Stage) -> None:
    """To each of its sockets, and its CPU is counted. Node is measured only where its packages are installed."""
    server = kind()
    if isinstance(server, Node) and not (server.folder / "node_modules").exists():
        pytest.skip("ws and ioredis are not installed: make bench does that")
    if missing := server.missing():
        pytest.skip(missing)
    server.prepare()
    with running(server, stage) as trial, trial.room(5, 1) as room:
        for _ in range(2):
            window = room.window(100, 0.2)
            assert (window.expected, window.heard.messages, window.heard.least) == (100, 100, 20)
            assert window.heard.closed == 0
            assert 0 < window.heard.p50_ms <= window.heard.p99_ms < 5_000
            assert window.delivery_us > 0


def test_tasks_are_kept_apart(stage: Stage) -> None:
    """A socket hears its own task only."""
    with running(Headway(), stage) as trial, trial.room(6, 3) as room:
        window = room.window(100, 0.3)
        assert (window.heard.messages, window.heard.least) == (60, 10)


def test_a_run_over_one_server(stage: Stage) -> None:
    """Has the figures that the targets ask for, and one read for all joins."""
    measurement = Measurement([Headway()], stage, SMALL._replace(crowd_rounds=2))
    measurement.run("fanout")
    measurement.run("memory")
    assert not measurement.notes
    results = measurement.results
    assert results["delivered_1x3"] == results["delivered_1x5"] == {"headway": 1.0}
    assert results["join_5_reads"] == {"headway": 1}
    assert {"fanout_1x3_us", "fanout_1x5_us", "rss_per_socket_kib", "healthz_max_ms"} <= set(results)


def test_a_server_that_does_not_start_is_noted(stage: Stage) -> None:
    """The others are measured all the same."""

    class Broken(Starlette):
        name = "broken"

        def start(self, stage: Stage) -> None:
            self.port = 1
            self._run(stage, ["false"], {})

    measurement = Measurement([Broken(), Starlette()], stage, SMALL)
    measurement.run("fanout")
    assert [note.partition(":")[0] for note in measurement.notes] == ["broken is not measured"]
    assert measurement.results["delivered_1x3"] == {"starlette": 1.0}


def test_a_script_that_redis_does_not_know_yet_is_no_read(stage: Stage) -> None:
    """The hub asks for it by its name first, in vain."""
    with redis.Redis.from_url(stage.redis_url) as client, running(Headway(), stage) as trial:
        client.script_flush()
        before = trial.reads()
        with trial.room(5, 1):
            assert trial.reads() - before == 1


def test_one_loss_is_not_hidden_by_a_median() -> None:
    """Nor is a second read, or a slow round by a fast one."""
    assert summary("delivered_1x1000", [1.0, 0.9, 1.0]) == 0.9
    assert summary("join_10000_reads", [1, 2, 1]) == 2
    assert summary("fanout_1x1000_us", [4.0, 9.0, 5.0]) == 5.0
