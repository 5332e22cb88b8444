"""Become another program, tied to whoever started us: `launch.py --starter PID [options] -- command …`.

Run by path, not as a module, and with nothing but the standard library: it stands between the process manager and each
process it runs, so it must start fast and from any working directory. It ends in `exec`; the pid stays the same.
`launched()` is the other side: it writes such a command line.

--starter PID    end at once if this process is no longer the parent
--lock FILE      hold this lock for as long as the program or any child of it lives
--stale FILE     remove this file once the lock is held: nobody can own it any more
--signal NAME    what the program gets when its starter dies (default SIGKILL; Linux only)
--unprivileged   as root: run as `nobody`, because the program refuses to be root
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import pwd
import signal
import sys
import time

# A predecessor that is shutting down needs this long at most; after that it is told to go, then forced.
PATIENCE = 8.0

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
LINUX_CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2


class CapHeader(ctypes.Structure):
    """`struct __user_cap_header_struct` of capset(2)."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class CapData(ctypes.Structure):
    """`struct __user_cap_data_struct` of capset(2)."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def launched(
    command: list[str],
    *,
    farewell: signal.Signals = signal.SIGKILL,
    lock: str = "",
    stale: str = "",
    unprivileged: bool = False,
) -> list[str]:
    """The command line that runs `command` as a child of this process, with the options of the module docstring."""
    options = ["--starter", str(os.getpid()), "--signal", farewell.name]
    options += ["--lock", lock] if lock else []
    options += ["--stale", stale] if stale else []
    options += ["--unprivileged"] if unprivileged else []
    return [sys.executable, "-I", os.path.abspath(__file__), *options, "--", *command]


def main(argv: list[str]) -> None:
    """Apply the options, then become the command.

    Raises:
        SystemExit: with one sentence, when the lock is not to be had or the command is not to be run.
    """
    own, command = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    options = _options(own)
    # Ctrl-C goes to the whole foreground group. Whoever started us decides the order in which things stop.
    with contextlib.suppress(PermissionError):  # already a leader: the process manager made a session for us
        os.setsid()
    if options.lock:
        _take(options.lock, options.signal)
    if options.stale and os.path.lexists(options.stale):
        os.unlink(options.stale)
    if options.unprivileged and os.geteuid() == 0:
        _become_nobody()
    _die_with(options.starter, options.signal)
    try:
        os.execvp(command[0], command)  # noqa: S606  # a shell is what we do not want
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="launch.py")
    parser.add_argument("--starter", type=int, required=True)
    parser.add_argument("--lock")
    parser.add_argument("--stale")
    parser.add_argument("--signal", type=signal.Signals.__getitem__, default=signal.SIGKILL)
    parser.add_argument("--unprivileged", action="store_true")
    return parser.parse_args(argv)


def _take(path: str, farewell: signal.Signals) -> None:
    """Lock `path` and leave the descriptor open across `exec`.

    A file with a pid in it goes stale and pids are used again. This lock is let go by the kernel, and only when the
    last process that inherited it is gone, which is what makes it safe to open the data behind it.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(lock, True)
    started = time.monotonic()
    sent: signal.Signals | None = None
    while not _locked(lock):
        waited = time.monotonic() - started
        if waited > 2 * PATIENCE:
            sys.exit(f"{path} is still held by process {_holder(lock)}")
        # Without PDEATHSIG (macOS) a server outlives a supervisor that was killed.
        want = None if waited < PATIENCE / 2 else farewell if waited < PATIENCE else signal.SIGKILL
        if want and want != sent and (holder := _holder(lock)):
            sent = want
            try:
                os.kill(holder, want)
            except ProcessLookupError:
                pass  # its children hold the lock a moment longer
            except PermissionError:
                sys.exit(f"{path} is held by process {holder} of another user")
        time.sleep(0.02)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock: int) -> int:
    text = os.pread(lock, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def _become_nobody() -> None:
    """Give up root, but keep the right to pass through folders that only root may enter.

    The program and its data can lie below a folder of mode 0700 (a home). Opening that folder to everybody would be
    the other way; ambient capabilities (capabilities(7)) survive both setresuid and exec and change nothing on disk.
    """
    nobody = pwd.getpwnam("nobody")
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc:
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        # access(2) would ignore the capabilities of a user other than root, and initdb asks it for its programs.
        securebits = libc.prctl(PR_GET_SECUREBITS, 0, 0, 0, 0)
        libc.prctl(PR_SET_SECUREBITS, securebits | SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
    os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
    if libc:
        _keep_capabilities(libc)


def _keep_capabilities(libc: ctypes.CDLL) -> None:
    header = CapHeader(LINUX_CAPABILITY_VERSION_3, 0)
    data = (CapData * 2)()
    if libc.capget(ctypes.byref(header), ctypes.byref(data)) != 0:
        return
    # A container may not grant them even to root; then what everybody may read has to do.
    keep = data[0].permitted & (1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    data[0] = CapData(keep, keep, keep)
    data[1] = CapData(0, 0, 0)
    libc.capset(ctypes.byref(header), ctypes.byref(data))
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        if keep & 1 << capability:
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def _die_with(starter: int, farewell: signal.Signals) -> None:
    if sys.platform != "linux":
        return
    # After the change of user, which clears it.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(farewell), 0, 0, 0)
    if os.getppid() != starter:
        sys.exit("the process that started this one is gone")


if __name__ == "__main__":
    main(sys.argv[1:])
