"""Fan-out: what a delivered message costs each server, how late it is, and what an open socket weighs.

All servers use the same Valkey and get the same events from the same client. They are measured in turns, one short
window after the other: a machine that drifts drifts for all of them. The figures are medians over these windows.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import redis

from bench import load
from bench.probe import Probe
from bench.servers import PeerError, Server, Stage
from bench.targets import Results
from bench.trial import Room, Trial, Window, running

CROWD = 10_000
"""Sockets of the largest room."""
CLIENT_LIMIT = 0.9
"""Share of a processor above which a client process is the limit, and not the server."""
FAILURES = (PeerError, load.LoadError, OSError, redis.RedisError)

PARTS = ("fanout", "many", "memory")


class Plan(NamedTuple):
    """How long and how often."""

    rounds: int = 9
    window: float = 1.0
    """Seconds of publishing in a server's turn."""
    sizes: tuple[int, ...] = (1, 100, 1_000)
    """Rooms of so many sockets, besides the crowd."""
    crowd: int = CROWD
    crowd_rounds: int = 3
    crowd_window: float = 5.0
    crowd_of_all: bool = True
    """Whether the peers get the crowd, too."""


QUICK = Plan(rounds=3, sizes=(1, 1_000), crowd_rounds=1, crowd_window=3.0, crowd_of_all=False)


