"""The running stack of a state folder: who holds it, and where its parts are."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.server import ServerError, write_private

SOCKET_PATH_LIMIT = 100  # bytes; the kernel's is 107 on Linux and 103 on macOS


@dataclass(frozen=True)
class Stack:
    """What `make up` wrote down once everything answered.

    `url` is the hub's address; `env` what hub and workers were given (secrets in it); `pid` the process to send SIGTERM
    to; `endpoint` the process manager's control socket.
    """

    url: str
    env: dict[str, str]
    pid: int
    endpoint: str


class StackLock:
    """The one claim on a state folder. The kernel lets it go when the process ends, however it ends."""

    def __init__(self, state: Path) -> None:
        """Take it.

        Raises:
            ServerError: another process has it, or the folder is none or cannot be written.
        """
        if state.is_file():
            raise ServerError(f"the state folder {state} is a file, not a folder; choose one with STATE=…")
        self._path = state / "lock"
        self._made = [path for path in (self._path, *self._path.parents) if not os.path.lexists(path)]
        try:
            self._file = self._taken()
        except OSError as error:
            raise ServerError(
                f"cannot write to the state folder {state}: {error.strerror}; choose one with STATE=…"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def _taken(self) -> int:
        """The lock's file, locked."""
        # running() holds a shared lock for an instant; half a second outlasts it.
        deadline = time.monotonic() + 0.5
        while True:
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            except (FileNotFoundError, FileExistsError):  # pathlib looks twice, and saw it once
                if time.monotonic() > deadline:
                    raise
                continue  # a start that was refused has just taken its folders away again
            if _try(file, fcntl.LOCK_EX) and _is_at(self._path, file):
                return file
            owner = os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(file)
            if time.monotonic() > deadline:
                raise ServerError(
                    f"a stack runs on the state folder {self._path.parent} already (process {owner}): "
                    "stop it there with Ctrl-C, or choose another folder with STATE=…"
                )
            time.sleep(0.02)

    def release(self) -> None:
        """Let go; the end of the process does the same."""
        os.close(self._file)

    def undo(self) -> None:
        """Let go before anything else was made, and remove what was not there before: the file, and its folders."""
        with suppress(OSError):  # somebody has put something into a folder meanwhile
            for path in self._made:
                path.unlink() if path == self._path else path.rmdir()
        self.release()


@contextmanager
def control_socket(state: Path) -> Iterator[str]:
    """The address (zmq) of the process manager's Unix socket, in a folder that nobody else may enter."""
    path = state / "manager.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
        try:
            yield f"ipc://{path}"
        finally:
            path.unlink(missing_ok=True)
        return
    # mkdtemp makes the folder with mode 0700.
    with tempfile.TemporaryDirectory(prefix="headway-") as folder:
        yield f"ipc://{folder}/manager.sock"


def running(state: Path) -> Stack | None:
    """The stack that runs on `state` and is ready, or None."""
    try:
        lock = os.open(state / "lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        if _try(lock, fcntl.LOCK_SH):
            return None  # nobody holds it: what stack.json says is from a run that was killed
        return Stack(**json.loads((state / "stack.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None  # not ready yet
    finally:
        os.close(lock)


def announce(state: Path, stack: Stack) -> None:
    """Make the stack known to `running()`."""
    write_private(state / "stack.json", json.dumps(asdict(stack), indent=2))


def withdraw(state: Path) -> None:
    """Take back what `announce()` said."""
    (state / "stack.json").unlink(missing_ok=True)


def _is_at(path: Path, file: int) -> bool:
    """Whether others find this open file there: a holder that was refused, or `make clean`, removes it."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _try(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
