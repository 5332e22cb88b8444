"""launch.py: what ties a process to its starter and to its data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deploy.launch import launched
from deploy.programs import ROOT
from tests.deploy.stacks import until

SLEEP = [sys.executable, "-c", "import time; print('there', flush=True); time.sleep(60)"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent died")
def test_it_dies_with_its_starter() -> None:
    """A starter that gets SIGKILL leaves nothing behind."""
    source = (
        "import subprocess, time; from deploy.launch import launched;"
        f"child = subprocess.Popen(launched({SLEEP!r}), stdout=subprocess.PIPE);"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", source], cwd=ROOT, stdout=subprocess.PIPE) as starter:
        assert starter.stdout
        child = psutil.Process(int(starter.stdout.readline()))
        starter.kill()
    until(lambda: not child.is_running())


def test_a_lock_is_held_until_the_last_child_is_gone(tmp_path: Path) -> None:
    """The next one begins only when no process of the first can touch the data."""
    lock = str(tmp_path / "lock")
    ending = tmp_path / "ending"
    forks = f"import os, time; os.fork() or (time.sleep(0.4), open({str(ending)!r}, 'w')); print('gone', flush=True)"
    with subprocess.Popen(launched([sys.executable, "-c", forks], lock=lock), stdout=subprocess.PIPE) as first:
        assert first.stdout
        assert first.stdout.readline() == b"gone\n"
        assert not ending.exists()
        subprocess.run(launched([sys.executable, "-c", "pass"], lock=lock), check=True)
        assert ending.exists()


def test_what_is_stale_goes_once_the_lock_is_held(tmp_path: Path) -> None:
    """A pid file of a dead server cannot keep the next one from starting."""
    stale = tmp_path / "postmaster.pid"
    stale.write_text("1\n")
    command = [sys.executable, "-c", f"import os; raise SystemExit(os.path.exists({str(stale)!r}))"]
    subprocess.run(launched(command, lock=str(tmp_path / "lock"), stale=str(stale)), check=True)


def test_a_command_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """It names the command."""
    done = subprocess.run(launched([str(tmp_path / "nothing")]), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"cannot run {tmp_path}/nothing: No such file or directory\n"
