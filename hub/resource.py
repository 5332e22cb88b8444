"""The task resource: what `GET /tasks/{id}` shows, from what the store holds of a task."""

from __future__ import annotations

from typing import Any

import msgspec

from headway.events import VERSION, Cursor, State
from hub.services import Services

MAX_ATTEMPTS = 100
"""Attempts that the resource lists, the newest ones."""


def resource(task_id: str, fields: dict[str, bytes], children: list[str]) -> dict[str, Any]:
    """The last event's members, and the task's circumstances; times are Unix seconds, `runtime` is in seconds.

    It depends on nothing but the fields, so equal cursors mean equal resources.
    """
    seq = int(fields["seq"])
    started = _number(fields.get(f"run:{int(fields['attempt'])}:started_at"))
    state = State(fields["state"].decode())
    body: dict[str, Any] = {
        "v": VERSION,
        "type": "snapshot",
        "task_id": task_id,
        "cursor": str(Cursor(int(fields["epoch"]), seq)),
        "seq": seq,
        "prev": int(fields["kept"]),
        **msgspec.json.decode(b"{" + fields["rest"] + b"}"),
        "task": _text(fields.get("task")),
        "args": msgspec.json.decode(fields["args"]) if "args" in fields else None,
        "queue": _text(fields.get("queue")),
        "created_at": _number(fields.get("created_at")),
        "started_at": started,
        "finished_at": None,
        "runtime": None,
        "worker": _text(fields.get("worker")),
        "attempts": _attempts(fields),
        "parent_id": _text(fields.get("parent_id")),
        "children": children,
    }
    if state.terminal:
        body["finished_at"] = body["ts"]
    if started is not None:
        body["runtime"] = round(max(0.0, body["ts"] - started), 3)
    body["links"] = links(task_id)
    return body


async def read_resource(services: Services, task_id: str) -> dict[str, Any] | None:
    """The task resource; None if there is no such task."""
    fields, children = await services.store.details(task_id)
    return resource(task_id, fields, children) if "rest" in fields else None


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


def _attempts(fields: dict[str, bytes]) -> list[dict[str, Any]]:
    last = int(fields["attempt"])
    attempts = []
    for number in range(max(1, last - MAX_ATTEMPTS + 1), last + 1):
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
