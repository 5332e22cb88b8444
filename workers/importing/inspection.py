"""What a file is, found out before its first row is imported."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import BinaryIO

from workers.importing import columns
from workers.importing.batch import Position
from workers.importing.encoding import Text, examine
from workers.importing.ledger import Plan
from workers.importing.records import Records
from workers.problems import HeaderOnly, JobError

DELIMITERS = ",;\t|"
SNIFF_BLOCK = 64 * 1024
SAMPLE_ROWS = 20_000
SAMPLE_BYTES = 4 << 20  # of the file; as Python's strings short fields take ten times that


def inspect(
    path: Path,
    table: str,
    *,
    types: Mapping[str, str],
    delimiter: str | None,
    encoding: str | None,
    tick: Callable[[int], None],
) -> tuple[Plan, Position, list[str]]:
    """Return the plan, the end of the header, and notes on column names that had to change.

    `tick` is called with the number of bytes read. Raises the JobErrors of encoding, records and columns, and
    HeaderOnly.
    """
    text = examine(path, encoding, tick)
    with path.open("rb") as file:
        delimiter = delimiter or sniff(file, text)
        records = Records(file, text, delimiter)
        header, notes = columns.names(records.header())
        start = records.position
        rows, rejected = _sample(Records(file, text, delimiter, len(header), start))
    if not rows and not rejected:
        raise HeaderOnly("The file has column names and no rows.")
    plan = Plan(table, text.encoding, text.lines, delimiter, columns.columns(header, rows, types))
    return plan, start, notes


def sniff(file: BinaryIO, text: Text) -> str:
    """Return the delimiter with which most of the file's beginning has as many fields as its first line."""
    best = (0.0, 1, ",")
    for delimiter in DELIMITERS:
        try:
            names = Records(file, text, delimiter, block=SNIFF_BLOCK).header()
            batch = next(Records(file, text, delimiter, len(names), block=SNIFF_BLOCK).batches())
        except JobError:
            continue
        share = len(batch.rows) / max(1, len(batch.rows) + len(batch.rejects))
        if len(names) > 1 and (share, len(names)) > best[:2]:
            best = (share, len(names), delimiter)
    return best[2]


def table_name(file_name: str, task_id: str) -> str:
    """Return a safe table name of its own for each task, from the file's name: `stocks_1f3a9c2e`."""
    stem = re.sub(r"[^a-z0-9]+", "_", PurePath(file_name).stem.lower()).strip("_")
    stem = stem if stem[:1].isalpha() else f"csv_{stem}".rstrip("_")
    return f"{stem[:50].rstrip('_')}_{hashlib.sha256(task_id.encode()).hexdigest()[:8]}"


def _sample(records: Records) -> tuple[list[list[str]], int]:
    rows: list[list[str]] = []
    rejected, start = 0, records.position.offset
    for batch in records.batches():
        rows += batch.rows[: SAMPLE_ROWS - len(rows)]
        rejected += len(batch.rejects)
        if len(rows) >= SAMPLE_ROWS or records.position.offset - start > SAMPLE_BYTES:
            break
    return rows, rejected
