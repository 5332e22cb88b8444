"""Make the virtual environment, or bring it up to date: `python3 deploy/venv.py .venv requirements.txt …`.

Runs on the system's Python with nothing installed. Each file that is installed leaves a stamp in the environment, for
make to compare. An environment whose making was interrupted, or whose Python is gone, is made again from nothing.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """See the module docstring; exits with one sentence when it does not work out."""
    venv, files = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    with files[0].open() as lock:
        # Two `make up` side by side may both be the first.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not usable(venv):
            print(f"making {venv} with Python {sys.version.split()[0]} …", flush=True)  # noqa: T201  # for people
            create(venv)
        stale = [file for file in files if not installed(venv, file)]
        if stale:
            print(f"installing {', '.join(map(str, stale))} …", flush=True)  # noqa: T201  # for people
            install(venv, stale)


def usable(venv: Path) -> bool:
    """Whether it was finished once and its Python still runs."""
    if unfinished(venv).exists():
        return False
    try:
        done = subprocess.run([venv / "bin/python", "-c", "import pip"], capture_output=True, check=False)  # noqa: S603
    except OSError:
        return False
    return done.returncode == 0


def create(venv: Path) -> None:
    """An empty environment in the place of whatever is there."""
    shutil.rmtree(venv, ignore_errors=True)
    venv.mkdir(parents=True)
    unfinished(venv).touch()
    run([sys.executable, "-m", "venv", str(venv)], f"cannot make {venv}")
    unfinished(venv).unlink()


def install(venv: Path, files: list[Path]) -> None:
    """Install what the files pin, and nothing that they do not name (that is how pandas stays out)."""
    unfinished(venv).touch()
    words = [str(venv / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-deps"]
    run([*words, *(word for file in files for word in ("-r", str(file)))], "cannot install the requirements")
    for file in files:
        stamp(venv, file).touch()
    unfinished(venv).unlink()


def run(command: list[str], failure: str) -> None:
    """Run a command; its output is only of interest when it fails."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)  # noqa: S603
    if done.returncode != 0:
        sys.exit(f"{done.stdout}{failure}: see above")


def installed(venv: Path, file: Path) -> bool:
    """Whether the file is as old as what is installed."""
    mark = stamp(venv, file)
    return mark.exists() and mark.stat().st_mtime >= file.stat().st_mtime


def stamp(venv: Path, file: Path) -> Path:
    """What says that a file was installed."""
    return venv / f".{file.name}.installed"


def unfinished(venv: Path) -> Path:
    """What says that something was begun and not ended."""
    return venv / ".unfinished"


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(f"cannot make the virtual environment: {error}")
