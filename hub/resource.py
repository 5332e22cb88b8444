"""The task resource: what `GET /tasks/{id}` shows, from what the store holds of a task."""

from __future__ import annotations

from typing import Any

import msgspec

from headway.events import VERSION, Cursor, State
from headway.store import Record
from hub.services import Services

MAX_ATTEMPTS = 100
"""Attempts that the resource lists, the newest ones."""


def resource(snapshot: dict[str, Any], record: Record) -> dict[str, Any]:
    """A snapshot's members, and the task's circumstances; times are Unix seconds, `runtime` is in seconds.

    It depends on nothing but what events bring and revisions count, so equal tags mean equal resources: a claim alone,
    which begins an attempt before the worker says so, does not show.
    """
    fields, attempt = record.fields, snapshot["attempt"]
    started = _number(fields.get(f"run:{attempt}:started_at"))
    body: dict[str, Any] = {
        **snapshot,
        "task": _text(fields.get("task")),
        "args": msgspec.json.decode(fields["args"]) if "args" in fields else None,
        "queue": _text(fields.get("queue")),
        "created_at": _number(fields.get("created_at")),
        "started_at": started,
        "finished_at": None,
        "runtime": None,
        "worker": _text(fields.get("worker")),
        "attempts": _attempts(fields, attempt),
        "parent_id": _text(fields.get("parent_id")),
        "children": record.children,
    }
    if State(body["state"]).terminal:
        body["finished_at"] = body["ts"]
    if started is not None:
        body["runtime"] = round(max(0.0, body["ts"] - started), 3)
    body["links"] = links(body["task_id"])
    return body


def stored(task_id: str, record: Record) -> dict[str, Any]:
    """The task resource, all from the store."""
    fields = record.fields
    seq = int(fields["seq"])
    snapshot = {
        "v": VERSION,
        "type": "snapshot",
        "task_id": task_id,
        "cursor": str(Cursor(int(fields["epoch"]), seq)),
        "seq": seq,
        "prev": int(fields["kept"]),
        **msgspec.json.decode(b"{" + fields["rest"] + b"}"),
    }
    return resource(snapshot, record)


async def read_resource(services: Services, task_id: str) -> dict[str, Any] | None:
    """The task resource; None if there is no such task."""
    record = await services.store.details(task_id)
    return stored(task_id, record) if record is not None else None


def links(task_id: str) -> dict[str, str]:
    """Where a task can be watched."""
    return {
        "self": f"/tasks/{task_id}",
        "events": f"/tasks/{task_id}/events",
        "websocket": f"/ws/task/{task_id}",
        "page": f"/jobs/{task_id}",
    }


def retry_after(state: str) -> int | None:
    """Seconds after which asking again makes sense; None when nothing will change."""
    if State(state).terminal:
        return None
    return 2 if state in (State.PENDING, State.RETRY) else 1


def _attempts(fields: dict[str, bytes], last: int) -> list[dict[str, Any]]:
    """All up to the last, and that one if it has begun: a task that waits for its first run shows attempt 1, too."""
    begun = any(f"run:{last}:{what}" in fields for what in ("started_at", "finished_at"))
    attempts = []
    for number in range(max(1, last - MAX_ATTEMPTS + 1), last + begun):
        run = f"run:{number}:"
        attempts.append(
            {
                "attempt": number,
                "state": _text(fields.get(f"{run}state")),
                "started_at": _number(fields.get(f"{run}started_at")),
                "finished_at": _number(fields.get(f"{run}finished_at")),
            }
        )
    return attempts


def _text(value: bytes | None) -> str | None:
    return value.decode() if value else None


def _number(value: bytes | None) -> float | None:
    return float(value) if value else None
