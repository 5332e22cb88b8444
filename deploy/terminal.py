"""A task in the terminal: a bar where there is one to draw in, lines where there is not."""

from __future__ import annotations

import re
import time
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec
from msgspec import UNSET
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from headway.client import Break
from headway.events import State, TaskEvent
from hub import card

PLAIN_INTERVAL = 1.0
"""Seconds between two progress lines where there is no terminal to draw a bar in."""
COLOURS = {State.SUCCESS: "green", State.FAILURE: "red", State.REVOKED: "yellow", State.RETRY: "yellow"}
LEVELS = {"debug": "dim", "info": "", "warning": "yellow", "error": "red"}
# A message is somebody's data, and a terminal obeys control characters.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class View(Protocol):
    """Shows a task; a context manager."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: TaskEvent) -> None:
        """The newest event."""

    def broke(self, end: Break) -> None:
        """The connection is lost, and will be tried again."""


class Bar:
    """One line that moves at the bottom of a terminal, and the log above it."""

    def __init__(self, console: Console, title: str) -> None:
        """Nothing is drawn yet."""
        self._console = console
        self._title = Text(plain(title), style="bold")
        self._event: TaskEvent | None = None
        self._lost: str | None = None
        self._live = Live(console=console, refresh_per_second=20, get_renderable=self._draw)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, event: TaskEvent) -> None:
        """Move the bar; a log line goes above it."""
        self._lost = None
        if event.type == "log":
            self._console.print(log_line(event))
        if self._event is None or event.type == "snapshot" or event.seq >= self._event.seq:
            self._event = event

    def broke(self, end: Break) -> None:
        """Say so in place of figures that may be wrong by now."""
        # The whole of a line that is cut at the edge of the terminal; the reason can be long, and passes.
        self._lost = f"connection lost, reconnecting in {card.duration(end.delay)}"

    def _draw(self) -> Group | Text:
        event = self._event
        if event is None:
            return Text.assemble(self._title, "  ", (self._lost or "connecting", "dim"))
        known = filled(event)
        colour = "yellow" if self._lost or event.stalled else COLOURS.get(event.state, "blue")
        moving = known is None and event.state in (State.STARTED, State.PROGRESS) and not self._lost
        bar = ProgressBar(
            total=100, completed=known or 0, width=30, pulse=moving, complete_style=colour, finished_style=colour
        )
        words = Text(self._lost or figures(event), style="yellow" if self._lost else "", overflow="ellipsis")
        line = Table.grid(padding=(0, 1))
        line.add_column(min_width=30)
        line.add_column(no_wrap=True)
        line.add_row(bar, words)
        return Group(Text.assemble(self._title, "  ", ("stalled" if event.stalled else event.state, colour)), line)


class Lines:
    """A line for each change, for logs and pipes."""

    def __init__(self, console: Console, title: str) -> None:
        """Nothing is written yet."""
        self._console = console
        self._title = plain(title)
        self._state: tuple[Any, ...] | None = None
        self._due = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, event: TaskEvent) -> None:
        """Write states and log lines, and progress once in a while."""
        if event.type == "log":
            self._write(log_line(event))
            return
        state = (event.state, event.attempt, event.stalled)
        if state == self._state and time.monotonic() < self._due:
            return
        self._state, self._due = state, time.monotonic() + PLAIN_INTERVAL
        words = (self._title, "stalled" if event.stalled else event.state, figures(event))
        self._write(Text("  ".join(word for word in words if word)))

    def broke(self, end: Break) -> None:
        """Write why, and when the next try is."""
        self._write(Text(f"connection lost ({plain(end.reason)}), reconnecting in {end.delay:.1f} s"))

    def _write(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)


def view(console: Console, title: str) -> View:
    """A bar in a terminal, lines elsewhere."""
    return Bar(console, title) if console.is_terminal else Lines(console, title)


def filled(event: TaskEvent) -> float | None:
    """Percent of the bar, None when nobody knows."""
    return 100.0 if event.state is State.SUCCESS else event.percent


def figures(event: TaskEvent) -> str:
    """Percent, counts, pace and message, worded as on the page."""
    fields = msgspec.structs.asdict(event)
    known = filled(event)
    running = event.state in (State.STARTED, State.PROGRESS)
    words = [
        "" if known is None else f"{known:5.1f}%",
        card.counted(fields),
        card.pace(fields) if running else "",
        f"attempt {event.attempt}" if event.attempt > 1 else "",
        (event.stage or "") if running else "",
        (event.message or "") if running and event.type != "log" else "",
    ]
    return "  ".join(plain(word) for word in words if word)


def log_line(event: TaskEvent) -> Text:
    """A task's log line, with its local time."""
    level = "info" if event.level is UNSET else event.level
    clock = time.strftime("%H:%M:%S", time.localtime(event.ts))
    return Text(f"{clock}  {plain(event.message or '')}", style=LEVELS[level])


def plain(text: str) -> str:
    """Somebody's text, with nothing in it that a terminal would obey."""
    return CONTROL.sub(" ", text)


def outcome(console: Console, url: str, end: TaskEvent) -> None:
    """Print how a task ended, with links to the hub at `url`."""
    lines: list[tuple[str, str]] = []
    if end.error is not UNSET:
        lines.append(("error", f"{end.error.type}: {end.error.message}"))
    if end.reason is not UNSET:
        lines.append(("reason", end.reason))
    if isinstance(end.result, dict):
        lines += [
            (card.label(str(name)), _value(url, value)) for name, value in end.result.items() if value is not None
        ]
    elif end.result is not UNSET and end.result is not None:
        lines.append(("result", card.plain(end.result)))
    lines += [("page", f"{url}/jobs/{end.task_id}"), ("json", f"{url}/tasks/{end.task_id}")]
    width = max(len(name) for name, _ in lines)
    for name, words in lines:
        line = Text.assemble((f"  {plain(name):<{width}}  ", "dim"), (plain(words), "red" if name == "error" else ""))
        console.print(line, soft_wrap=True)


def _value(url: str, value: Any) -> str:
    link = value.get("href") if isinstance(value, dict) else None
    return f"{url}{link} ({value.get('name')})" if isinstance(link, str) else card.plain(value)
