"""A CSV file as records, from any byte position that once ended a batch, in bounded memory.

A batch is what one block of the file holds, up to the end of the record that the block's end falls into. Python's csv
reader pulls one line at a time and never reads ahead, so the lines it has pulled say where in the file a record ends.

What cannot be read as a record is rejected by its first line, and reading goes on at the next one: a quote that is
never closed costs its own line and not the rest of the file.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from workers.importing.batch import Batch, Position, printable
from workers.importing.encoding import Text
from workers.problems import BadHeader, EmptyFile, NotText, WrongEncoding

BLOCK = 1 << 20
"""Bytes of a block."""
MAX_FIELD = 1 << 20
"""Characters of a field."""
MAX_RECORD = 4 << 20
"""Characters of a record, over all its lines."""

csv.field_size_limit(MAX_FIELD)
_LINE_END = re.compile(r"\r\n?|\n")


class Records:
    """The records of an open file, in batches. `width` is the number of fields a record must have, None for any."""

    def __init__(
        self,
        file: BinaryIO,
        text: Text,
        delimiter: str = ",",
        width: int | None = None,
        position: Position | None = None,
        block: int = BLOCK,
    ) -> None:
        self.position = position or Position(text.start)
        self._file = file
        self._text = text
        self._delimiter = delimiter
        self._width = width
        self._block = block
        self._decoder = codecs.getincrementaldecoder(text.encoding)(text.errors)
        self._carry = ""
        self._lines: list[str] = []
        self._cuts: dict[int, int] = {}  # index in _lines → bytes of an endless line that were not kept
        self._room = MAX_RECORD  # characters that may still be read for the record at hand
        self._long = False  # whether what is held can contain a record that is too long
        file.seek(self.position.offset)

    def header(self) -> list[str]:
        """Read the first record that is not a blank line. Raises EmptyFile, BadHeader, NotText or WrongEncoding."""
        reader = csv.reader(self._feed(0), delimiter=self._delimiter, strict=True)
        try:
            names = next((row for row in reader if row), None)
        except csv.Error as error:
            raise BadHeader(f"The column names in line {reader.line_num} cannot be read: {_reason(error)}.") from None
        if names is None:
            raise EmptyFile("The file holds nothing but blank lines.")
        joined = "".join(names)
        if "\0" in joined:
            raise NotText("The first line holds NUL bytes: the file is not CSV text.")
        if not _encodable(joined):
            raise WrongEncoding(f"The first line is not {self._text.encoding}: {printable(joined)[:80]!r}.")
        self._consume(reader.line_num)
        return names

    def batches(self) -> Iterator[Batch]:
        """Yield batches until the file ends; `position` is the end of the last one."""
        while self._lines or self._fill():
            batch = Batch(self._lines, self.position, self.position)
            index, stop = 0, len(self._lines)
            self._room = MAX_RECORD
            while index < stop:
                index = self._read(batch, index, stop)
            self._consume(index)
            batch.after = self.position
            yield batch

    def _read(self, batch: Batch, start: int, stop: int) -> int:
        """Parse lines from `start` until a record ends at or after `stop`; return the line after it."""
        reader = csv.reader(self._feed(start), delimiter=self._delimiter, strict=True)
        end, width = start, self._width
        try:
            for row in reader:
                begin, end = end, start + reader.line_num
                if self._long and sum(map(len, self._lines[begin:end])) > MAX_RECORD:
                    batch.rejects.append(batch.reject((begin, begin + 1), _TOO_LONG))
                    return begin + 1
                if width is None or len(row) == width:
                    if row:
                        batch.rows.append(row)
                        batch.spans.append((begin, end))
                elif row:
                    reason = f"{len(row):,} fields where the header has {width:,}"
                    batch.rejects.append(batch.reject((begin, end), reason))
                if end >= stop:
                    return end
        except csv.Error as error:
            batch.rejects.append(batch.reject((end, end + 1), _reason(error)))
            return end + 1
        return end

    def _feed(self, start: int) -> Iterator[str]:
        while True:
            lines = self._lines[start:]
            yield from lines
            start += len(lines)
            if start == len(self._lines):
                if self._room < 0:
                    raise csv.Error(_TOO_LONG)
                if not self._fill():
                    return

    def _fill(self) -> bool:
        """Append the lines of the next block to `_lines`; False at the end of the file."""
        lines: list[str] = []
        data = "-"
        while data and not lines:
            data = self._read_text()
            lines = io.StringIO(self._carry + data, newline="").readlines()
            # "\r" at the end of a block may be half of a "\r\n": only "\n" is surely the end of a line.
            self._carry = lines.pop() if data and not lines[-1].endswith("\n") else ""
            if not lines and len(self._carry) > MAX_RECORD:
                lines = [self._cut()]
        self._lines += lines
        self._room -= sum(map(len, lines))
        self._long = sum(map(len, self._lines)) > MAX_RECORD
        return bool(lines)

    def _cut(self) -> str:
        """Return the beginning of an endless line and skip its rest: too long for a record, so it will be rejected."""
        line, rest = self._carry[: MAX_RECORD + 1], self._carry[MAX_RECORD + 1 :]
        skipped, data = 0, "-"
        while data and (not (end := _LINE_END.search(rest)) or end.end() == len(rest)):
            kept = end[0] if end else ""
            skipped += self._bytes(rest[: len(rest) - len(kept)])
            data = self._read_text()
            rest = kept + data
        end = _LINE_END.search(rest)
        self._carry = rest[end.end() :] if end else ""
        self._cuts[len(self._lines)] = skipped + self._bytes(rest) - self._bytes(self._carry)
        return line

    def _read_text(self) -> str:
        """Return some text, or "" at the end of the file."""
        while data := self._file.read(self._block):
            if text := self._decode(data):
                return text
        return self._decode(b"", final=True)

    def _decode(self, data: bytes, *, final: bool = False) -> str:
        if final and self._text.wide:
            # Half a character: a lone surrogate keeps it from being taken for text.
            half, self._decoder = self._decoder.getstate()[0], codecs.getincrementaldecoder(self._text.encoding)()
            return "\udcff" if half else ""
        try:
            return self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            raise WrongEncoding(f"The file is not {self._text.encoding}: {error.reason}.") from None

    def _consume(self, index: int) -> None:
        """Move the position past the first `index` lines held."""
        cuts = sum(size for line, size in self._cuts.items() if line < index)
        size = self._bytes("".join(self._lines[:index])) + cuts
        self.position = Position(self.position.offset + size, self.position.line + index)
        self._lines = self._lines[index:]
        self._cuts = {line - index: size for line, size in self._cuts.items() if line >= index}

    def _bytes(self, text: str) -> int:
        return len(text.encode(self._text.encoding, self._text.errors))


_TOO_LONG = f"the record is longer than {MAX_RECORD:,} characters"
_REASONS = {
    "unexpected end of data": "a quote is opened here and never closed",
    "field larger than field limit": f"a field is longer than {MAX_FIELD:,} characters: is its quote never closed?",
    "expected after": "a quoted field goes on after its closing quote",
}


def _reason(error: csv.Error) -> str:
    """Say the csv module's complaint in the words of a person who looks at the file."""
    text = str(error)
    return next((reason for sign, reason in _REASONS.items() if sign in text), text)


def _encodable(text: str) -> bool:
    """Whether the text is free of the lone surrogates that stand for undecodable bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
