"""`make up`, whole: what starts, what stops, what stays."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
import redis

from deploy.programs import ROOT
from deploy.scale import occupation
from deploy.server import free_port
from deploy.stack import running
from deploy.valkey import Valkey
from tests.deploy.conftest import StackFactory
from tests.deploy.stacks import until

pytestmark = pytest.mark.stack


def test_ctrl_c_leaves_no_process_and_keeps_the_state(up: StackFactory) -> None:
    """Ctrl-C ends everything within 10 s with exit code 0; the next run finds the data where it was."""
    first = up()
    env = first.ready().env
    with redis.Redis.from_url(env["HEADWAY_REDIS_URL"]) as client:
        client.set("kept", "yes")
    with psycopg.connect(env["DATABASE_URL"]) as database:
        database.execute("CREATE TABLE kept (id int)")
    started = time.monotonic()
    assert first.interrupt() == 0, first.said()
    assert time.monotonic() - started < 10
    assert first.left() == []
    assert running(first.state) is None
    assert {path.name for path in first.state.iterdir()} == {"lock", "logs", "postgres", "valkey"}

    second = up(state=first.state)
    env = second.ready().env
    with redis.Redis.from_url(env["HEADWAY_REDIS_URL"]) as client:
        assert client.get("kept") == b"yes"
    with psycopg.connect(env["DATABASE_URL"]) as database:
        database.execute("SELECT * FROM kept")


def test_a_second_ctrl_c_leaves_no_process(up: StackFactory) -> None:
    """Impatience does not make orphans."""
    stack = up()
    stack.ready()
    stack.relatives()
    os.killpg(stack.process.pid, signal.SIGINT)
    until(lambda: "stopping" in stack.said())
    os.killpg(stack.process.pid, signal.SIGINT)
    assert stack.process.wait(10) == 0
    # Their workers got SIGKILL, and the children of those get it from the kernel a moment later.
    until(lambda: not stack.left(), 5)


def test_ctrl_c_during_the_start_stops_it(up: StackFactory) -> None:
    """There is no moment at which Ctrl-C leaves half a stack."""
    stack = up()
    until(lambda: (stack.state / "logs" / "postgresql.log").exists())
    stack.interrupt()
    assert stack.left() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent died")
def test_a_killed_supervisor_takes_everything_along(up: StackFactory) -> None:
    """SIGKILL of `make up` leaves no orphan, and its state can be used at once."""
    stack = up()
    stack.ready()
    stack.relatives()
    stack.process.kill()
    stack.process.wait()
    again = up(state=stack.state, port=stack.port)
    again.ready()
    until(lambda: not stack.left(), 10)


def test_everything_private_is_private(up: StackFactory) -> None:
    """Passwords are in files of mode 600, in folders of mode 700, and in no command line."""
    stack = up()
    env = stack.ready().env
    passwords = [env[name].rpartition("@")[0].rpartition(":")[2] for name in ("HEADWAY_REDIS_URL", "DATABASE_URL")]
    lines = " ".join(word for process in stack.relatives() for word in process.cmdline())
    assert all(password and password not in lines for password in passwords)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [stack.state, *stack.state.iterdir()]}
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}


def test_two_stacks_side_by_side(up: StackFactory) -> None:
    """Different PORT and STATE: neither knows of the other."""
    one, other = up(), up()
    first, second = one.ready(), other.ready()
    assert first.env["DATABASE_URL"] != second.env["DATABASE_URL"]
    assert one.interrupt() == 0
    assert httpx.get(f"{second.url}/readyz").status_code == 200


def test_a_state_folder_in_use_is_refused(up: StackFactory) -> None:
    """One stack a state folder; the sentence names the folder and the variable."""
    stack = up()
    stack.ready()
    second = up(state=stack.state)
    assert second.process.wait(10) == 1
    assert f"a stack runs on the state folder {stack.state} already" in second.said()
    assert "STATE=" in second.said()
    assert running(stack.state) is not None


def test_scale_changes_a_running_stack(up: StackFactory) -> None:
    """Hubs and workers come and go without a restart of the others."""
    stack = up()
    stack.ready()
    first = {p.pid for p in stack.named("hub") + stack.named("celery")}
    scale(stack.state, "--hubs", "2", "--workers", "3")
    until(lambda: (len(stack.named("hub")), len(stack.named("celery"))) == (2, 3))
    assert first <= {p.pid for p in stack.named("hub") + stack.named("celery")}
    scale(stack.state, "--workers", "1")
    assert (len(stack.named("hub")), len(stack.named("celery"))) == (2, 1)
    assert httpx.get(f"http://127.0.0.1:{stack.port}/readyz").status_code == 200


def test_fewer_workers_are_those_without_a_task(up: StackFactory) -> None:
    """The oldest worker is the only one with a task: the young ones go, and it goes on as the first attempt."""
    stack = up()
    url = stack.ready().url
    (oldest,) = stack.named("celery")
    task = httpx.post(f"{url}/tasks", json={"task": "simulate", "args": {"steps": 600, "seconds": 60}}).json()
    address = f"{url}/tasks/{task['task_id']}"
    until(lambda: httpx.get(address).json()["state"] == "PROGRESS")
    scale(stack.state, "--workers", "4")
    broker = stack.ready().env["CELERY_BROKER_URL"]
    until(lambda: occupation(broker, [1, 2, 9]) == ([2], [1]))  # 9 does not exist, and so says nothing
    scale(stack.state, "--workers", "2")
    assert len(stack.named("celery")) == 2
    scale(stack.state, "--workers", "1")
    assert stack.named("celery") == [oldest]
    resource = httpx.get(address).json()
    assert (resource["state"], resource["attempt"]) == ("PROGRESS", 1)


def test_the_youngest_hub_goes(up: StackFactory) -> None:
    """The oldest has the most watchers."""
    stack = up()
    stack.ready()
    (oldest,) = stack.named("hub")
    scale(stack.state, "--hubs", "2")
    scale(stack.state, "--hubs", "1")
    assert stack.named("hub") == [oldest]


def test_a_killed_process_is_started_again(up: StackFactory) -> None:
    """The manager replaces what dies, servers included, and says so."""
    stack = up()
    stack.ready()
    for name in ("hub.keeper", "valkey-server"):
        (victim,) = stack.named(name)
        victim.kill()
    until(lambda: stack.said().count("ended with signal 9; starting it again") == 2)
    until(lambda: stack.named("hub.keeper") and stack.named("valkey-server"))


def test_a_deep_state_folder(up: StackFactory, tmp_path: Path) -> None:
    """Unix socket paths are limited to a hundred bytes; state folders are not."""
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    stack = up(state=deep / "state")
    stack.ready()
    scale(stack.state, "--workers", "2")
    assert stack.interrupt() == 0


def test_named_servers_are_used(up: StackFactory, valkey: Valkey, fresh_database_url: str) -> None:
    """Servers named by variables are used and not started."""
    stack = up(HEADWAY_REDIS_URL=valkey.url, DATABASE_URL=fresh_database_url)
    assert stack.ready().env["CELERY_BROKER_URL"] == valkey.url
    assert {path.name for path in stack.state.iterdir()}.isdisjoint({"valkey", "postgres"})


def test_a_port_in_use_is_one_sentence(up: StackFactory) -> None:
    """It says which variable changes it and who has it, and starts nothing."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        stack = up(port=port)
        assert stack.process.wait(10) == 1
    me = psutil.Process().name()
    expected = (
        f"make up: port {port} on 127.0.0.1 is in use by process {os.getpid()} ({me}): choose another one with PORT=…"
    )
    assert stack.said().splitlines() == [expected]
    assert not stack.state.exists()


