"""Whether a running Headway does its work: two real jobs, watched in every way there is.

    python -m deploy.smoke http://127.0.0.1:8000

It needs a hub and what requirements.txt installs, so it runs beside `make up` as well as inside a container. Exit code
0, or 1 with one sentence.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import http.client
import io
import json
import sys
import unicodedata
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from headway.client import WatchRefused, watch
from headway.events import State, TaskEvent, decode

ANSWER_TIMEOUT = 40.0
"""Seconds for one answer, or one line of a stream; a held poll takes up to 20."""
CATALOGUE_PATIENCE = 15.0
"""Seconds in which a worker has to offer its tasks."""
CHARACTERS = range(0x20, 0x3000)


class SmokeError(Exception):
    """Something is not as it should be; the message says what."""


@dataclass(frozen=True)
class End:
    """How a task ended, as one way of watching tells it."""

    cursor: str
    state: str
    result: Any

    @classmethod
    def of(cls, event: TaskEvent) -> End:
        """The end in a terminal event."""
        return cls(str(event.cursor), event.state.value, None if event.result is msgspec.UNSET else event.result)


class Hub:
    """The HTTP side of a hub, without a proxy in between and without anything to install."""

    def __init__(self, url: str) -> None:
        """Raises SmokeError when `url` is not the address of a hub."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise SmokeError(f"{url!r} is not the address of a hub (expected http://host:port)")
        self.url = url.rstrip("/")
        self._parts = parts

    def open(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send a request; the connection is the caller's to close. Raises SmokeError unless the answer is good."""
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._parts.netloc, timeout=ANSWER_TIMEOUT)
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, body, headers)
            response = connection.getresponse()
            if response.status >= 300:
                raise SmokeError(f"{method} {path} answered {response.status}: {response.read(500).decode()}")
        except BaseException:
            connection.close()
            raise
        return connection, response

    def json(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        """Send a request and return what the answer says."""
        connection, response = self.open(method, path, body, **headers)
        try:
            return json.loads(response.read())
        finally:
            connection.close()

    def submit(self, task: str, **args: Any) -> str:
        """Start a task; return its id."""
        body = json.dumps({"task": task, "args": args}).encode()
        return str(self.json("POST", "/tasks", body, **{"Content-Type": "application/json"})["task_id"])

    def upload(self, name: str, data: bytes) -> str:
        """Upload a file; return its ref."""
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return str(self.json("POST", "/uploads", body, **kind)["ref"])


async def by_websocket(hub: Hub, task_id: str) -> End:
    """The end over `WS /ws/task/{id}`; raises SmokeError if the bar ever went back."""
    last: TaskEvent | None = None
    async for event in watch(hub.url, task_id):
        if event.type == "log" or (last is not None and event.seq < last.seq):
            continue
        if last is not None and last.attempt == event.attempt and (event.percent or 0) < (last.percent or 0):
            raise SmokeError(f"{task_id} went back from {last.percent} % to {event.percent} %")
        last = event
    assert last is not None  # noqa: S101  # every watch begins with a snapshot
    return End.of(last)


def by_sse(hub: Hub, task_id: str) -> End:
    """The end over `GET /tasks/{id}/events`."""
    connection, stream = hub.open("GET", f"/tasks/{quote(task_id)}/events")
    try:
        events = [decode(line[5:].strip()) for line in stream if line.startswith(b"data:")]
    finally:
        connection.close()
    if not events or not events[-1].state.terminal:
        raise SmokeError(f"the SSE stream of {task_id} ended before the task did")
    return End.of(events[-1])


def by_polling(hub: Hub, task_id: str) -> End:
    """The end over `GET /tasks/{id}`, held until there is something new."""
    path = f"/tasks/{quote(task_id)}"
    while True:
        body = hub.json("GET", path, Prefer="wait=20")
        if State(body["state"]).terminal:
            return End(body["cursor"], body["state"], body.get("result"))
        path = f"/tasks/{quote(task_id)}?cursor={body['cursor']}"


async def watched(hub: Hub, task_id: str) -> Any:
    """Watch a task in all three ways at once; return its result. Raises SmokeError unless all see the same success."""
    ends = await asyncio.gather(
        by_websocket(hub, task_id),
        asyncio.to_thread(by_sse, hub, task_id),
        asyncio.to_thread(by_polling, hub, task_id),
    )
    if any(end != ends[0] for end in ends):
        raise SmokeError(f"WebSocket, SSE and polling disagree about {task_id}: {ends}")
    if ends[0].state != State.SUCCESS:
        raise SmokeError(f"{task_id} ended in {ends[0].state}")
    return ends[0].result


def table() -> tuple[bytes, int]:
    """Real data that every Python has, as CSV: its table of characters; and the number of its rows."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(("code", "character", "name", "category", "width"))
    rows = 0
    for code in CHARACTERS:
        character = chr(code)
        if name := unicodedata.name(character, ""):
            kinds = unicodedata.category(character), unicodedata.east_asian_width(character)
            writer.writerow((code, character, name, *kinds))
            rows += 1
    return out.getvalue().encode(), rows


async def offered(hub: Hub, *tasks: str) -> None:
    """Wait until the tasks are in the catalogue. Raises SmokeError."""
    deadline = asyncio.get_running_loop().time() + CATALOGUE_PATIENCE
    while True:
        names = json.dumps(await asyncio.to_thread(hub.json, "GET", "/catalogue"))
        missing = [task for task in tasks if f'"{task}"' not in names]
        if not missing:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise SmokeError(f"no worker offers {', '.join(missing)}")
        await asyncio.sleep(0.2)


async def smoke(url: str, limit: float) -> str:
    """Run both jobs within `limit` seconds; return one sentence about them.

    Raises SmokeError, TimeoutError, and what the network and the hub's client raise.
    """
    hub = Hub(url)
    async with asyncio.timeout(limit):
        await offered(hub, "simulate", "import_csv")
        simulated = await asyncio.to_thread(hub.submit, "simulate", steps=40, seconds=2)
        data, rows = table()
        ref = await asyncio.to_thread(hub.upload, "characters.csv", data)
        imported = await asyncio.to_thread(hub.submit, "import_csv", file=ref)
        first, second = await asyncio.gather(watched(hub, simulated), watched(hub, imported))
    if first["steps"] != 40 or (second["rows"], second["rejected"]) != (rows, 0):
        raise SmokeError(f"of {rows} rows {second['rows']} were imported and {second['rejected']} rejected")
    return f"simulate and import_csv ({rows:,} rows): WebSocket, SSE and polling agree on SUCCESS"


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(prog="python -m deploy.smoke")
    parser.add_argument("url", help="the hub's address")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for all of it (default: %(default)s)")
    options = parser.parse_args()
    try:
        print(asyncio.run(smoke(options.url, options.limit)))  # noqa: T201  # a command for people
    except TimeoutError:
        sys.exit(f"smoke: not done within {options.limit:g} s, or no answer for {ANSWER_TIMEOUT:g} s")
    except (SmokeError, WatchRefused, OSError, http.client.HTTPException, ValueError) as error:
        sys.exit(f"smoke: {options.url}: {error}")


if __name__ == "__main__":
    main()
