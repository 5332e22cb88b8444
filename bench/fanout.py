"""Fan-out: what a delivered message costs each server, how late it is, and what an open socket weighs.

Servers run one after the other, in turns, on the same Valkey and with the same client. The figures are medians of the
rounds. CPU is that of the server's own processes, time in the kernel included, divided by what arrived.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import redis

from bench import accounting, load
from bench.load import Aim, Heard
from bench.probe import Probe
from bench.servers import PeerError, Server, Stage

Figures = dict[str, float]
"""Metric → figure of one server in one round."""
Results = dict[str, dict[str, float]]
"""Metric → server → median."""

CROWD = 10_000
"""Sockets of the largest room."""
CLIENT_LIMIT = 0.9
"""Share of a processor above which a client process is the limit, and not the server."""
FAILURES = (PeerError, load.LoadError, OSError, redis.RedisError)
QUIET = 0.05
"""Share of a processor below which a server is taken to have nothing to do."""


class Plan(NamedTuple):
    """How long and how often."""

    rounds: int = 3
    window: float = 5.0
    """Seconds of publishing for each figure."""
    sizes: tuple[int, ...] = (1, 100, 1_000)
    """Rooms of so many sockets, besides the crowd."""
    crowd: int = CROWD
    crowd_of_all: bool = True
    """Whether the peers get the crowd, too."""


QUICK = Plan(rounds=1, window=2.0, sizes=(1_000,), crowd_of_all=False)


class Window(NamedTuple):
    """One window of publishing."""

    cpu: float
    published: int
    expected: int
    heard: Heard
    client: float
    """Share of a processor that the busiest client process used."""

    @property
    def delivery_us(self) -> float:
        """CPU of the server for each message that arrived."""
        return self.cpu / max(1, self.heard.messages) * 1e6

    @property
    def delivered(self) -> float:
        """Messages that arrived, of those that should have."""
        return self.heard.messages / self.expected


class Trial:
    """A server that runs, and what is done to it."""

    def __init__(self, server: Server, stage: Stage, plan: Plan) -> None:
        self.server = server
        self.stage = stage
        self.plan = plan
        self.busiest = 0.0

    def fan_out(self) -> Iterator[tuple[str, float]]:
        """One task, rooms of growing size, 50 events a second."""
        for size in self.plan.sizes:
            with self.opened(size, 1) as sockets:
                window = self.window(sockets, size, 1, 50)
            yield f"fanout_1x{size}_us", window.delivery_us
            yield f"delivered_1x{size}", window.delivered

    def many(self) -> Iterator[tuple[str, float]]:
        """1,000 tasks, a socket each: as much as it takes, then 5,000 events a second for the latency."""
        if self.server.one_task:
            return
        tasks = 1_000
        with self.opened(tasks, tasks) as sockets:
            window = self.window(sockets, tasks, tasks, self.server.events_per_second)
        yield "many_1000x1_us", window.delivery_us
        yield "delivered_1000x1", window.delivered
        with self.opened(tasks, tasks) as sockets:
            window = self.window(sockets, tasks, tasks, 5_000)
        yield "latency_p50_ms", window.heard.p50_ms
        yield "latency_p99_ms", window.heard.p99_ms

    def crowd(self) -> Iterator[tuple[str, float]]:
        """10,000 sockets join one task, do nothing, then get 10 events a second."""
        size = self.plan.crowd
        before, cpu, reads = accounting.rss(self.server.pids), accounting.cpu(self.server.pids), self.reads()
        with self.opened(size, 1) as sockets:
            yield f"join_{size}_us", (accounting.cpu(self.server.pids) - cpu) / size * 1e6
            yield f"join_{size}_per_s", size / sockets.seconds
            if self.server.greeted:
                yield f"join_{size}_reads", self.reads() - reads
            yield "rss_per_socket_kib", (accounting.rss(self.server.pids) - before) / size / 1024
            with Probe(self.server.port) if self.server.greeted else ExitStack() as probe:
                window = self.window(sockets, size, 1, 10)
        yield f"fanout_1x{size}_us", window.delivery_us
        yield f"delivered_1x{size}", window.delivered
        yield f"latency_1x{size}_p99_ms", window.heard.p99_ms
        yield f"closed_1x{size}", window.heard.closed
        if isinstance(probe, Probe):
            yield "healthz_max_ms", probe.longest * 1e3
            yield "healthz_p99_ms", probe.percentile(0.99) * 1e3

    @contextmanager
    def opened(self, sockets: int, tasks: int) -> Iterator[load.Load]:
        """Open sockets, wait until the server is done with it, and close them again."""
        server = self.server
        opened = load.opened(Aim(server.port, server.path, sockets, tasks, server.headers, server.greeted))
        try:
            self.settle()
            yield opened
        finally:
            opened.close()
            self.settle()

    def window(self, sockets: load.Load, count: int, tasks: int, rate: float) -> Window:
        """Publish for the plan's time, and see what it costs and what arrives."""
        publisher = self.server.publisher(self.stage, tasks)
        try:
            sockets.reset()
            began, cpu = time.perf_counter(), accounting.cpu(self.server.pids)
            client = accounting.cpu(sockets.pids)
            published = publisher.run(rate, self.plan.window)
            expected = published * count // tasks
            heard = sockets.heard(expected)
            used = accounting.cpu(self.server.pids) - cpu
            busy = (accounting.cpu(sockets.pids) - client) / len(sockets.pids) / (time.perf_counter() - began)
        finally:
            publisher.close()
        self.busiest = max(self.busiest, busy)
        return Window(used, published, expected, heard, busy)

    def settle(self, timeout: float = 10.0) -> None:
        """Wait until the server has nothing to do."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            cpu = accounting.cpu(self.server.pids)
            time.sleep(0.2)
            if accounting.cpu(self.server.pids) - cpu < 0.2 * QUIET:
                return

    def reads(self) -> int:
        """Scripts that have been run on Redis: the hub reads a task with one."""
        with redis.Redis.from_url(self.stage.redis_url) as client:
            stats = client.info("commandstats")
        return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("eval", "evalsha", "evalsha_ro"))


Part = Callable[[Trial], Iterable[tuple[str, float]]]
PARTS: dict[str, Part] = {"fanout": Trial.fan_out, "many": Trial.many, "memory": Trial.crowd}


def trial(server: Server, stage: Stage, plan: Plan, part: str) -> tuple[Figures, float]:
    """One part of one round of one server, in a fresh process: its figures, and how busy the client was at most."""
    with redis.Redis.from_url(stage.redis_url) as client:
        client.flushall()
    server.start(stage)
    try:
        running = Trial(server, stage, plan)
        running.settle()
        figures = {metric: figure for metric, figure in PARTS[part](running) if not math.isnan(figure)}
        return figures, running.busiest
    finally:
        server.stop()


def summary(metric: str, figures: list[float]) -> float:
    """The median of the rounds; the worst of them where a median would hide what must not happen."""
    if metric.startswith("delivered_"):
        return min(figures)
    if metric.startswith("closed_") or metric.endswith("_reads"):
        return max(figures)
    return statistics.median(figures)


class Measured(NamedTuple):
    """What all rounds have brought."""

    results: Results
    notes: list[str]
    """What is to be said beside the table: who is missing, who failed, whether the client was too slow."""


def measure(servers: list[Server], stage: Stage, plan: Plan, parts: list[str]) -> Measured:
    """All rounds of these servers, which take turns."""
    collected: dict[str, dict[str, list[float]]] = {}
    notes: dict[str, None] = {}  # a set that keeps its order
    for part in [part for part in PARTS if part in parts]:
        for number in range(plan.rounds):
            for server in servers:
                if part == "memory" and server.name != "headway" and not plan.crowd_of_all:
                    continue
                print(f"{part}, round {number + 1} of {plan.rounds}: {server.name}", file=sys.stderr, flush=True)
                try:
                    figures, busiest = trial(server, stage, plan, part)
                except FAILURES as failure:
                    notes[f"{server.name} failed at {part}: {failure}"] = None
                    continue
                if busiest > CLIENT_LIMIT:
                    notes[f"the client was the limit for {server.name} at {part}: see WSLOAD in bench/load.py"] = None
                for metric, figure in figures.items():
                    collected.setdefault(metric, {}).setdefault(server.name, []).append(figure)
    results = {
        metric: {server: round(summary(metric, figures), 6) for server, figures in of_servers.items()}
        for metric, of_servers in collected.items()
    }
    return Measured(results, list(notes))
