"""`make scale HUBS=2 WORKERS=4`: change the number of processes of a running stack.

    python -m deploy.scale [--hubs N] [--workers N] [--state .state]

Exit code 0 when the numbers are reached; 1, with one sentence on stderr, otherwise.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from celery import Celery
from celery.utils.nodenames import gethostname, nodename
from circus.client import CircusClient
from circus.exc import CallError
from kombu.exceptions import OperationalError

from deploy.programs import WORKER
from deploy.stack import Stack, running
from deploy.up import DEFAULT_STATE, say

TIMEOUT = 20.0  # seconds; a worker that has to go may use its whole grace
ANSWER_TIME = 1.0  # seconds a worker has to say what it does


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
        # Of a process that has just ended, `stats` has a sentence.
        processes = client.send_message("stats", name=program)["info"].values()
        wids = [int(process["wid"]) for process in processes if isinstance(process, dict)]
        fewer = program == "worker" and number < len(wids)
        idle, busy = occupation(stack.env["CELERY_BROKER_URL"], wids) if fewer else ([], [])
        while True:
            answer = client.send_message(
                "rescale", name=program, numprocesses=number, idle=idle, busy=busy, waiting=True
            )
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


def occupation(broker: str, wids: list[int]) -> tuple[list[int], list[int]]:
    """Which of these workers say that they have no task, and which that they have one, in a second.

    One that says nothing is in neither list: it is starting, or its machine is too busy. So are all of them when the
    broker is away: scaling down must work then too.
    """
    # The address is all that is needed of the app; the workers' own modules would take a second to import.
    app = Celery(broker=broker, set_as_current=False)
    app.conf.broker_transport_options = {"socket_timeout": 3.0, "socket_connect_timeout": 3.0, "max_retries": 1}
    nodes = {nodename(WORKER.format(wid), gethostname()): wid for wid in wids}
    try:
        with app.connection_for_write() as connection:
            tasks = app.control.inspect(list(nodes), ANSWER_TIME, connection=connection).active() or {}
    except (OSError, OperationalError):
        return [], []
    return [nodes[node] for node in tasks if not tasks[node]], [nodes[node] for node in tasks if tasks[node]]


def _number(variable: str, text: str | None, low: int) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not low <= int(text) <= 64:
        sys.exit(f"make scale: {variable} is a number from {low} to 64, not {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
