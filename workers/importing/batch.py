"""What is read from a CSV file at a time: records, the rejects among them, and where in the file they stand."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_RAW = 10_000
"""Characters of a rejected record that are kept."""


@dataclass(frozen=True)
class Position:
    """The end of a record: the offset in bytes of what follows it, and the number of lines before that."""

    offset: int
    line: int = 0


@dataclass(frozen=True)
class Reject:
    """A record that is not in the table: the line it begins in (from 1), why, and its text (shortened)."""

    line: int
    reason: str
    raw: str


@dataclass
class Batch:
    """Records in file order, and those that were rejected by their form; `after` is where the next begins."""

    lines: list[str]
    before: Position
    after: Position
    rows: list[list[str]] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def reject(self, span: tuple[int, int], reason: str) -> Reject:
        """Return the reject for the record in lines `span` of this batch."""
        raw = "".join(self.lines[span[0] : span[1]])
        if len(raw) > MAX_RAW:
            raw = f"{raw[:MAX_RAW]}… (shortened)"
        return Reject(self.before.line + span[0] + 1, reason, printable(raw.rstrip("\r\n")))


def printable(raw: str) -> str:
    """Return the text with what a text file or a database cannot hold written out: NUL, undecodable bytes."""
    escaped = re.sub("[\udc80-\udcff]", lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", raw)
    return escaped.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
