"""Every program of the stack: its command line, its environment, how it is asked to stop."""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
from pathlib import Path

from deploy.launch import launched
from deploy.manager import Program
from deploy.postgres import Postgres
from deploy.server import Server
from deploy.valkey import Valkey

ROOT = Path(__file__).parent.parent

# In the order of their start; all of them stop together, before the servers do.
SERVING = ("keeper", "worker", "hub")

WORKER = "worker{}"  # the first part of a worker's name, of the number that the process manager gave it

# What another program needs to talk to this stack; `make demo`, `make flower` and others get it from stack.json.
SHARED = (
    "HEADWAY_REDIS_URL",
    "CELERY_BROKER_URL",
    "DATABASE_URL",
    "HEADWAY_STORAGE",
    "HEADWAY_HASH_ROOTS",
)


def servers(state: Path, named: dict[str, str]) -> list[Server]:
    """The servers this stack has to bring itself: those that no variable in `named` names."""
    needed: list[Server] = []
    if "HEADWAY_REDIS_URL" not in named:
        needed.append(Valkey(state / "valkey"))
    if "DATABASE_URL" not in named:
        needed.append(Postgres(state / "postgres"))
    return needed


def environment(state: Path, named: dict[str, str], own: list[Server]) -> dict[str, str]:
    """What the programs are given: `named` (the caller's own environment) first, our servers for the rest."""
    urls = {type(server): server.url for server in own}
    redis = named.get("HEADWAY_REDIS_URL") or urls[Valkey]
    storage = named.get("HEADWAY_STORAGE") or str(state / "storage")
    return named | {
        "HEADWAY_REDIS_URL": redis,
        "CELERY_BROKER_URL": named.get("CELERY_BROKER_URL") or redis,
        "DATABASE_URL": named.get("DATABASE_URL") or urls[Postgres],
        "HEADWAY_STORAGE": storage,
        "HEADWAY_HASH_ROOTS": named.get("HEADWAY_HASH_ROOTS")
        or os.pathsep.join([sysconfig.get_path("stdlib"), storage]),
        "PYTHONUNBUFFERED": "1",  # a line that is written is a line that is seen, in a file too
    }


def of_server(server: Server, state: Path, env: dict[str, str]) -> Program:
    """A server as a program. It talks to a file: nobody wants its checkpoints between the lines of a task."""
    name = server.name.lower()
    return Program(
        name,
        server.command(),
        str(server.folder),
        env,
        stop=server.farewell,
        grace=3.0,
        log=str(state / "logs" / f"{name}.log"),
    )


def of_headway(env: dict[str, str], hubs: int, workers: int) -> list[Program]:
    """Migrations, hub, keeper and workers.

    A worker is a process with room for one task: WORKERS is then the number of tasks that run at a time, a worker that
    is killed takes one task with it, and the manager can add and remove them one by one.
    """
    python = sys.executable

    def program(name: str, *words: str, **options: object) -> Program:
        return Program(name, launched([python, *words]), str(ROOT), env, **options)  # type: ignore[arg-type]

    # Whoever runs `make up` as root knows it; the warning would be ten lines a worker.
    celery = (
        "-W",
        "ignore:You're running the worker with superuser",
        "-m",
        "celery",
        "--quiet",
        "-A",
        "workers.app",
        "worker",
        "--concurrency=1",
        f"--hostname={WORKER.format('$(circus.wid)')}@%h",
    )
    return [
        program("migrate", "-m", "hub.migrate", once=True),
        program("keeper", "-m", "hub.keeper"),
        # QUIT: hand the task back to the broker now. TERM would wait for its end, which may be an hour away.
        program(
            "worker", *celery, "--without-gossip", "--without-mingle", count=workers, stop=signal.SIGQUIT, grace=6.0
        ),
        program("hub", "-m", "hub", "--fd", "$(circus.sockets.hub)", count=hubs, grace=6.0),
    ]
