"""A job as the pages show it: the task resource, put into words.

The browser words the live events in the same way (static/wording.js); what stands here is what is read with scripts
off, and before the first event.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

from headway.events import State
from headway.storage import REF

_SIZES = ("kB", "MB", "GB", "TB")
_DOWNLOAD = re.compile(rf"(/files/{REF.pattern})")
_PLAIN_LIMIT = 500
"""Characters of one value of a result. A page is for reading; the whole of it is at `GET /tasks/{id}`."""


class Fact(NamedTuple):
    """A line of the details."""

    key: str
    """Its name in the task resource."""
    name: str
    value: str | datetime | list[tuple[int, str]]
    """For `attempts`: the number of each, and what became of it."""


class Card(NamedTuple):
    """What templates/card.html shows of one job; all texts are plain, the template escapes them."""

    task_id: str
    task: str
    title: str
    created_at: datetime | None
    state: str
    cursor: str | None
    attempt: int
    stalled: bool
    filled: float | None
    """Percent of the bar that is filled, 0-100; None when nobody knows."""
    percent: str
    counts: str
    pace: str
    spoken: str
    stage: str | None
    message: str | None
    note: str
    result: Any
    error: dict[str, Any] | None
    facts: list[Fact]


def card(task_id: str, task: str, title: str, created_at: datetime | None, resource: dict[str, Any] | None) -> Card:
    """Word a job. `resource` is its task resource (DESIGN.md), None when the store no longer knows it."""
    known = resource or {}
    state = str(known.get("state") or "EXPIRED")
    filled = 100.0 if state == State.SUCCESS else known.get("percent")
    running = state in (State.STARTED, State.PROGRESS)
    percent = "" if filled is None else f"{filled:.0f}%" if filled == 100 else f"{filled:.1f}%"
    counts = counted(known) if known else ""
    return Card(
        task_id, task, title, created_at, state, known.get("cursor"),
        attempt=known.get("attempt") or 0,
        stalled=bool(known.get("stalled")),
        filled=filled,
        percent=percent,
        counts=counts,
        pace=pace(known) if running else "",
        spoken=", ".join(part for part in (state, percent, counts) if part),
        stage=known.get("stage") if running else None,
        message=known.get("message") if state != State.SUCCESS else None,
        note=_note(state, known),
        result=known.get("result"),
        error=known.get("error"),
        facts=_facts(known),
    )  # fmt: skip


def _note(state: str, known: dict[str, Any]) -> str:
    if not known:
        return "The record of this job has expired."
    if known.get("stalled"):
        return "The worker has gone silent. The job is given to another one if it does not come back."
    if state == State.RETRY:
        return f"Waiting to try again: {known.get('reason') or 'the last attempt failed'}"
    return ""


def _facts(known: dict[str, Any]) -> list[Fact]:
    names = {
        "args": "Arguments", "queue": "Queue", "worker": "Worker", "attempts": "Attempts", "created_at": "Submitted",
        "started_at": "Started", "finished_at": "Finished", "runtime": "Runtime",
    }  # fmt: skip
    shown = [key for key in names if known.get(key) not in (None, {}, [])]
    return [Fact(key, names[key], _fact(key, known[key])) for key in shown]


def _fact(key: str, value: Any) -> str | datetime | list[tuple[int, str]]:
    if key.endswith("_at"):
        return moment(value)
    if key == "attempts":
        newest = value[-1]["attempt"]
        return [(attempt["attempt"], _fate(attempt, newest)) for attempt in value]
    return duration(value) if key == "runtime" else plain(value)


def _fate(attempt: dict[str, Any], newest: int) -> str:
    """What became of an attempt. One that ended without a word was handed over: its worker went away or was stopped."""
    if attempt["state"]:
        return str(attempt["state"])
    return "running" if attempt["finished_at"] is None and attempt["attempt"] == newest else "handed over"


def counted(event: dict[str, Any]) -> str:
    """How much is done, in the event's own unit: `420 of 1,000 rows`, `1.2 MB of 4.0 MB`, `7 files`."""
    current, total, unit = event.get("current"), event.get("total"), event.get("unit")
    if not current and total is None:
        return ""
    done = amount(current or 0, unit)
    whole = "" if total is None else f" of {amount(total, unit)}"
    return f"{done}{whole}" if unit in (None, "bytes") else f"{done}{whole} {unit}"


def pace(event: dict[str, Any]) -> str:
    """How fast, and how long still: `812 rows/s, 12 s left`."""
    rate, eta, unit = event.get("rate"), event.get("eta"), event.get("unit")
    speed = (
        "" if not rate else f"{amount(rate, unit)}/s" if unit in (None, "bytes") else f"{amount(rate, unit)} {unit}/s"
    )
    return ", ".join(part for part in (speed, "" if eta is None else f"{duration(eta)} left") if part)


def amount(value: float, unit: str | None = None) -> str:
    """A number for reading: thousands separated, bytes in kB, MB, …, one decimal only where it says something."""
    if unit == "bytes":
        size, suffix = float(value), "B"
        for name in _SIZES:
            if size < 1000:
                break
            size, suffix = size / 1000, name
        return f"{size:.0f} {suffix}" if suffix == "B" or size >= 100 else f"{size:.1f} {suffix}"
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.1f}"


def duration(seconds: float) -> str:
    """Seconds for reading: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(seconds: float) -> datetime:
    """A point in time as the task resource has it (Unix seconds)."""
    return datetime.fromtimestamp(seconds, UTC)


def when(value: datetime) -> str:
    """`20 Nov 2026, 16:40 UTC`; the browser turns it into local time."""
    return f"{value.astimezone(UTC):%d %b %Y, %H:%M} UTC".lstrip("0")


def plain(value: Any) -> str:
    """A value of a result or an argument as text, cut at a bound."""
    if isinstance(value, bool) or value is None:
        text = {True: "yes", False: "no", None: "none"}[value]
    elif isinstance(value, (int, float)):
        text = amount(value)
    elif isinstance(value, dict):
        text = ", ".join(f"{name}: {plain(item)}" for name, item in value.items())
    elif isinstance(value, (list, tuple)):
        text = ", ".join(
            " ".join(map(plain, item.values())) if isinstance(item, dict) else plain(item) for item in value
        )
    else:
        text = str(value)
    return text if len(text) <= _PLAIN_LIMIT else text[: _PLAIN_LIMIT - 1] + "…"


def label(name: str) -> str:
    """The name of a result's field, for reading: `rejected_rows` → `rejected rows`."""
    return name.replace("_", " ")


def linked(text: str) -> list[tuple[str, bool]]:
    """Cut a text at the downloads it names: each piece, and whether it is the path of one."""
    return [(piece, index % 2 == 1) for index, piece in enumerate(_DOWNLOAD.split(text)) if piece]
