"""One socket that watches as many tasks as it may."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator

import pytest

from headway.events import State
from hub.backlog import MAX_PENDING
from hub.session import MAX_TASKS
from tests.conditions import eventually
from tests.faults.conftest import HubProcess, TaskFactory
from tests.faults.watching import Reading, Watcher
from tests.hub.running import Task

SMALL = 4_096
"""Bytes the kernel shall hold for one who does not read for a while."""
TOO_SLOW = 4408


@pytest.fixture
def tasks(started: TaskFactory) -> list[Task]:
    """As many as one socket may watch."""
    return [started() for _ in range(MAX_TASKS)]


@pytest.fixture
def socket(hub_process: HubProcess, tasks: list[Task]) -> Iterator[Watcher]:
    """A socket that has asked for all of them."""
    socket = Watcher(hub_process.port, "/ws", buffer=SMALL).begin()
    socket.send({"type": "subscribe", "tasks": [{"id": task.id} for task in tasks]})
    yield socket
    socket.socket.close()


def complete(socket: Watcher, ends: dict[str, int]) -> bool:
    """Whether it has come to these ends."""
    return all(socket.chains[task_id].seq >= seq for task_id, seq in ends.items())


def talk(tasks: list[Task], rounds: int) -> dict[str, int]:
    """Events of all kinds for each task in turn; the last one's `seq` of each."""
    ends = {}
    for number in range(rounds):
        for task in tasks:
            task.progress(number)
            task.said(str(number))
            ends[task.id] = task.progress(number).seq
    return ends


def test_a_thousand_tasks_on_one_socket(socket: Watcher, tasks: list[Task]) -> None:
    """All events of each in order; and who unsubscribes from half hears exactly the other half."""
    with Reading([socket]):
        eventually(lambda: len(socket.chains) == MAX_TASKS)
        for _ in range(3):  # one at a time: three unread rounds are more than the hub keeps for one socket
            eventually(functools.partial(complete, socket, talk(tasks, 1)), timeout=30)
        assert {chain.counts["log"] for chain in socket.chains.values()} == {3}
        left, kept = tasks[::2], tasks[1::2]
        socket.send({"type": "unsubscribe", "tasks": [task.id for task in left]})
        socket.send({"type": "ping"})
        eventually(lambda: socket.answers)
        talk(left, 1)
        ends = {task.id: task.became(State.SUCCESS).seq for task in kept}
        eventually(functools.partial(complete, socket, ends))
    assert {socket.chains[task.id].counts["log"] for task in left} == {3}
    assert {socket.chains[task.id].counts["state"] for task in kept} == {1}
    assert json.loads(socket.answers[0]) == {"type": "pong"}
    assert socket.code is None


def test_who_reads_on_has_the_newest_of_each(socket: Watcher, tasks: list[Task]) -> None:
    """And every line, as long as a backlog holds them: nothing but progress has been passed over meanwhile."""
    while len(socket.chains) < MAX_TASKS:
        socket.read()
    ends = talk(tasks, MAX_PENDING // MAX_TASKS - 1)
    while not complete(socket, ends):
        socket.read()
    assert {chain.counts["log"] for chain in socket.chains.values()} == {MAX_PENDING // MAX_TASKS - 1}
    assert {chain.seq for chain in socket.chains.values()} == set(ends.values())
    assert {chain.restarts for chain in socket.chains.values()} == {0}
    assert socket.code is None


def test_who_reads_on_too_late_is_told_so(socket: Watcher, tasks: list[Task]) -> None:
    """4408, and up to there each task's events are in order: its cursors are where to go on."""
    while len(socket.chains) < MAX_TASKS:
        socket.read()
    # The transport and the kernel hold some of it before the backlog begins.
    for _ in range(3):
        talk(tasks, 1)
    assert socket.read_all().code == TOO_SLOW
