"""Who holds a state folder."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.server import ServerError
from deploy.stack import Stack, StackLock, announce, control_socket, running, withdraw

STACK = Stack(url="http://127.0.0.1:8000", env={"DATABASE_URL": "secret"}, pid=1, endpoint="ipc://x")


def test_a_stack_runs_while_it_is_announced_and_its_lock_is_held(tmp_path: Path) -> None:
    """What a killed stack left in its folder is not a running stack."""
    assert running(tmp_path) is None
    lock = StackLock(tmp_path)
    assert running(tmp_path) is None
    announce(tmp_path, STACK)
    assert running(tmp_path) == STACK
    lock.release()
    assert running(tmp_path) is None


def test_a_withdrawn_stack_does_not_run(tmp_path: Path) -> None:
    """It is on its way down; nobody should start to talk to it."""
    lock = StackLock(tmp_path)
    announce(tmp_path, STACK)
    withdraw(tmp_path)
    assert running(tmp_path) is None
    lock.release()


def test_a_folder_is_held_once(tmp_path: Path) -> None:
    """The second one is told who holds it."""
    lock = StackLock(tmp_path)
    with pytest.raises(ServerError, match=r"a stack runs on the state folder .* already \(process \d+\)"):
        StackLock(tmp_path)
    lock.release()
    StackLock(tmp_path).release()


def test_a_claim_that_is_undone_leaves_nothing(tmp_path: Path) -> None:
    """Neither the file nor a folder that was not there; what was there stays."""
    (tmp_path / "here").mkdir()
    StackLock(tmp_path / "here" / "new" / "state").undo()
    assert list(tmp_path.iterdir()) == [tmp_path / "here"]
    assert list((tmp_path / "here").iterdir()) == []
    (tmp_path / "here" / "lock").touch()
    StackLock(tmp_path / "here").undo()
    assert list((tmp_path / "here").iterdir()) == [tmp_path / "here" / "lock"]


def test_a_lock_that_was_removed_holds_nobody(tmp_path: Path) -> None:
    """Whoever waited for a file that is gone takes the one that the next would find."""
    state = tmp_path / "state"
    first = StackLock(state)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(StackLock, state)
        first.undo()
        second = waiting.result()
    with pytest.raises(ServerError, match="already"):
        StackLock(state)
    second.release()


def test_a_state_that_is_a_file_is_said_so(tmp_path: Path) -> None:
    """`File exists` would be the system's word for it."""
    (tmp_path / "state").touch()
    with pytest.raises(
        ServerError, match=r"^the state folder .*/state is a file, not a folder; choose one with STATE="
    ):
        StackLock(tmp_path / "state")


def test_the_announcement_is_private(tmp_path: Path) -> None:
    """It has the passwords in it."""
    announce(tmp_path, STACK)
    assert stat.S_IMODE((tmp_path / "stack.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("depth", [1, 120])
def test_the_control_socket_is_in_a_private_folder_with_a_short_path(tmp_path: Path, depth: int) -> None:
    """The kernel's limit is 103 bytes or more; folders have none."""
    state = tmp_path / ("x" * depth)
    state.mkdir(mode=0o700)
    with control_socket(state) as address:
        path = Path(address.removeprefix("ipc://"))
        path.touch()  # as binding it does
        assert len(str(path)) <= 103
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(state.iterdir()) == []
