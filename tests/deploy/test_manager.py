"""The process manager, on programs of the test's own."""

from __future__ import annotations

import subprocess
import sys

from deploy.programs import ROOT

# In a process of its own: circus reaps every child of the process it lives in, pytest's servers included.
LOOPING = """
import asyncio, sys
from deploy.manager import Manager, Program
from deploy.server import free_port

async def main():
    said = asyncio.Queue()
    manager = Manager("inproc://manager", free_port(), said.put_nowait)
    await manager.open()
    for name, line in (("bad", "exit 3"), ("good", "sleep 60")):
        manager.add(Program(name, ["/bin/sh", "-c", line], "/", {}))
    manager.settled = True
    await manager.start(["bad", "good"])
    (good,) = manager.pids(["good"])
    line = ""
    while "keeps ending" not in line:
        line = await said.get()
    print(line)
    assert manager.failure() == "bad ended with exit code 3: see above", manager.failure()
    assert manager.pids(["good"]) == [good]
    await manager.stop(["bad", "good"])
    await manager.close()
    assert manager.pids(["bad", "good"]) == []

asyncio.run(main())
"""


def test_a_program_that_keeps_ending_is_said_and_slowed_down() -> None:
    """No silent spinning; the other programs go on."""
    done = subprocess.run(
        [sys.executable, "-c", LOOPING], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "bad keeps ending (5 times, now with exit code 3); next try in 30 s\n"
    assert done.returncode == 0
