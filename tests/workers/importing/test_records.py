"""Records from any position: what an import that is killed and resumed relies on."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.importing import records
from workers.importing.batch import Position
from workers.importing.encoding import Text
from workers.importing.records import Records
from workers.problems import BadHeader, EmptyFile, NotText, WrongEncoding

ENCODINGS = st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "cp1252", "cp932"])
FIELDS = st.text('ab ",\n\r\té', max_size=6)
ROWS = st.lists(st.lists(FIELDS, min_size=3, max_size=3), max_size=12)
BLOCKS = st.integers(1, 40)


def read(data: bytes, text: Text, *, width: int | None = None, block: int = 1 << 20, position: Position | None = None):
    """Rows and rejects of everything from `position`."""
    reader = Records(io.BytesIO(data), text, ",", width, position, block)
    rows, rejects = [], []
    for batch in reader.batches():
        rows += batch.rows
        rejects += batch.rejects
    return rows, rejects, reader.position


def read_with_kills(data: bytes, text: Text, *, width: int | None = None, block: int):
    """The same, with a new reader after every single batch."""
    position = Position(text.start)
    rows, rejects = [], []
    while batch := next(Records(io.BytesIO(data), text, ",", width, position, block).batches(), None):
        rows += batch.rows
        rejects += batch.rejects
        assert batch.before == position
        position = batch.after
    return rows, rejects, position


def write(rows: list[list[str]], line_end: str, quoting: int, blanks: set[int]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=line_end, quoting=quoting)
    for number, row in enumerate(rows):
        if number in blanks:
            out.write(line_end)
        writer.writerow(row)
    return out.getvalue()


@given(ROWS, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.sets(st.integers(0, 12)), ENCODINGS, BLOCKS)
def test_a_well_formed_file_gives_its_rows_however_often_it_is_killed(
    rows, line_end, everything, blanks, encoding, block
):
    """Quotes, line ends inside fields, CRLF, blank lines: exactly the rows that were written, and no byte left."""
    if encoding == "cp932":
        rows = [[field.replace("é", "日") for field in row] for row in rows]
    # The writer quotes a "\r" only where it belongs to the line end (until Python 3.13).
    everything = everything or any("\r" in field for row in rows for field in row)
    data = write(rows, line_end, csv.QUOTE_ALL if everything else csv.QUOTE_MINIMAL, blanks).encode(encoding)
    found, rejects, end = read_with_kills(data, Text(encoding), width=3, block=block)
    assert (found, rejects, end.offset) == (rows, [], len(data))


@given(
    st.binary(max_size=60),
    st.lists(st.sampled_from([b'"', b",", b"\n", b"\r", b"a", b"\0", b"\xe9", b"\xc3\xa9"])),
    BLOCKS,
)
def test_any_bytes_give_the_same_rows_and_rejects_however_often_it_is_killed(noise, pieces, block):
    """Broken quotes, undecodable bytes, lone CRs: resuming changes nothing, and the end is the end of the file."""
    data = b"".join(pieces) + noise
    text = Text("utf-8")
    whole = read(data, text, width=2)
    assert read_with_kills(data, text, width=2, block=block) == whole
    assert whole[2].offset == len(data)


@given(st.lists(st.sampled_from(["a" * 7, '"', ",", "\n", "\r\n", "é", "b"]), max_size=60), BLOCKS, ENCODINGS)
def test_endless_fields_and_records_are_rejected_alike_however_often_it_is_killed(pieces, block, encoding):
    """The bounds on fields and records do not depend on where blocks and batches end."""
    data = "".join(pieces).replace("é", "e" if encoding == "cp932" else "é").encode(encoding)
    text = Text(encoding)
    before = csv.field_size_limit(12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MAX_RECORD", 20)
        try:
            whole = read(data, text, width=2)
            killed = read_with_kills(data, text, width=2, block=block)
        finally:
            csv.field_size_limit(before)
    assert killed[0] == whole[0]
    assert [reject.line for reject in killed[1]] == [reject.line for reject in whole[1]]
    assert killed[2] == whole[2]
    assert whole[2].offset == len(data)


def test_a_quote_never_closed_costs_its_own_line_only():
    """The lines after it are rows; the reject says where the quote is."""
    rows, rejects, _ = read(b'1,2\n3,"4\n5,6\n7,8\n', Text("utf-8"), width=2)
    assert rows == [["1", "2"], ["5", "6"], ["7", "8"]]
    assert [(r.line, r.reason, r.raw) for r in rejects] == [(2, "a quote is opened here and never closed", '3,"4')]


def test_a_quote_never_closed_in_a_big_file_is_given_up_within_the_field_limit():
    """A reader never holds more than a field's limit and a block for it."""
    line = b"x" * 99 + b"\n"
    data = b'a,"b\n' + line * 40_000
    reader = Records(io.BytesIO(data), Text("utf-8"), ",", 2)
    batch = next(reader.batches())
    assert batch.rejects[0].line == 1
    assert "longer than 1,048,576 characters" in batch.rejects[0].reason
    assert sum(map(len, batch.lines)) < records.MAX_FIELD + 3 * records.BLOCK


def test_an_endless_line_is_one_reject_in_bounded_memory():
    """A line far longer than a record may be is skipped, and its neighbours are rows."""
    data = b"1,2\n" + b"x" * (3 * records.MAX_RECORD) + b"\r\n3,4\n"
    rows, rejects, end = read(data, Text("utf-8"), width=2)
    assert rows == [["1", "2"], ["3", "4"]]
    assert [reject.line for reject in rejects] == [2]
    assert (end.offset, end.line) == (len(data), 3)


def test_a_row_of_another_width_is_a_reject_with_its_text():
    """Line number in the file, both counts, and the text as it stands there."""
    _, rejects, _ = read(b'a,b\n"x\ny",z,q\nc,d\n', Text("utf-8"), width=2)
    assert [(r.line, r.reason, r.raw) for r in rejects] == [(2, "3 fields where the header has 2", '"x\ny",z,q')]


def test_what_cannot_be_written_as_text_is_shown_escaped_in_a_reject():
    """NUL and undecodable bytes do not make the rejects file a binary."""
    _, rejects, _ = read(b"\0,\xe9,c\n", Text("utf-8"), width=2)
    assert rejects[0].raw == "\\x00,\\xe9,c"


def test_half_a_character_at_the_end_of_utf16_is_not_dropped_silently():
    """It stays in its row as something that cannot be decoded."""
    rows, _, _ = read("a,b".encode("utf-16-le") + b"x", Text("utf-16-le"), width=2)
    assert rows == [["a", "b\udcff"]]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\n\r\n\n", EmptyFile),
        (b'a,"b\n1,2\n', BadHeader),
        (b'"a"b,c\n', BadHeader),
        (b"a\0,b\n", NotText),
        (b"na\xefve,b\n", WrongEncoding),
    ],
)
def test_a_header_that_cannot_be_names_is_a_problem_of_its_own(data, problem):
    """Each kind has a class, and a sentence."""
    with pytest.raises(problem, match=r"\.$"):
        Records(io.BytesIO(data), Text("utf-8")).header()