def test_a_state_folder_that_cannot_be_written_is_one_sentence(up: StackFactory, tmp_path: Path) -> None:
    """A file in the way stands for every way to be unwritable: root may write anywhere else."""
    (tmp_path / "file").touch()
    stack = up(state=tmp_path / "file" / "state")
    assert stack.process.wait(10) == 1
    assert "cannot write to the state folder" in stack.said()
    assert len(stack.said().splitlines()) == 1


@pytest.mark.parametrize("variable", ["HEADWAY_REDIS_URL", "CELERY_BROKER_URL", "DATABASE_URL"])
def test_an_unreachable_server_is_one_sentence(up: StackFactory, variable: str) -> None:
    """It names the variable and the address, not the password, and starts nothing."""
    scheme = "postgresql" if variable == "DATABASE_URL" else "redis"
    address = f"127.0.0.1:{free_port()}/0"
    stack = up(**{variable: f"{scheme}://me:hidden@{address}"})
    assert stack.process.wait(20) == 1
    assert f"the server named by {variable} ({scheme}://me:***@{address}) cannot be used" in stack.said()
    assert "hidden" not in stack.said()
    assert len(stack.said().splitlines()) == 1
    assert not stack.state.exists()


def test_scale_without_a_stack_is_one_sentence(tmp_path: Path) -> None:
    """There is nothing to scale."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.scale", "--workers", "2", "--state", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"make scale: no stack runs on {tmp_path}; start one with make up\n"


def scale(state: Path, *words: str) -> None:
    """What `make scale` does."""
    subprocess.run([sys.executable, "-m", "deploy.scale", "--state", str(state), *words], cwd=ROOT, check=True)
