"""What a process has used, from the kernel's own books (Linux)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path


def cpu(pids: Iterable[int]) -> float:
    """Seconds of CPU of all threads of these processes, time in the kernel included.

    From `schedstat`, which counts nanoseconds; `stat` counts hundredths of a second. The time of threads that have
    ended is lost, so this is for servers, whose threads stay.
    """
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def rss(pids: Iterable[int]) -> int:
    """Bytes of memory these processes have resident."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
