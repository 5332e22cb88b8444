"""Rows into a table by COPY, and the ones that do not fit found out.

PostgreSQL alone decides what fits a column: no second opinion here that could differ from it. A batch goes in whole;
only when it is refused is it taken in smaller parts around the line that the error names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import psycopg
from psycopg import sql

from workers.importing.database import Connection

SCHEMA = "imports"
PART = 256  # rows, at most: small enough that sending one again costs about a millisecond

FIELD, ROW = "\x1f", "\x1e"
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ESCAPE = str.maketrans(_ESCAPES)
_PROGRAM_LIMIT = "54"  # SQLSTATE class: the row is too big for a page


def statement(table: str, columns: Sequence[str]) -> bytes:
    """Return the COPY statement; an empty field is NULL, whatever the column's type."""
    composed = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT text, NULL '')").format(
        sql.Identifier(SCHEMA, table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    return composed.as_bytes(None)  # once, and not for each part: it takes a while for 1,600 columns


def copy(connection: Connection, copy_in: bytes, rows: list[list[str]], room: int) -> list[tuple[int, str]]:
    """Load the rows that fit and return the others: (index in `rows`, reason).

    Stops when more than `room` rows were refused, with the rest not looked at. Call it inside a transaction.
    """
    numbered = list(enumerate(rows))
    refused = []
    try:
        data = block(rows)
    except UnicodeEncodeError:
        data = b"\0"
    if b"\0" in data:
        refused = [(index, reason) for index, row in numbered if (reason := _unstorable(row))]
        bad = {index for index, _ in refused}
        numbered = [(index, row) for index, row in numbered if index not in bad]
        data = block([row for _, row in numbered])
    if numbered and _try(connection, copy_in, data) is not None:
        refused += _in_parts(connection, copy_in, numbered, room - len(refused))
    return sorted(refused)


def block(rows: list[list[str]]) -> bytes:
    """Return the rows in the text format of COPY. Raises UnicodeEncodeError for lone surrogates."""
    # Joined first and escaped all at once: a quarter of the time that field by field takes.
    text = ROW.join(map(FIELD.join, rows)) + ROW
    if text.count(FIELD) != sum(map(len, rows)) - len(rows) or text.count(ROW) != len(rows):
        # The data has a separator in it.
        return "".join("\t".join(field.translate(_ESCAPE) for field in row) + "\n" for row in rows).encode()
    for char, escape in _ESCAPES.items():
        text = text.replace(char, escape)
    return text.replace(FIELD, "\t").replace(ROW, "\n").encode()


def _unstorable(row: list[str]) -> str | None:
    text = "".join(row)
    if "\0" in text:
        return "a NUL byte, which text in PostgreSQL cannot hold"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        byte = f" (byte 0x{code - 0xDC00:02X})" if 0xDC80 <= code <= 0xDCFF else ""
        return f"a character that cannot be decoded{byte}: wrong encoding?"
    return None


def _in_parts(
    connection: Connection, copy_in: bytes, rows: list[tuple[int, list[str]]], room: int
) -> list[tuple[int, str]]:
    """Find the rows that are refused: larger parts while all is well, smaller ones where rows are bad."""
    refused: list[tuple[int, str]] = []
    at, size = 0, PART
    while at < len(rows) and len(refused) <= room:
        part = rows[at : at + size]
        error = _try(connection, copy_in, block([row for _, row in part]))
        if error is None:
            at, size = at + len(part), min(PART, size * 2)
            continue
        bad = _row_of(error, len(part))
        if bad is None and len(part) > 1:
            size = len(part) // 2  # it names no line: halve until one row is left
            continue
        if bad and _try(connection, copy_in, block([row for _, row in part[:bad]])) is not None:
            size = bad  # the rows before it are not all good either
            continue
        at += bad or 0
        refused.append((rows[at][0], _reason(error)))
        at, size = at + 1, max(1, size // 2)
    return refused


def _try(connection: Connection, copy_in: bytes, data: bytes) -> psycopg.Error | None:
    """Copy all or nothing; return the error when the data is at fault, raise any other."""
    try:
        with connection.transaction(), connection.cursor() as cursor, cursor.copy(copy_in) as stream:
            stream.write(data)
    except psycopg.DataError as error:
        return error
    except psycopg.OperationalError as error:
        if not connection.closed and (error.sqlstate or "").startswith(_PROGRAM_LIMIT):
            return error
        raise
    return None


def _row_of(error: psycopg.Error, rows: int) -> int | None:
    """Return which row (from 0) an error is about, from its context: "COPY stocks, line 3, column price: …"."""
    # The words are in the server's language; the statement's name, the number and their order are not.
    found = re.search(r"^COPY [a-z0-9_]+\D*?(\d+)", error.diag.context or "", re.MULTILINE)
    number = int(found[1]) if found else 0
    return number - 1 if 0 < number <= rows else None


def _reason(error: psycopg.Error) -> str:
    column = re.search(r"^COPY [a-z0-9_]+, line \d+, column (.+?): ", error.diag.context or "", re.MULTILINE)
    what = error.diag.message_primary or str(error)
    return f"column {column[1]}: {what}" if column else what
