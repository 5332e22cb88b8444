"""The columns of a table to be: names from the header, types from a sample of the rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from typing import Any, Literal

from msgspec import Struct

from workers.problems import BadArgument, TooManyColumns

ColumnType = Literal[
    "text", "integer", "bigint", "numeric", "double", "boolean", "date", "timestamp", "timestamptz", "uuid"
]
SQL_TYPES: dict[str, str] = {
    "double": "double precision",
    **{name: name for name in ("text", "integer", "bigint", "numeric", "boolean", "date")},
    **{name: name for name in ("timestamp", "timestamptz", "uuid")},
}

MAX_COLUMNS = 1_600  # PostgreSQL's own limit
NAME_BYTES = 63  # the length that PostgreSQL cuts an identifier to, silently
SYSTEM = {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}  # every table has these already


class Column(Struct, frozen=True):
    """A column: its name as in the file, made unique, and one of the `ColumnType`s."""

    name: str
    type: str


def names(header: list[str]) -> tuple[list[str], list[str]]:
    """Return usable column names, and a note for each that had to change. Raises TooManyColumns.

    Blank names become `column_<n>`, a name that is there already gets `_2`, `_3`, …; names are cut to 63 bytes.
    """
    if len(header) > MAX_COLUMNS:
        raise TooManyColumns(f"The file has {len(header):,} columns; a table can have {MAX_COLUMNS:,} at most.")
    taken: set[str] = set(SYSTEM)
    result, notes = [], []
    for number, given in enumerate(header, 1):
        plain = " ".join(given.split())
        base = name = _cut(plain or f"column_{number}")
        repeat = 2
        while name in taken:
            suffix = f"_{repeat}"
            name, repeat = _cut(base, len(suffix)) + suffix, repeat + 1
        taken.add(name)
        result.append(name)
        if name != plain:
            notes.append(f"column {number}, {given[:NAME_BYTES]!r}, is called {name!r}")
    return result, notes


def _cut(name: str, less: int = 0) -> str:
    return name.encode()[: NAME_BYTES - less].decode(errors="ignore")


def columns(header: list[str], rows: list[list[str]], given: Mapping[str, str]) -> list[Column]:
    """Return the columns: with the type that was `given`, else the narrowest that every value in `rows` fits.

    Raises BadArgument for a type given for a column that is not there.
    """
    if strange := sorted(given.keys() - set(header)):
        raise BadArgument(f"A type is given for {strange[0]!r}, but the columns are {', '.join(header)[:300]}.")
    return [Column(name, given.get(name) or infer(row[index] for row in rows)) for index, name in enumerate(header)]


def infer(values: Iterable[str]) -> str:
    """Return the narrowest type that fits every value; empty values fit any, and nothing but them is "text".

    Whole numbers with leading zeros (postcodes, part numbers) are text: as numbers they would lose them. Days and
    times count only when written year first or with the month's name: 01/02/2003 is a different day elsewhere.
    """
    seen = Counter(value.strip() for value in values)
    del seen[""]
    if not seen:
        return "text"
    return next((name for name, fits in _FITS if all(map(fits, seen))), "text")


def _pattern(pattern: str) -> Callable[[str], Any]:
    return re.compile(pattern, re.ASCII | re.IGNORECASE).fullmatch


_WHOLE = _pattern(r"[+-]?(0|[1-9]\d{0,18})")
_DECIMAL = _pattern(r"[+-]?(0|[1-9]\d*)?(\.\d+)?|[+-]?\d+\.")
_FLOAT = _pattern(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?")
_LEADING_ZERO = _pattern(r"[+-]?0\d.*")
_YEAR_FIRST = _pattern(r"(\d{4})([-/])(\d\d?)\2(\d\d?)")
_MONTH_NAME = _pattern(r"([a-z]+) (\d\d?),? (\d{4})")
_CLOCK = _pattern(r"(\d\d):(\d\d)(?::(\d\d)(?:\.\d{1,6})?)?(z|[+-]\d\d(?::?\d\d)?)?")
_MONTH_NAMES = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_UUID = _pattern(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MONTHS = {name: number for number, full in enumerate(_MONTH_NAMES, 1) for name in (full, full[:3])}


def _bigint(value: str) -> bool:
    return bool(_WHOLE(value)) and -(2**63) <= int(value) < 2**63


def _numeric(value: str) -> bool:
    return bool(_DECIMAL(value)) and any(map(str.isdigit, value)) and len(value) <= 1000


def _double(value: str) -> bool:
    return bool(_FLOAT(value)) and not _LEADING_ZERO(value) and abs(float(value)) != float("inf")


def _date(value: str) -> bool:
    try:
        if match := _YEAR_FIRST(value):
            date(int(match[1]), int(match[3]), int(match[4]))
            return True
        if (match := _MONTH_NAME(value)) and match[1].lower() in _MONTHS:
            date(int(match[3]), _MONTHS[match[1].lower()], int(match[2]))
            return True
    except ValueError:
        return False
    return False


def _moment(value: str, *, zone: bool) -> bool:
    day, _, clock = value.replace("T", " ", 1).partition(" ") if value[:1].isdigit() else value.rpartition(" ")
    match = _CLOCK(clock)
    if match is None or bool(match[4]) is not zone or not _date(day):
        return False
    try:
        time(int(match[1]), int(match[2]), int(match[3] or 0))
    except ValueError:
        return False
    return True


_FITS: tuple[tuple[ColumnType, Callable[[str], Any]], ...] = (
    ("boolean", lambda value: value.lower() in {"true", "false"}),
    ("bigint", _bigint),
    ("numeric", _numeric),
    ("double", _double),
    ("date", _date),
    ("timestamp", lambda value: _moment(value, zone=False)),
    ("timestamptz", lambda value: _moment(value, zone=True)),
    ("uuid", _UUID),
)
