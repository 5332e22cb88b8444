"""`make bench`: measure Headway beside its peers, print one table with ratios and targets, write bench/results.json.

    python -m bench [PART…] [--save-plot docs/benchmarks.svg]…

QUICK=1 takes about two minutes, a full run a quarter of an hour. The exit code is 0 also when a target is missed: a
benchmark tells, it does not gate.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import fanout, plot, polling, publish, targets, track
from bench.nchan import NchanMemory, NchanRedis
from bench.servers import CACHE, ROOT, Floor, Headway, Headways, Node, PeerError, Server, Stage, Starlette
from deploy.postgres import Postgres

SPARE = 500
"""Files a process may need besides its sockets."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m bench", description="Measure Headway beside its peers.")
    parts = (*fanout.PARTS, "polling", "publish", "track")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(parts)} (default: all)")
    parser.add_argument("--save-plot", type=Path, metavar="FILE.svg", action="append", help="(default: in .bench)")
    options = parser.parse_args()
    options.save_plot = options.save_plot or [CACHE / "benchmarks.svg", CACHE / "benchmarks.png"]
    if unknown := set(options.parts) - set(parts):
        parser.error(f"there is no {', '.join(sorted(unknown))}: there are {', '.join(parts)}")
    options.parts = options.parts or list(parts)
    return options


def raised_limit() -> int:
    """How many files this process and its children may open from now on."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        hard = 1_048_576
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextlib.contextmanager
def staged() -> Iterator[Stage]:
    """A Valkey and a migrated PostgreSQL of the benchmark's own."""
    with publish.valkey() as url, tempfile.TemporaryDirectory(prefix="headway-bench-") as folder:
        postgres = Postgres(Path(folder) / "postgres", durable=False)
        os.chmod(folder, 0o755)
        postgres.start()
        try:
            env = os.environ | {"DATABASE_URL": postgres.url}
            subprocess.run([sys.executable, "-m", "hub.migrate"], cwd=ROOT, env=env, check=True)
            yield Stage(Path(folder), url, postgres.url)
        finally:
            postgres.stop()


def present(servers: list[Server]) -> tuple[list[Server], list[str]]:
    """The servers that can run here, and a sentence for each one that cannot."""
    there, notes = [], []
    for server in servers:
        try:
            missing = server.missing()
            if not missing:
                server.prepare()
                there.append(server)
        except PeerError as error:
            missing = str(error)
        if missing:
            notes.append(f"{server.name} is missing: {missing}")
    return there, notes


def sockets(parts: list[str], *, quick: bool) -> tuple[targets.Results, list[str]]:
    """Everything that needs servers with open sockets: the figures, and what is to be said beside them."""
    if sys.platform != "linux":
        return {}, ["fan-out is measured on Linux only: it reads the kernel's accounts in /proc"]
    plan, limit = fanout.QUICK if quick else fanout.Plan(), raised_limit()
    servers, notes = present([Headway(), Headways(), NchanRedis(), Node(), Starlette(), NchanMemory(), Floor()])
    if limit < plan.crowd + SPARE:
        plan = plan._replace(crowd=limit - SPARE)
        notes.append(f"only {plan.crowd:,} sockets instead of {fanout.CROWD:,}: ulimit -Hn is {limit:,}")
    with staged() as stage:
        measurement = fanout.Measurement(servers, stage, plan)
        for part in fanout.PARTS:
            if part in parts:
                measurement.run(part)
    return measurement.results, [*notes, *measurement.notes]


def main() -> None:
    """See the module docstring."""
    options = arguments()
    quick = os.environ.get("QUICK", "") not in ("", "0")
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, {platform.platform()}\n", flush=True)
    results: targets.Results = {}
    notes: list[str] = []
    if set(options.parts) & set(fanout.PARTS):
        results, notes = sockets(options.parts, quick=quick)
    if "polling" in options.parts:
        results |= polling.measure(*((0.5, 1) if quick else (2.0, 3)))
    if "publish" in options.parts:
        results |= publish.measure(2_000 if quick else 10_000, 3 if quick else 9)
    if "track" in options.parts:
        results |= track.measure(500_000 if quick else 3_000_000, 5 if quick else 9)
    targets.RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(targets.table(results), *notes, sep="\n")
    for path in [targets.RESULTS, *plot.save(results, options.save_plot)]:
        print(f"written: {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")


if __name__ == "__main__":
    main()
