"""`make flower`: Flower on the broker of the running stack, on 127.0.0.1.

python -m deploy.flower [--port 5555] [--state .state]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from deploy import checks
from deploy.programs import ROOT
from deploy.server import ServerError
from deploy.stack import running
from deploy.up import DEFAULT_STATE, say


def main() -> None:
    """Become Flower, so that Ctrl-C is its own."""
    parser = argparse.ArgumentParser(prog="make flower")
    parser.add_argument("--port", type=int, default=5555)
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE)
    options = parser.parse_args()
    stack = running(options.state.expanduser().absolute())
    if stack is None:
        sys.exit(f"make flower: no stack runs on {options.state}; start one with make up")
    try:
        checks.port(options.port, "FLOWER_PORT")
    except ServerError as error:
        sys.exit(f"make flower: {error}")
    say(f"Flower: http://127.0.0.1:{options.port}")
    os.chdir(ROOT)
    words = ["-m", "celery", "-A", "workers.app", "flower", "--address=127.0.0.1", f"--port={options.port}"]
    os.execve(sys.executable, [sys.executable, *words], os.environ | stack.env)  # noqa: S606  # no shell wanted


if __name__ == "__main__":
    main()
