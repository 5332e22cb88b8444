"""The virtual environment, made by the script that runs before anything is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from deploy.programs import ROOT


def test_an_interrupted_environment_is_made_again_and_a_whole_one_is_kept(tmp_path: Path) -> None:
    """What was begun and not ended is not built upon; a second run finds nothing to do."""
    requirements, venv = tmp_path / "requirements.txt", tmp_path / "a b" / ".venv"
    requirements.write_text("# nothing\n")
    venv.mkdir(parents=True)
    for half in (".unfinished", "half", ".requirements.txt.installed"):
        (venv / half).touch()
    command = [sys.executable, "-B", ROOT / "deploy/venv.py", venv, requirements]

    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert first.stdout.startswith(f"making {venv} with Python ")
    assert not (venv / "half").exists()
    assert not (venv / ".unfinished").exists()
    assert (venv / ".requirements.txt.installed").exists()
    subprocess.run([venv / "bin/python", "-c", "import pip"], check=True)

    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
