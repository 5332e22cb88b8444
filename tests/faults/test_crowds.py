"""Thousands of watchers who come, stay and vanish: whoever stays misses nothing, and nothing stays of who went."""

from __future__ import annotations

import threading

import pytest

from hub.crowd import SLICE
from tests.conditions import eventually
from tests.faults.conftest import HubProcess, TaskFactory
from tests.faults.crowd import crowd
from tests.faults.watching import Reading, Watcher
from tests.hub.running import Task

MIB = 1024 * 1024
STILL = 0.75
"""Seconds for which a hub may say nothing while thousands go at once, on a machine that is slow and busy."""
OWN = 10
"""Connections a hub may have opened meanwhile to Redis, for itself."""


@pytest.fixture
def many(files: int) -> int:
    """As many sockets as the issue asks for, if this machine lets a process open them."""
    return min(5_000, files - 500)


class Lines(threading.Thread):
    """Keeps a task talking, from `with` to its end."""

    def __init__(self, task: Task, pause: float = 0.3) -> None:
        super().__init__(daemon=True)
        self.seq = 0
        self._task = task
        self._pause = pause
        self._stop_asked = threading.Event()

    def __enter__(self) -> Lines:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_asked.set()
        self.join()

    def run(self) -> None:
        """In the thread."""
        while not self._stop_asked.wait(self._pause):
            self._task.progress()
            self.seq = self._task.said().seq


def test_thousands_may_vanish_at_once(hub_process: HubProcess, started: TaskFactory, many: int) -> None:
    """Reset, or with the process that held them: all is given back, every time, and a moment later nobody notices."""
    task = started()
    before, sizes = hub_process.sockets, []
    with Reading([Watcher(hub_process.port, f"/ws/task/{task.id}").begin()]) as staying, Lines(task) as lines:
        for reset, count in ((True, many), (False, many // 2), (True, many // 2)):
            with crowd(hub_process.port, task.id, count) as leaving:
                leaving.sees(lines.seq)
                assert leaving.report()["open"] == count
                assert hub_process.sockets >= before + count
                with hub_process.pulse() as pulse:
                    eventually(lambda: pulse.times)
                    if reset:
                        leaving.vanish()
                    else:
                        leaving.process.kill()
                    eventually(lambda: hub_process.sockets <= before + OWN)
            assert pulse.worst < STILL
            sizes.append(hub_process.rss)
        last = lines.seq
        eventually(lambda: staying.watchers[0].chain.seq >= last)
    assert staying.watchers[0].chain.restarts == 0
    assert sizes[2] - sizes[0] < 8 * MIB, sizes
    hub_process.forgets(task)
    assert hub_process.sockets <= before + OWN


def test_a_crowd_misses_nothing_while_others_come_and_go(hub_process: HubProcess, started: TaskFactory) -> None:
    """More of them than are served in one turn of the loop: each has an unbroken chain from its snapshot on."""
    task = started()
    with crowd(hub_process.port, task.id, SLICE * 3 // 2) as staying, Lines(task, 0.1) as lines:
        for _ in range(3):
            with crowd(hub_process.port, task.id, SLICE // 2) as passing:
                passing.sees(lines.seq)
                passing.vanish()
        staying.sees(lines.seq, timeout=5)
        assert staying.report()["open"] == SLICE * 3 // 2
