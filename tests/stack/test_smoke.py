"""`python -m deploy.smoke`: the check of a running stack, in containers or not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deploy.programs import ROOT
from deploy.server import free_port
from tests.deploy.stacks import UpProcess


def smoke(url: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    command = [sys.executable, "-m", "deploy.smoke", url]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.stack
def test_a_stack_that_works_passes(stack: UpProcess) -> None:
    """Two jobs, each seen to the same end over WebSocket, SSE and polling."""
    done = smoke(stack.ready().url)
    assert done.returncode == 0, done.stderr
    assert "agree on SUCCESS" in done.stdout


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}", "127.0.0.1:8000", "http://127.0.0.1:no"])
def test_no_hub_is_one_sentence(address: str) -> None:
    """Exit code 1 and where it looked; no traceback."""
    url = address.format(port=free_port())
    failed = smoke(url)
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
    assert url in failed.stderr
