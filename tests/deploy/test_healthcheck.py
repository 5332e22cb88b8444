"""`deploy.healthcheck`, run as a container runs it."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


class Handler(http.server.BaseHTTPRequestHandler):
    """200 for /healthz, 503 for the rest."""

    def do_GET(self) -> None:
        """Answer with a status and nothing else."""
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[str]:
    """The port of a server that answers."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield str(server.server_port)
        server.shutdown()
        thread.join()


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a check; it is given as long as compose.yaml gives it."""
    command = [sys.executable, "-S", "-m", "deploy.healthcheck", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)


def test_a_hub_that_answers_is_well(port: str) -> None:
    """200 on /healthz is enough."""
    assert check("http", port).returncode == 0


def test_another_status_is_told(port: str) -> None:
    """Anything but 200 is a failure, with the status in the sentence."""
    failed = check("http", port, "/readyz")
    assert failed.returncode == 1
    assert "503" in failed.stderr


def test_nobody_listens() -> None:
    """One sentence, not a traceback."""
    failed = check("http", "1")
    assert failed.returncode == 1
    assert failed.stderr.startswith("healthcheck: ")
    assert len(failed.stderr.splitlines()) == 1


def test_a_fresh_heartbeat_is_well_and_an_old_one_is_not(tmp_path: Path) -> None:
    """A worker whose main loop stands still does not touch its file."""
    file = tmp_path / "heartbeat"
    file.touch()
    assert check("heartbeat", str(file)).returncode == 0
    os.utime(file, (time.time() - 60, time.time() - 60))
    assert "60 s ago" in check("heartbeat", str(file)).stderr


def test_no_heartbeat_yet_is_not_well(tmp_path: Path) -> None:
    """A worker that has not reached its broker has no file."""
    assert check("heartbeat", str(tmp_path / "heartbeat")).returncode == 1


@pytest.mark.skipif(sys.platform != "linux", reason="containers have /proc, this system has not")
def test_a_stopped_process_is_not_well(tmp_path: Path) -> None:
    """It is there, but nothing will come from it."""
    name = f"keeper_{os.getpid()}"
    (tmp_path / f"{name}.py").write_text("input()")
    assert check("process", name).returncode == 1
    with subprocess.Popen([sys.executable, "-m", name], cwd=tmp_path, stdin=subprocess.PIPE) as keeper:
        try:
            assert check("process", name).returncode == 0
            keeper.send_signal(signal.SIGSTOP)
            os.waitpid(keeper.pid, os.WUNTRACED)
            assert name in check("process", name).stderr
        finally:
            keeper.kill()
