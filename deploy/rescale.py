"""The process manager's command behind `make scale`: another number of processes, and who goes when it is lower.

Circus itself would stop the oldest: the workers in the middle of the longest tasks, and the hub with the most watchers.
"""

from __future__ import annotations

import asyncio
from typing import Any

from circus.process import Process
from circus.util import synchronized
from circus.watcher import Watcher


class Rescale:
    """`{"name": …, "numprocesses": …, "idle": [wid, …], "busy": [wid, …]}`, a command as circus's controller takes it.

    Those that are said to be idle go first and those that are busy last, among equals the youngest: it has the least
    to lose.
    """

    name = "rescale"

    def validate(self, props: dict[str, Any]) -> None:
        """Everything is said by `deploy.scale`, which only the owner of the stack can run."""

    def execute(self, arbiter: Any, props: dict[str, Any]) -> Any:
        """Begin; the future that is returned ends with the last process that has to go.

        Raises:
            circus.exc.ConflictError: the manager is busy with another command.
        """
        # As circus's own commands: one at a time, so that nothing is started or reaped between choosing and stopping.
        exclusive = synchronized("watcher_rescale")
        return exclusive(lambda watcher: asyncio.ensure_future(_rescale(watcher, props)))(
            arbiter.get_watcher(props["name"])
        )


async def _rescale(watcher: Watcher, props: dict[str, Any]) -> None:
    watcher.numprocesses = props["numprocesses"]
    leaving = departures(watcher.get_active_processes(), watcher.numprocesses, props["idle"], props["busy"])
    await asyncio.gather(*(watcher.kill_process(process) for process in leaving))
    for process in leaving:
        watcher.processes.pop(process.pid, None)
    await watcher.manage_processes()  # starts what is missing


def departures(processes: list[Process], number: int, idle: list[int], busy: list[int]) -> list[Process]:
    """Those that go so that `number` stay."""

    def rank(process: Process) -> tuple[int, float]:
        return 0 if process.wid in idle else 2 if process.wid in busy else 1, -process.started

    return sorted(processes, key=rank)[: max(0, len(processes) - number)]
