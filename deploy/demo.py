"""`make demo`: one real job, from the upload of a CSV file to its table, with its bar in the terminal.

    python -m deploy.demo [--rows 1000000]

Uses the hub of HEADWAY_URL or the stack that runs on the folder STATE; when there is none, a stack of its own, gone
afterwards. Exit code 0 on SUCCESS, else 1 with one sentence (130 after Ctrl-C).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import httpx
from rich.console import Console

from deploy.launch import launched
from deploy.programs import ROOT
from deploy.samples import csv_files
from deploy.server import free_port
from deploy.stack import running
from deploy.terminal import outcome, plain, view
from deploy.watch import follow, hub_url
from headway.client import WatchRefused
from headway.events import State
from hub import card

START_TIMEOUT = 120.0  # seconds for a stack of our own; a slow disk makes a database in half a minute
STOP_TIMEOUT = 20.0  # seconds; `make up` promises 10
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
ANSWER_TIMEOUT = 120.0  # seconds for the hub's answer to an upload


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


def demo(console: Console, url: str, rows: int) -> bool:
    """Import a real file of about `rows` rows through the hub at `url`, and say whether it succeeded."""
    files = csv_files().values()
    if not files:
        raise DemoError("there is no sample data: the package vega-datasets is not installed")
    source = max(files, key=lambda path: path.stat().st_size)
    with tempfile.TemporaryDirectory(prefix="headway-demo-") as folder:
        path, real, copies = repeated(source, rows, Path(folder))
        size = card.amount(path.stat().st_size, "bytes")
        console.print(
            f"{source.name} has {real:,} rows of real data. Repeated {copies} times, so that there is something to "
            f"watch: {real * copies:,} rows, {size}.",
            soft_wrap=True,
        )
        task_id = submit(url, path)
    console.print(f"Live in the browser too: {url}/?job={task_id}\n", soft_wrap=True)
    try:
        end = asyncio.run(follow(url, task_id, view(console, f"import_csv {source.name}")))
    except (WatchRefused, ConnectionError) as error:
        raise DemoError(f"the task {task_id} cannot be watched: {error}") from error
    outcome(console, url, end)
    if end.state is not State.SUCCESS:
        raise DemoError(f"the import ended in {end.state}")
    return True


def repeated(source: Path, rows: int, folder: Path) -> tuple[Path, int, int]:
    """Write `source` with its rows repeated to `rows` or more; return the file, its real rows, and the copies."""
    header, _, body = source.read_bytes().partition(b"\n")
    if not body.endswith(b"\n"):
        body += b"\n"
    real = body.count(b"\n")
    copies = max(1, -(-rows // real))
    path = folder / source.name
    with path.open("wb") as out:
        out.write(header + b"\n")
        for _ in range(copies):
            out.write(body)
    return path, real, copies


def submit(url: str, path: Path) -> str:
    """Upload a file and start its import; return the task's id. Raises DemoError."""
    token = os.environ.get("HEADWAY_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=ANSWER_TIMEOUT, trust_env=False) as client:
            with path.open("rb") as data:
                upload = answer(client.post("/uploads", files={"file": (path.name, data, "text/csv")}))
            body = {"task": "import_csv", "args": {"file": upload["ref"]}}
            key = {"Idempotency-Key": str(uuid.uuid4())}
            return str(answer(client.post("/tasks", json=body, headers=key))["task_id"])
    except httpx.HTTPError as error:
        raise DemoError(f"the hub at {url} cannot be reached: {error}") from error


def answer(response: httpx.Response) -> dict[str, Any]:
    """The JSON of a good answer. Raises DemoError with the problem's own words (RFC 9457)."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    if response.is_success:
        return dict(body)
    detail = body.get("detail") or f"HTTP {response.status_code}"
    raise DemoError(f"the hub refused {response.request.method} {response.request.url.path}: {detail}")


@contextmanager
def own_stack(console: Console) -> Iterator[str]:
    """A stack for the length of the demo, on a free port and a temporary state; its hub's address."""
    console.print("No stack runs here: starting one for this demo (make up starts one that stays) …", soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="headway-demo-", ignore_cleanup_errors=True) as folder:
        state, log = Path(folder) / "state", Path(folder) / "up.log"
        words = [sys.executable, "-m", "deploy.up", "--port", str(free_port()), "--state", str(state)]
        # A demo that is killed cannot stop its stack: the kernel asks the stack to go.
        command = launched(words, farewell=signal.SIGTERM)
        up: subprocess.Popen[bytes] | None = None
        try:
            with log.open("wb") as out, undisturbed():
                # A session of its own: Ctrl-C comes to us, and we stop the stack in order.
                up = subprocess.Popen(  # noqa: S603  # our own module
                    command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True
                )
            yield until_ready(up, state, log)
        finally:
            if up is not None:
                with undisturbed():
                    stop(up)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM to the end of the block, so that no process is started or stopped by half."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda got, _: came.append(got)) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def until_ready(up: subprocess.Popen[bytes], state: Path, log: Path) -> str:
    """Wait for a stack; return its address. Raises DemoError with its own last words."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if stack := running(state):
            return stack.url
        if up.poll() is not None:
            break
        time.sleep(0.1)
    words = log.read_text(errors="replace").split("\n")
    raise DemoError(f"the stack did not start: {next((line for line in reversed(words) if line.strip()), 'no output')}")


def stop(up: subprocess.Popen[bytes]) -> None:
    """End a stack in order, or else by force."""
    up.send_signal(signal.SIGTERM)
    try:
        up.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        up.kill()
        up.wait()


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--rows", type=int, default=1_000_000, help="repeat the real file to about so many rows")
    options = parser.parse_args()
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, interrupted)
    try:
        if url := hub_url():
            demo(console, url, options.rows)
            return
        with own_stack(console) as own:
            demo(console, own, options.rows)
        console.print(
            "\nThe demo's stack is stopped, and its links with it: make up starts one that stays.", soft_wrap=True
        )
    except DemoError as error:
        sys.exit(f"make demo: {plain(str(error))}")
    except KeyboardInterrupt:
        sys.exit(130)


def interrupted(*_: object) -> NoReturn:
    """SIGTERM ends the demo as Ctrl-C does: what it started is stopped on the way out."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