class Measurement:
    """A run over all servers: collects figures, and what is to be said beside them."""

    def __init__(self, servers: list[Server], stage: Stage, plan: Plan) -> None:
        self.notes: dict[str, None] = {}
        """Sentences; a set that keeps its order."""
        self._servers = servers
        self._stage = stage
        self._plan = plan
        self._figures: dict[str, dict[str, list[float]]] = {}

    def run(self, part: str) -> None:
        """One of `PARTS`."""
        self._forget()
        {"fanout": self._fan_out, "many": self._many, "memory": self._crowds}[part]()

    @property
    def results(self) -> Results:
        """The summary of all figures so far."""
        return {
            metric: {server: round(summary(metric, figures), 6) for server, figures in of_servers.items()}
            for metric, of_servers in self._figures.items()
        }

    def _fan_out(self) -> None:
        """One task, rooms of growing size, 50 events a second."""
        with ExitStack() as stack:
            trials = self._started(stack, self._servers)
            for size in self._plan.sizes:
                for trial, window in self._turns(trials, size, 1, 50):
                    self._add(trial, f"fanout_1x{size}_us", window.delivery_us)
                    self._add(trial, f"delivered_1x{size}", window.delivered)

    def _many(self) -> None:
        """1,000 tasks, a socket each: as much as a server takes, then 5,000 events a second for the latency."""
        with ExitStack() as stack:
            trials = self._started(stack, [server for server in self._servers if not server.one_task])
            for rate in sorted({trial.server.events_per_second for trial in trials}):
                names = [trial.server.name for trial in trials if trial.server.events_per_second == rate]
                self.notes[f"many_1000x1_us: {', '.join(names)} at {rate:,} events a second"] = None
            for trial, window in self._turns(trials, 1_000, 1_000, 0):
                self._add(trial, "many_1000x1_us", window.delivery_us)
                self._add(trial, "delivered_1000x1", window.delivered)
            for trial, window in self._turns(trials, 1_000, 1_000, 5_000):
                self._add(trial, "latency_p50_ms", window.heard.p50_ms)
                self._add(trial, "latency_p99_ms", window.heard.p99_ms)

    def _crowds(self) -> None:
        """10,000 sockets on a fresh process, one server at a time."""
        servers = [server for server in self._servers if server.name != "headway_2"]
        servers = [server for server in servers if self._plan.crowd_of_all or server.name == "headway"]
        for number in range(self._plan.crowd_rounds):
            for server in servers:
                self._tell(f"{self._plan.crowd:,} sockets, round {number + 1}: {server.name}")
                self._forget()
                try:
                    with running(server, self._stage) as trial:
                        self._crowd(trial)
                    for metric, figure in server.last_words().items():
                        self._add(trial, metric, figure)
                except FAILURES as failure:
                    self.notes[f"{server.name} failed with {self._plan.crowd:,} sockets: {failure}"] = None

    def _crowd(self, trial: Trial) -> None:
        """They join one task, do nothing, then get 10 events a second."""
        size, hub = self._plan.crowd, trial.server.greeted
        rss, cpu, reads = trial.rss(), trial.cpu(), trial.reads()
        with trial.room(size, 1) as room:
            self._add(trial, f"join_{size}_us", (trial.cpu() - cpu) / size * 1e6)
            self._add(trial, f"join_{size}_per_s", size / room.sockets.seconds)
            self._add(trial, "rss_per_socket_kib", (trial.rss() - rss) / size / 1024)
            if hub:
                self._add(trial, f"join_{size}_reads", trial.reads() - reads)
            with Probe(trial.server.port) if hub else ExitStack() as probe:
                window = room.window(10, self._plan.crowd_window)
            self._add(trial, f"fanout_1x{size}_us", window.delivery_us)
            self._add(trial, f"delivered_1x{size}", window.delivered)
            self._add(trial, f"closed_1x{size}", window.heard.closed)
            self._add(trial, f"latency_1x{size}_p99_ms", window.heard.p99_ms)
            self._busy(trial, window)
            if isinstance(probe, Probe):
                self._add(trial, "healthz_max_ms", probe.longest * 1e3)
                self._add(trial, "healthz_p99_ms", probe.percentile(0.99) * 1e3)

    def _forget(self) -> None:
        """Empty the Valkey, while nobody uses it."""
        with redis.Redis.from_url(self._stage.redis_url) as client:
            client.flushall()

    def _started(self, stack: ExitStack, servers: list[Server]) -> list[Trial]:
        """Those that start, until the stack ends."""
        trials = []
        for server in servers:
            try:
                trials.append(stack.enter_context(running(server, self._stage)))
            except FAILURES as failure:
                self.notes[f"{server.name} is not measured: {failure}"] = None
        return trials

    def _turns(self, trials: list[Trial], sockets: int, tasks: int, rate: int) -> Iterator[tuple[Trial, Window]]:
        """Windows of all servers in turns. Rate 0 is what the server takes."""
        self._tell(f"{sockets:,} sockets, tasks: {tasks:,}, {rate or 'up to 20,000'} events a second")
        with ExitStack() as stack:
            rooms: list[tuple[Trial, Room]] = []
            for trial in trials:
                try:
                    rooms.append((trial, stack.enter_context(trial.room(sockets, tasks))))
                except FAILURES as failure:
                    self.notes[f"{trial.server.name} failed with {sockets:,} sockets: {failure}"] = None
            for number in range(self._plan.rounds):
                # Another one begins each time: whoever comes after a cheap one finds another machine.
                begin = number % max(1, len(rooms))
                for trial, room in [*rooms[begin:], *rooms[:begin]]:
                    try:
                        window = room.window(rate or trial.server.events_per_second, self._plan.window)
                    except FAILURES as failure:
                        self.notes[f"{trial.server.name} failed with {sockets:,} sockets: {failure}"] = None
                        rooms.remove((trial, room))
                        continue
                    self._busy(trial, window)
                    yield trial, window
        for trial in trials:
            trial.settle()

    def _add(self, trial: Trial, metric: str, figure: float) -> None:
        if not math.isnan(figure):
            self._figures.setdefault(metric, {}).setdefault(trial.server.name, []).append(figure)

    def _busy(self, trial: Trial, window: Window) -> None:
        if window.client > CLIENT_LIMIT:
            self.notes[f"the client was the limit for {trial.server.name}: see WSLOAD in bench/load.py"] = None

    def _tell(self, what: str) -> None:
        print(what, file=sys.stderr, flush=True)


def summary(metric: str, figures: list[float]) -> float:
    """The median; the worst where a median would hide what must not happen once."""
    if metric.startswith("delivered_"):
        return min(figures)
    if metric.startswith("closed_") or metric.endswith("_reads"):
        return max(figures)
    return statistics.median(figures)
