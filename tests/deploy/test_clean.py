"""`make clean`, in a project of the test's own: it removes the environment and caches of the project it lies in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.programs import ROOT
from deploy.stack import StackLock


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of deploy/ beside an environment and a cache, with a state folder in which a stack has been."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "deploy", project / "deploy")
    caches = (".venv/bin", ".ruff_cache", ".bench/node", "hub/__pycache__", ".git/__pycache__")
    for folder in (*caches, "state/valkey", "state/mine"):
        (project / folder).mkdir(parents=True)
    for file in ("lock", "stack.json", "notes.txt"):
        (project / "state" / file).touch()
    return project


def clean(project: Path) -> subprocess.CompletedProcess[str]:
    """What `make clean` does there."""
    command = [sys.executable, "-B", project / "deploy/clean.py", project / "state"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


def test_only_what_we_made_is_removed(project: Path) -> None:
    """STATE may name any folder: what else is in it stays."""
    done = clean(project)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in project.iterdir()} == {"deploy", "hub", "state", ".git"}
    assert {path.name for path in (project / "state").iterdir()} == {"mine", "notes.txt"}
    assert list(project.rglob("__pycache__")) == [project / ".git/__pycache__"]


def test_nothing_is_removed_under_a_running_stack(project: Path) -> None:
    """One sentence, and not even a cache is gone."""
    lock = StackLock(project / "state")
    before = sorted(project.rglob("*"))
    done = clean(project)
    lock.release()
    assert done.returncode == 1
    assert done.stderr.startswith(f"make clean: a stack runs on the state folder {project}/state already (process ")
    assert done.stderr.count("\n") == 1
    assert sorted(project.rglob("*")) == before
