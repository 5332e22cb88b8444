"""`make scale HUBS=2 WORKERS=4`: change the number of processes of a running stack.

    python -m deploy.scale [--hubs N] [--workers N] [--state .state]

Exit code 0 when the numbers are reached; 1, with one sentence on stderr, otherwise.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from circus.client import CircusClient
from circus.exc import CallError

from deploy.stack import Stack, running
from deploy.up import DEFAULT_STATE, say

TIMEOUT = 20.0  # seconds; a worker that has to go may use its whole grace


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(prog="make scale")
    parser.add_argument("--hubs")
    parser.add_argument("--workers")
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE)
    options = parser.parse_args()
    wanted = {"hub": _number("HUBS", options.hubs, 1), "worker": _number("WORKERS", options.workers, 0)}
    if not any(number is not None for number in wanted.values()):
        sys.exit("make scale: say what to change: make scale HUBS=2 WORKERS=4")
    stack = running(options.state.expanduser().absolute())
    if stack is None:
        sys.exit(f"make scale: no stack runs on {options.state}; start one with make up")
    for program, number in wanted.items():
        if number is not None:
            scale(stack, program, number)
            say(f"{program}: {number}")


def scale(stack: Stack, program: str, number: int) -> None:
    """Set the number of processes of "hub" or "worker" and wait until it is reached; exits with a sentence if not."""
    client = CircusClient(endpoint=stack.endpoint, timeout=TIMEOUT)
    deadline = time.monotonic() + TIMEOUT
    try:
        while True:
            answer = client.send_message("set", name=program, options={"numprocesses": number}, waiting=True)
            if answer["status"] == "ok":
                return
            # The manager does one thing at a time; its own look around takes milliseconds.
            if time.monotonic() > deadline:
                sys.exit(f"make scale: the process manager refuses: {answer.get('reason')}")
            time.sleep(0.05)
    except CallError as error:
        sys.exit(f"make scale: the process manager does not answer: {error}")
    finally:
        client.stop()


def _number(variable: str, text: str | None, low: int) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not low <= int(text) <= 64:
        sys.exit(f"make scale: {variable} is a number from {low} to 64, not {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
