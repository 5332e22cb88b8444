"""`make watch TASK=<id>`: follow a task in the terminal, from the hub's WebSocket.

    python -m deploy.watch <task id> [--url http://127.0.0.1:8000]

The hub is the one of `--url`, of HEADWAY_URL, or the stack that runs on the folder STATE. Exit code 0 after SUCCESS, 1
after FAILURE or when the task cannot be watched, 3 after REVOKED, 130 after Ctrl-C, which leaves the task running.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from rich.console import Console

from deploy.stack import running
from deploy.terminal import View, outcome, plain, view
from deploy.up import DEFAULT_STATE
from headway.client import Break, WatchRefused, watch
from headway.events import State, TaskEvent

EXIT_CODES = {State.SUCCESS: 0, State.FAILURE: 1, State.REVOKED: 3}


async def follow(url: str, task_id: str, shown: View) -> TaskEvent:
    """Show a task until it has ended, and return the event of its end.

    Raises what `headway.client.watch` raises, and ConnectionError when the hub cannot be reached to begin with. Once it
    has been, a break is only a break.
    """
    end: TaskEvent | None = None

    def broke(lost: Break) -> None:
        if end is None:
            raise ConnectionError(lost.reason)
        shown.broke(lost)

    with shown:
        async for event in watch(url, task_id, token=os.environ.get("HEADWAY_TOKEN"), on_break=broke):
            shown.show(event)
            if event.type != "log" and (end is None or event.seq >= end.seq):
                end = event
    assert end is not None  # noqa: S101  # every watch begins with a snapshot
    return end


def hub_url() -> str | None:
    """The hub that the environment names, or that runs on the state folder; None if there is none."""
    if named := os.environ.get("HEADWAY_URL"):
        return named.rstrip("/")
    state = Path(os.environ.get("STATE") or DEFAULT_STATE).expanduser().absolute()
    stack = running(state)
    return stack.url if stack else None


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(prog="make watch")
    parser.add_argument("task", help="the task's id")
    parser.add_argument("--url", help="the hub's address")
    options = parser.parse_args()
    url = options.url or hub_url()
    if not options.task:
        sys.exit("make watch: which task? make watch TASK=<id>")
    if url is None:
        sys.exit("make watch: no stack runs here; start one with make up, or name a hub with HEADWAY_URL=…")
    console = Console(highlight=False)
    try:
        end = asyncio.run(follow(url, options.task, view(console, options.task)))
    except ConnectionError as error:
        sys.exit(f"make watch: the hub at {url} cannot be reached: {plain(str(error))}")
    except (WatchRefused, ValueError) as error:
        sys.exit(f"make watch: task {plain(options.task)} cannot be watched: {plain(str(error))}")
    except KeyboardInterrupt:
        sys.exit(130)
    outcome(console, url, end)
    sys.exit(EXIT_CODES[end.state])


if __name__ == "__main__":
    main()
