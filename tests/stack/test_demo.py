"""`make demo` and `make watch`, as processes on a real stack."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from deploy.programs import ROOT
from deploy.server import free_port
from tests.deploy.stacks import UpProcess, runs, until

pytestmark = pytest.mark.stack


def run(module: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the product to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def start(url: str, **args: object) -> str:
    """Start `simulate`; the task's id."""
    response = httpx.post(f"{url}/tasks", json={"task": "simulate", "args": args}, trust_env=False)
    return str(response.json()["task_id"])


def test_the_demo_imports_a_real_file(stack: UpProcess) -> None:
    """It finds the running stack by its state folder, says what it does, and ends with the result."""
    done = run("deploy.demo", "--rows", "20000", STATE=str(stack.state))
    assert done.returncode == 0, done.stderr
    assert "rows of real data" in done.stdout
    assert re.search(r"SUCCESS  100\.0%  ([\d,]+) of \1 rows", done.stdout)
    assert re.search(r"table +imports\.", done.stdout)


def test_the_links_of_the_demo_work(stack: UpProcess, url: str) -> None:
    """What is printed can be opened."""
    done = run("deploy.demo", "--rows", "1", HEADWAY_URL=url)
    links = re.findall(rf"{url}/\S+", done.stdout)
    assert len(links) == 3
    assert {httpx.get(link, trust_env=False).status_code for link in links} == {200}


def test_a_terminal_gets_a_bar(stack: UpProcess, url: str) -> None:
    """With a terminal on the other side, the bar is drawn in place."""
    done = run("deploy.watch", start(url, steps=10, seconds=0.5), HEADWAY_URL=url, FORCE_COLOR="1", TERM="xterm")
    assert done.returncode == 0, done.stderr
    assert "━" in done.stdout
    assert "\x1b[" in done.stdout


def test_a_failed_task_ends_with_1(stack: UpProcess, url: str) -> None:
    """The exit code tells the outcome, and the error is told."""
    done = run("deploy.watch", start(url, steps=3, seconds=0, fail_at=2), HEADWAY_URL=url)
    assert done.returncode == 1
    assert "SimulatedFailure: Step 2 failed" in done.stdout


def test_an_unknown_task_is_one_sentence(stack: UpProcess, url: str) -> None:
    """Not a traceback, and not an endless wait."""
    done = run("deploy.watch", "no-such-task", HEADWAY_URL=url)
    assert done.returncode == 1
    assert done.stderr == "make watch: task no-such-task cannot be watched: no such task\n"


def test_no_task_is_one_sentence() -> None:
    """`make watch` without TASK passes an empty word."""
    done = run("deploy.watch", "")
    assert done.returncode == 1
    assert done.stderr == "make watch: which task? make watch TASK=<id>\n"


@pytest.mark.parametrize(("module", "words"), [("deploy.watch", ["t"]), ("deploy.demo", ["--rows", "1"])])
def test_an_unreachable_hub_is_one_sentence(module: str, words: list[str]) -> None:
    """HEADWAY_URL names a hub that is not there."""
    address = f"http://127.0.0.1:{free_port()}"
    done = run(module, *words, HEADWAY_URL=address)
    assert done.returncode == 1
    assert f"the hub at {address} cannot be reached" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_a_task_says_cannot_drive_the_terminal(stack: UpProcess, url: str) -> None:
    """Control characters in a message are shown as blanks."""
    done = run("deploy.watch", start(url, steps=5, seconds=0.3, message="a\x1b]0;owned\x07b\x9b2J"), HEADWAY_URL=url)
    assert "\x1b" not in done.stdout
    assert "\x9b" not in done.stdout


def test_without_a_stack_the_demo_brings_its_own(tmp_path: Path) -> None:
    """Started, used, stopped; nothing is left, neither process nor folder."""
    done = run("deploy.demo", "--rows", "1", STATE=str(tmp_path / "none"), TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "starting one for this demo" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_demo_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C at the moment its own stack starts: the stack goes too."""
    environment = os.environ | {"STATE": str(tmp_path / "none"), "TMPDIR": str(tmp_path)}
    output = (tmp_path / "output").open("w")
    with output:
        demo = subprocess.Popen(
            [sys.executable, "-m", "deploy.demo"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    try:
        family = until(lambda: psutil.Process(demo.pid).children(recursive=True))
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 130
    finally:
        demo.kill()
    assert not [process for process in family if process.is_running()]
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent died")
def test_a_killed_demo_takes_its_stack_along(tmp_path: Path) -> None:
    """SIGKILL leaves it no time to stop anything."""
    environment = os.environ | {"STATE": str(tmp_path / "none"), "TMPDIR": str(tmp_path)}
    with (tmp_path / "output").open("w") as output:
        demo = subprocess.Popen(
            [sys.executable, "-m", "deploy.demo"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    try:
        until(lambda: list(tmp_path.glob("*/state/logs/postgresql.log")))
        family = psutil.Process(demo.pid).children(recursive=True)
    finally:
        demo.kill()
        demo.wait()
    until(lambda: not any(map(runs, family)))
