"""A task in the terminal, drawn into a text of 80 columns."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from deploy.terminal import Bar, outcome
from headway.client import Break
from headway.events import State, TaskEvent


def event(**members: Any) -> TaskEvent:
    """A snapshot in the middle of a task."""
    usual: dict[str, Any] = {
        "v": 1, "type": "snapshot", "task_id": "t1", "cursor": "1:1", "seq": 1, "prev": 0, "attempt": 1,
        "state": State.PROGRESS, "current": 1, "total": 2, "unit": "rows", "stage": None, "percent": 50.0,
        "message": None, "rate": None, "eta": None, "stalled": False, "ts": 0.0,
    }  # fmt: skip
    return TaskEvent(**usual | members)


def test_a_break_is_said_in_whole() -> None:
    """Whatever the reason: the line is cut at the edge of the terminal."""
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with Bar(console, "import_csv airports.csv") as bar:
        bar.show(event())
        bar.broke(Break("[Errno 111] Connect call failed ('127.0.0.1', 8000)", 12.0))
    assert isinstance(console.file, io.StringIO)
    assert "connection lost, reconnecting in 12 s" in console.file.getvalue()


def test_what_a_result_does_not_have_has_no_line() -> None:
    """`rejects  none` would read like a file of that name; the page leaves it out too. A zero is something."""
    console = Console(file=io.StringIO(), width=80)
    result = {"table": "imports.airports", "rejected": 0, "rejects": None}
    outcome(console, "http://hub", event(state=State.SUCCESS, result=result))
    assert isinstance(console.file, io.StringIO)
    names = [line.split()[0] for line in console.file.getvalue().splitlines()]
    assert names == ["table", "rejected", "page", "json"]
